"""Trials that can be replicas train as one program, and each has what it has alone: its claim, its files, its end.

The backend `quick` computes each replica by itself, so that its results are the same bits together and alone.
"""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
from backends.errors import MixlabError
from experiments import data
from experiments.design.ablation import GridTrial
from experiments.files import StoreError
from experiments.machine.environment import ROOT
from experiments.parity.tolerances import TABLE
from experiments.results import checkpoint, shape
from experiments.results.claims import Claim, retract
from experiments.results.predictions import FILE
from experiments.results.store import Store
from experiments.running import fit, replicas
from experiments.running.events import Ended, Event, Noted, Returned, Spent, Started, Stepped
from experiments.running.failures import Failure
from experiments.running.local import LocalRun
from experiments.running.opener import WorkerSpec
from experiments.running.pool import Pool, Summary
from experiments.running.queue import Queue
from experiments.running.worker import Worker
from experiments.spec.trial import Trial, as_tree, trial_from_json
from experiments.training import loop
from experiments.training.trial_run import TrialRun
from experiments.weights import weight_files
from slurm import packing
from slurm.needs import Needs
from tests.conftest import (
    base,
    command,
    end,
    kill_tree,
    planned,
    records,
    results,
    start,
    wait_until,
    workers,
    write_yaml,
)
from tests.parity_bench import LONG

TOGETHER = {"replicas": "3", "device": "cpu", "threads": 1}


def trials(folder: Path, backend: str = "quick", run: Any = TOGETHER, **keys: Any) -> list[GridTrial]:
    grid = keys.pop("grid", {"seed": [0, 1, 2]})
    return planned(
        write_yaml(folder / "a.yaml", base=base(backend=backend, run=run, **keys), grid=grid), folder / "data"
    )


@dataclass
class Desk:
    """A worker in this process, and what it tells."""

    store: Path
    cache: Path
    stop: threading.Event = field(default_factory=threading.Event)
    events: list[Event] = field(default_factory=list)
    on_event: Callable[[Event], None] = lambda event: None

    def work(self, trials: Sequence[GridTrial], one_by_one: bool = False) -> dict[str, Ended | Returned]:
        """What the worker tells last of each trial."""
        worker = Worker(
            WorkerSpec(trials[0].trial.backend, (0,), self.store, self.cache, {}, ROOT, time.monotonic()),
            self.stop,
            self._hear,
        )
        for group in [[one] for one in trials] if one_by_one else [trials]:
            worker.run(*(one.trial for one in group))
        return {event.trial_id: event for event in self.events if isinstance(event, (Ended, Returned))}

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        self.on_event(event)


@pytest.fixture
def desk(tmp_path: Path, quick: Path) -> Desk:
    return Desk(tmp_path / "runs", tmp_path / "data")


def alone(tmp_path: Path, trials: Sequence[GridTrial]) -> Path:
    """A store in which each trial was trained alone."""
    Desk(tmp_path / "alone", tmp_path / "data").work(trials, one_by_one=True)
    return tmp_path / "alone"


def same_but_replicas(store: Path, other: Path) -> None:
    first, second = results(store), results(other)
    assert first.keys() == second.keys()
    for record in (*first.values(), *second.values()):
        del record["replicas"], record["spec"]["run"]["replicas"]
    for key, record in first.items():
        assert record == second[key], key


def all_done(told: dict[str, Ended | Returned], trials: Sequence[GridTrial]) -> bool:
    return told == {one.trial.id: Ended(one.trial.id, "done") for one in trials}


# --- each has what it has alone -----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float64", "float32"] if LONG else ["float32"])
@pytest.mark.parametrize("backend", backends.names())
def test_each_record_is_that_of_the_trial_alone_within_the_tolerance_of_replicas(
    tmp_path: Path, backend: str, precision: str
) -> None:
    """They differ in all that they may: seed, rate, schedule and warm-up; all that is random is on."""
    tolerance = TABLE[precision]["replicas"].limit
    grid = {
        "all": [
            {"seed": 0, "train.learning_rate": 0.01, "train.schedule": "cosine"},
            {"seed": 1, "train.learning_rate": 0.003, "train.schedule": "linear", "train.warmup_steps": 3},
            {"seed": 1, "train.learning_rate": 0.03, "train.schedule": "constant"},
        ]
    }
    given = {
        "model": {"num_blocks": 2, "dropout": 0.1, "stochastic_depth": 0.2},
        "data": {"augment": {"flip": True, "crop": 1, "mixup": 0.2}},
        "train": {"steps": 12, "evaluate_every": 4, "ema_decay": 0.9, "precision": precision},
    }
    many = trials(tmp_path, backend, grid=grid, **given)
    assert all_done(Desk(tmp_path / "runs", tmp_path / "data").work(many), many)
    together, single = records(tmp_path / "runs"), records(alone(tmp_path, many))
    assert len({record["curve"][-1]["loss"] for record in together.values()}) == 3
    for key, record in together.items():
        assert (record["replicas"], single[key]["replicas"]) == (3, 1)
        for point, expected in zip(record["curve"], single[key]["curve"], strict=True):
            assert point["step"] == expected["step"] and point["learning_rate"] == expected["learning_rate"]
            assert point["loss"] == pytest.approx(expected["loss"], rel=tolerance)
            for split in ("train", "validation", "test"):
                assert point[split]["loss"] == pytest.approx(expected[split]["loss"], rel=tolerance)
        found, right = (
            weight_files.read(Store(tmp_path / store).folder(key) / "weights.safetensors").params
            for store in ("runs", "alone")
        )
        for name, array in right.items():
            # of what a tensor has moved, as the parity ladder has it, at the least of the rate of a step
            np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance * max(1.0, np.abs(array).max()))


def test_each_trial_has_its_own_files_and_bits(tmp_path: Path, desk: Desk) -> None:
    many = trials(tmp_path, train={"steps": 12, "ema_decay": 0.5})
    assert all_done(desk.work(many), many)
    other = alone(tmp_path, many)
    same_but_replicas(desk.store, other)
    for one in many:
        for name in ("metrics.jsonl", "weights.safetensors", "filters.safetensors", FILE):
            bits = [(store / "trials" / one.trial.id / name).read_bytes() for store in (desk.store, other)]
            assert len(bits[0]) == len(bits[1]) and (bits[0] == bits[1] or name.endswith(".safetensors"))
        (session,) = records(desk.store)[one.trial.id]["sessions"]
        assert session["replicas"] == 3


def test_seconds_are_shares_that_add_up(tmp_path: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICK_STEP_S", "0.05")
    many = trials(tmp_path)
    began = time.monotonic()
    desk.work(many)
    wall_s = time.monotonic() - began
    trained = [record["seconds"]["train"] for record in records(desk.store).values()]
    assert 6 * 0.05 <= sum(trained) <= wall_s and len(set(trained)) == 1
    for record in records(desk.store).values():
        assert record["images_per_s"] == pytest.approx(6 * 8 / trained[0])


def test_each_says_its_own_part_of_the_rate_that_its_record_has(
    tmp_path: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUICK_STEP_S", "0.05")
    many = trials(tmp_path)
    desk.work(many)
    said = [event.images_per_s for event in desk.events if isinstance(event, Stepped)]
    assert said and all(0 < rate <= 8 / 0.05 for rate in said), "8 images a step of at least 0.05 s"
    for record in records(desk.store).values():
        assert record["images_per_s"] <= 3 * max(said) * (1 + 1e-9)


@pytest.mark.parametrize(("keep", "files"), [("best", 1), ("last", 1), ("none", 0)])
def test_what_is_kept_is_each_ones_own(tmp_path: Path, desk: Desk, keep: str, files: int) -> None:
    many = trials(tmp_path, run={**TOGETHER, "keep": keep}, train={"steps": 12, "evaluate_every": 2})
    desk.work(many)
    other = alone(tmp_path, many)
    for one in many:
        places = [store / "trials" / one.trial.id / "weights.safetensors" for store in (desk.store, other)]
        assert [place.exists() for place in places] == [bool(files)] * 2
        if files:
            found, right = (weight_files.read(place).params for place in places)
            for name, array in right.items():
                np.testing.assert_array_equal(found[name], array)
            assert checkpoint.read_progress(places[0]) == checkpoint.read_progress(places[1])


# --- each ends in its own time ------------------------------------------------------------------------------------


def test_one_that_diverges_leaves_and_the_others_go_on(tmp_path: Path, desk: Desk) -> None:
    many = trials(tmp_path, grid={"train.learning_rate": [0.01, 2.0, 0.02]})
    told = desk.work(many)
    assert [told[one.trial.id].how for one in many] == ["done", "failed", "done"]  # type: ignore[union-attr]
    same_but_replicas(desk.store, alone(tmp_path, many))
    bad = records(desk.store)[many[1].trial.id]
    assert (bad["cause"], bad["reason"], bad["steps"]) == ("diverged", "diverged at step 1", 1)
    order = [event for event in desk.events if isinstance(event, Stepped) or event == told[many[1].trial.id]]
    assert order.index(told[many[1].trial.id]) < len(order) - 1, "its record does not wait for the others"


def test_real_replicas_go_on_where_one_diverges(tmp_path: Path) -> None:
    train = {"optimizer": "sgd", "clip_norm": 0.0, "steps": 30, "precision": "float64"}
    grid = {"train.learning_rate": [0.01, 1e3, 0.02]}
    for backend in backends.names():
        folder = tmp_path / backend
        folder.mkdir()
        many = trials(folder, backend, grid=grid, train=train, model={"pre_head_norm": False})
        desk = Desk(folder / "runs", folder / "data")
        told = desk.work(many)
        assert [told[one.trial.id].how for one in many] == ["done", "failed", "done"]  # type: ignore[union-attr]
        single = records(alone(folder, many))
        for key, record in records(desk.store).items():
            assert (record["reason"], record["steps"]) == (single[key]["reason"], single[key]["steps"])
            for point, right in zip(record["curve"], single[key]["curve"], strict=True):
                assert point["loss"] == pytest.approx(right["loss"], rel=TABLE["float64"]["replicas"].limit)


def test_one_whose_claim_is_lost_is_left_to_the_other_and_the_others_go_on(tmp_path: Path, desk: Desk) -> None:
    many = trials(tmp_path, run={**TOGETHER, "checkpoint_every_s": 0.0})
    lost = many[1].trial.id

    def take_over(event: Event) -> None:
        if isinstance(event, Stepped) and event.trial_id == lost:
            retract(Store(desk.store).folder(lost))

    desk.on_event = take_over
    told = desk.work(many)
    assert [told[one.trial.id].how for one in many] == ["done", "busy", "done"]  # type: ignore[union-attr]
    assert set(records(desk.store)) == {many[0].trial.id, many[2].trial.id}
    assert not Store(desk.store).checkpoint(lost).exists(), "what is in its folder is the other's"


def test_one_that_another_process_has_or_has_ended_is_not_begun(tmp_path: Path, desk: Desk) -> None:
    many = trials(tmp_path)
    store = Store(desk.store)
    claim = Claim(store.folder(many[0].trial.id))
    Desk(desk.store, desk.cache).work([many[1]])
    told = desk.work(many)
    assert [told[one.trial.id].how for one in many] == ["busy", "done", "done"]  # type: ignore[union-attr]
    assert {key: one["replicas"] for key, one in records(desk.store).items()} == {one.trial.id: 1 for one in many[1:]}
    claim.release()


def test_an_error_of_one_is_its_own_failure(tmp_path: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    many = trials(tmp_path)
    keep = TrialRun.keep

    def boom(self: TrialRun, state: Any) -> None:
        if self.trial.id == many[2].trial.id:
            raise RuntimeError("boom")
        keep(self, state)

    monkeypatch.setattr(TrialRun, "keep", boom)
    told = desk.work(many)
    assert [told[one.trial.id].how for one in many] == ["done", "done", "crashed"]  # type: ignore[union-attr]
    record = records(desk.store)[many[2].trial.id]
    assert record["reason"] == "RuntimeError: boom" and "in boom" in record["traceback"]


def test_a_full_disk_ends_the_run_and_each_goes_on_later(
    tmp_path: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = trials(tmp_path, run={**TOGETHER, "checkpoint_every_s": 0.0})
    write = checkpoint.write

    def full(path: Path, *arguments: Any) -> None:
        if path.parent.name == many[0].trial.id:
            raise StoreError("store: no space is left")
        write(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", full)
        told = desk.work(many)
    assert [told[one.trial.id].how for one in many] == ["error", "done", "done"]  # type: ignore[union-attr]
    desk.work(many)
    same_but_replicas(desk.store, alone(tmp_path, many))


def test_what_breaks_together_is_given_back_to_be_tried_one_by_one(
    tmp_path: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUICK_BREAKS", "1")
    many = trials(tmp_path)
    told = desk.work(many)
    failure = Failure("error", "RuntimeError: together it breaks")
    assert told == {one.trial.id: Returned(one.trial.id, 1, failure, crashed=True) for one in many}
    (note,) = (event.sentence for event in desk.events if isinstance(event, Noted))
    assert note == f"a program of 3 trials failed ({failure.reason}); those left of it are tried one by one"
    assert not records(desk.store) and not list(desk.store.glob("trials/*/heartbeat"))


def test_the_seconds_of_what_raises_are_booked(tmp_path: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*arguments: Any) -> None:
        raise StoreError("data: it cannot be read")

    monkeypatch.setattr(data, "load", damaged)
    (told,) = desk.work(trials(tmp_path, grid={"seed": [0]})).values()
    assert isinstance(told, Ended) and told.how == "error"
    assert "data" in {phase for event in desk.events if isinstance(event, Spent) for phase in event.seconds}


# --- stops and resumes --------------------------------------------------------------------------------------------


def stopped_at(desk: Desk, trials: Sequence[GridTrial], step: int) -> None:
    """Train them until some step, and no further."""

    def stop(event: Event) -> None:
        if isinstance(event, Stepped) and event.step >= step:
            desk.stop.set()

    desk.on_event = stop
    told = desk.work(trials)
    assert {event.how for event in told.values() if isinstance(event, Ended)} == {"stopped"}
    desk.stop.clear()
    desk.events.clear()
    desk.on_event = lambda event: None


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of two steps, after a first one of one: 1, 3, 5, 6, 8, ..."""
    monkeypatch.setattr(loop, "CHUNK_S", 1e9)
    monkeypatch.setattr(loop, "MAX_CHUNK_STEPS", 2)


TWELVE = {"steps": 12, "evaluate_every": 6, "ema_decay": 0.5}


@pytest.mark.usefixtures("chunks")
def test_a_stop_saves_all_and_they_go_on_together(tmp_path: Path, desk: Desk) -> None:
    many = trials(tmp_path, train=TWELVE)
    stopped_at(desk, many, 4)
    store = Store(desk.store)
    assert [checkpoint.newest_step(store.checkpoint(one.trial.id)) for one in many] == [5, 5, 5]
    assert all_done(desk.work(many), many)
    assert {event.step for event in desk.events if isinstance(event, Started)} == {5}
    same_but_replicas(desk.store, alone(tmp_path, many))
    assert {len(record["sessions"]) for record in records(desk.store).values()} == {2}


@pytest.mark.usefixtures("chunks")
def test_trials_at_other_steps_go_on_from_their_own(tmp_path: Path, desk: Desk) -> None:
    """Whoever sent them: a worker trains those of each step together, one step after the other."""
    many = trials(tmp_path, run={**TOGETHER, "replicas": "4"}, train=TWELVE, grid={"seed": [0, 1, 2, 3]})
    stopped_at(desk, many[1:3], 4)
    stopped_at(desk, many[3:], 8)
    assert all_done(desk.work(many), many)
    same_but_replicas(desk.store, alone(tmp_path, many))
    found = records(desk.store)
    assert [found[one.trial.id]["replicas"] for one in many] == [1, 2, 2, 1]
    assert [[s["first_step"] for s in found[one.trial.id]["sessions"]] for one in many] == [[0], [0, 5], [0, 5], [0, 8]]


@pytest.mark.usefixtures("chunks")
def test_one_that_waits_in_its_worker_is_told_as_begun_when_its_steps_begin(tmp_path: Path, desk: Desk) -> None:
    """Not before: a worker that ends meanwhile has not brought it further, which is no fault of its own."""
    many = trials(tmp_path, train=TWELVE)
    stopped_at(desk, many[2:], 4)
    desk.on_event = lambda event: desk.stop.set() if isinstance(event, Stepped) else None
    told = desk.work(many)
    assert [event.how for event in told.values() if isinstance(event, Ended)] == ["stopped"] * 3
    first, other, waiting = (one.trial.id for one in many)
    assert [event for event in desk.events if isinstance(event, Started)] == [Started(first, 0), Started(other, 0)]
    desk.stop.clear()
    desk.events.clear()
    desk.on_event = lambda event: None
    assert all_done(desk.work(many), many)
    heard = [event for event in desk.events if isinstance(event, (Started, Ended))]
    assert [event for event in heard if isinstance(event, Started)][-1] == Started(waiting, 5)
    assert heard.index(Ended(first, "done")) < heard.index(Started(waiting, 5)) < heard.index(Ended(waiting, "done"))


@pytest.mark.usefixtures("chunks")
def test_one_whose_checkpoint_is_damaged_begins_again_beside_the_others(tmp_path: Path, desk: Desk) -> None:
    many = trials(tmp_path, train=TWELVE)
    stopped_at(desk, many, 4)
    path = Store(desk.store).checkpoint(many[1].trial.id)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # its header is whole
    assert all_done(desk.work(many), many)
    same_but_replicas(desk.store, alone(tmp_path, many))
    assert [len(records(desk.store)[one.trial.id]["notes"]) for one in many] == [0, 1, 0]
    assert sum(isinstance(event, Noted) for event in desk.events) == 1


@pytest.mark.usefixtures("chunks")
def test_a_record_says_the_most_that_trained_with_it(tmp_path: Path, desk: Desk) -> None:
    """Alone at last, its bits are still not those of a trial that always was."""
    many = trials(tmp_path, train=TWELVE)
    stopped_at(desk, many, 4)
    desk.work(many, one_by_one=True)
    for record in records(desk.store).values():
        assert record["replicas"] == 3 and [one["replicas"] for one in record["sessions"]] == [3, 1]


# --- how many, and which ------------------------------------------------------------------------------------------


def plain(tmp_path: Path, **run: Any) -> Trial:
    return trials(tmp_path, run=run, grid={"seed": [0]})[0].trial


def test_auto_is_one_on_a_cpu_and_what_fits_on_a_gpu_eight_at_most(tmp_path: Path, quick: Path) -> None:
    trial = plain(tmp_path, replicas="auto")
    one, three = (fit.need(trial, on_host=False, num_replicas=n).total for n in (1, 3))
    assert replicas.number(trial, None) == 1
    assert [replicas.number(trial, free) for free in (0, one, three - 1, three, 80 * one)] == [1, 1, 2, 3, 8]


def test_a_number_is_the_most_of_what_fits(tmp_path: Path, quick: Path) -> None:
    trial = plain(tmp_path, replicas="12")
    one, three = (fit.need(trial, on_host=False, num_replicas=n).total for n in (1, 3))
    assert replicas.number(trial, None) == 12
    assert [replicas.number(trial, free) for free in (0, three, 80 * one)] == [1, 3, 12]
    assert replicas.number(plain(tmp_path), 80 * one) == 1


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "08", "10000", "Auto"])
def test_another_word_is_refused_in_a_sentence(tmp_path: Path, quick: Path, text: str) -> None:
    with pytest.raises(MixlabError, match=rf"run.replicas: expected auto or a whole number .* got '?{text}'?$"):
        trials(tmp_path, run={"replicas": text})


def test_replicas_are_no_part_of_the_id_and_old_specs_are_read(tmp_path: Path, quick: Path) -> None:
    trial = plain(tmp_path)
    assert {replace(trial, run=replace(trial.run, replicas=text)).id for text in ("1", "8", "auto")} == {trial.id}
    old = json.loads(json.dumps(as_tree(trial)))
    del old["run"]["replicas"]
    assert trial_from_json(old) == trial and trial.run.replicas == "1"


@pytest.mark.parametrize(
    ("axis", "together"),
    [
        ({"seed": [0, 1]}, True),
        ({"train.learning_rate": [0.1, 0.2]}, True),
        ({"train.schedule": ["cosine", "linear"]}, True),
        ({"train.warmup_steps": [0, 3]}, True),
        ({"model.stochastic_depth": [0.1, 0.2]}, True),
        ({"model.stochastic_depth": [0.0, 0.2]}, False),  # its array is there or not
        ({"model.dropout": [0.1, 0.2]}, False),  # the rate is no array
        ({"model.hidden_dim": [8, 16]}, False),
        ({"train.steps": [6, 7]}, False),
        ({"train.evaluate_every": [2, 3]}, False),
        ({"train.batch_size": [8, 9]}, False),
        ({"train.precision": ["float32", "float64"]}, False),
        ({"train.weight_decay": [0.1, 0.2]}, False),
        ({"train.b1": [0.8, 0.9]}, False),
        ({"train.ema_decay": [0.5, 0.6]}, False),
        ({"data.num_examples": [60, 80]}, False),
        ({"data.split_seed": [0, 1]}, False),
        ({"data.fraction": [0.5, 1.0]}, False),
        ({"data.augment.flip": [True, False]}, False),
        ({"run.device": ["cpu", "auto"]}, False),
        ({"run.keep": ["best", "last"]}, False),
        ({"backend": ["quick", "torch"]}, False),
    ],
)
def test_trials_that_differ_only_in_arrays_are_taken_together(
    tmp_path: Path, quick: Path, axis: dict[str, list[Any]], together: bool
) -> None:
    given = {"model": {"num_blocks": 2}, "run": {"replicas": "2"}, "train": {"steps": 6, "evaluate_every": 3}}
    for name in axis:
        section, _, key = name.rpartition(".")
        given = {**given, section: {n: v for n, v in given.get(section, {}).items() if n != key}} if section else given
    ((name, values),) = axis.items()
    if name.startswith("run."):  # no axis of a grid: as two users may have it
        first = trials(tmp_path, grid={"seed": [0]}, **given)[0].trial
        runs = [replace(first.run, **{name.removeprefix("run."): value}) for value in values]
        many = [GridTrial(replace(first, seed=seed, run=run), {}) for seed, run in enumerate(runs)]
    else:
        many = trials(tmp_path, grid=axis, **given)
    queue = Queue(many, Store(tmp_path / "runs"))
    taken, unwanted = queue.take(queue.choose_backend(None, []), 1, lambda key: True)
    assert (len(taken), unwanted, len(queue)) == ((2, [], 0) if together else (1, [], len(many) - 1))


def queue_of(tmp_path: Path, number: int, **run: Any) -> Queue:
    many = trials(tmp_path, run={"replicas": "4", **run}, grid={"seed": list(range(number))})
    return Queue(many, Store(tmp_path / "runs"))


def take(queue: Queue, idle: int = 1, wanted: Callable[[str], bool] = lambda key: True) -> list[int]:
    return [planned.trial.seed for planned in queue.take("quick", idle, wanted)[0]]


def test_each_idle_worker_gets_its_share(tmp_path: Path, quick: Path) -> None:
    assert take(queue_of(tmp_path, 7), idle=1) == [0, 1, 2, 3]
    queue = queue_of(tmp_path, 7)
    assert [take(queue, idle) for idle in (3, 2, 1)] == [[0, 1, 2], [3, 4], [5, 6]]
    assert take(queue_of(tmp_path, 2), idle=4) == [0]
    assert take(queue_of(tmp_path, 7, replicas="1")) == [0]


def test_what_was_given_back_comes_next_and_no_more_at_once_than_fit(tmp_path: Path, quick: Path) -> None:
    queue = queue_of(tmp_path, 6)
    taken, _ = queue.take("quick", 1, lambda key: True)
    for one in reversed(taken[2:]):
        queue.put_back([one], most=2)
    assert [take(queue) for _ in range(2)] == [[2, 3], [4, 5]]


def test_trials_that_nobody_wants_are_not_trained_with_the_others(tmp_path: Path, quick: Path) -> None:
    queue = queue_of(tmp_path, 3)
    second = queue.waiting[1]
    taken, unwanted = queue.take("quick", 1, lambda key: key != second.trial.id)
    assert [planned.trial.seed for planned in taken] == [0, 2] and unwanted == [second]


@pytest.mark.usefixtures("chunks")
def test_only_trials_at_the_same_step_are_taken_together(tmp_path: Path, desk: Desk) -> None:
    many = trials(tmp_path, train=TWELVE, run={**TOGETHER, "replicas": "5"}, grid={"seed": [0, 1, 2, 3, 4]})
    stopped_at(desk, [many[1], many[3]], 4)
    queue = Queue(many, Store(desk.store))
    assert [take(queue), take(queue), len(queue)] == [[0, 2, 4], [1, 3], 0]


# --- the pool -----------------------------------------------------------------------------------------------------


class Listener:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, planned: GridTrial, event: Event) -> None:
        self.events.append(event)


def pooled(tmp_path: Path, trials: Sequence[GridTrial], jobs: int = 1) -> tuple[list[Event], Summary]:
    listener = Listener()
    run = LocalRun(trials, Store(tmp_path / "runs"), tmp_path / "data", Pool(jobs, environment={}), listener)
    return listener.events, run.run()


def sizes(log: Path) -> set[int]:
    """How many replicas the steps of a device had."""
    return {int(line.split()[2]) for line in log.read_text().splitlines()}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_pool_trains_a_grid_together(tmp_path: Path, quick: Path, monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    monkeypatch.setenv("QUICK_LOG", str(tmp_path / "log"))
    many = trials(tmp_path, grid={"seed": [0, 1, 2], "model.hidden_dim": [8, 16]})
    _, summary = pooled(tmp_path, many, jobs)
    assert sorted(summary.done) == sorted(one.trial.id for one in many) and not summary.left and not summary.failed
    assert sizes(tmp_path / "log") == {3}
    monkeypatch.delenv("QUICK_LOG")
    same_but_replicas(tmp_path / "runs", alone(tmp_path, many))


def test_auto_trains_as_many_as_fit_a_gpu_and_one_on_a_cpu(
    tmp_path: Path, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = trials(tmp_path, run={"replicas": "auto"}, grid={"seed": [0, 1, 2, 3, 4]})
    two = fit.need(many[0].trial, on_host=False, num_replicas=2).total
    for device, free, expected in (("gpu", two, {1, 2}), ("cpu", None, {1})):
        folder = tmp_path / device
        monkeypatch.setenv("QUICK_LOG", str(tmp_path / f"{device}.log"))
        if free:
            monkeypatch.setenv("QUICK_FREE", str(free))
        else:
            monkeypatch.delenv("QUICK_FREE")
        listener = Listener()
        summary = LocalRun(many, Store(folder), tmp_path / "data", Pool(environment={}), listener).run()
        assert sorted(summary.done) == sorted(one.trial.id for one in many)
        assert sizes(tmp_path / f"{device}.log") == expected
        starts = [event.trial_id for event in listener.events if isinstance(event, Started)]
        assert sorted(starts) == sorted(summary.done), "what was given back was not begun"


@pytest.mark.parametrize(
    ("fault", "note"),
    [
        ("QUICK_BREAKS", "a program of 3 trials failed (RuntimeError: together it breaks)"),
        ("QUICK_KILLED", "its process was killed by signal SIGKILL"),
    ],
)
def test_what_fails_together_is_trained_one_by_one_and_said_once(
    tmp_path: Path, quick: Path, monkeypatch: pytest.MonkeyPatch, fault: str, note: str
) -> None:
    many = trials(tmp_path, grid={"seed": [0, 1, 2, 3, 4, 5]})
    monkeypatch.setenv(fault, "1")
    monkeypatch.setenv("QUICK_LOG", str(tmp_path / "log"))
    events, summary = pooled(tmp_path, many)
    assert sorted(summary.done) == sorted(one.trial.id for one in many) and not summary.failed
    (said,) = (event.sentence for event in events if isinstance(event, Noted))
    assert said.startswith(f"{note}; those ") and said.endswith(" tried one by one")
    assert len({event.trial_id for event in events if isinstance(event, Returned)}) == 3
    together = [line for line in (tmp_path / "log").read_text().splitlines() if line.endswith(" 3")]
    assert len(together) == 1, "the others of their kind are not tried together again"


def test_an_error_of_one_that_is_unexpected_lets_the_others_end_in_its_worker(
    tmp_path: Path, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = trials(tmp_path)
    folder = tmp_path / "runs" / "trials" / many[1].trial.id
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").mkdir()  # a folder where its curve is to go
    _, summary = pooled(tmp_path, many)
    assert summary.error or summary.failed
    assert sorted(summary.done) == sorted(one.trial.id for one in (many[0], many[2]))


def test_kills_change_no_result(tmp_path: Path, quick: Path, started: list[Any]) -> None:
    """`kill -9` of the command or its worker at random instants, in the short form; see test_kill.py."""
    given = {"train": {"steps": 60, "evaluate_every": 12}, "run": {**TOGETHER, "checkpoint_every_s": 0.02}}
    many = trials(tmp_path, grid={"seed": [0, 1, 2], "train.learning_rate": [0.01, 2.0]}, **given)
    dice, kills = random.Random(14), 0
    store = Store(tmp_path / "runs")
    for _ in range(40):
        process = start(tmp_path, "run", "a.yaml", PYTHONPATH=str(quick), QUICK_STEP_S="0.02")
        started.append(process)
        before = sum(checkpoint.newest_step(store.checkpoint(one.trial.id)) for one in many)
        wait_until(
            lambda process=process, before=before: (
                process.poll() is not None
                or sum(checkpoint.newest_step(store.checkpoint(one.trial.id)) for one in many) > before
            ),
            "a step was saved",
        )
        time.sleep(dice.uniform(0, 0.3))
        if process.poll() is not None:
            break
        alive = workers(process.pid)
        if alive and dice.random() < 0.5:
            os.kill(alive[0], signal.SIGKILL)  # the command begins its trials again, one by one
        else:
            kill_tree(process.pid)
        kills += 1
        end(process)
    assert kills >= 2
    again = command(tmp_path, "run", "a.yaml", PYTHONPATH=str(quick))
    assert "Traceback" not in again.err
    assert command(tmp_path, "run", "a.yaml", "run.replicas=1", "--store", "alone", PYTHONPATH=str(quick)).code == 1
    same_but_replicas(tmp_path / "runs", tmp_path / "alone")
    assert {record["status"] for record in records(tmp_path / "runs").values()} == {"done", "failed"}
    assert not [path for path in (tmp_path / "runs").rglob(".*") if path.is_file()]


# --- packs and the bench ------------------------------------------------------------------------------------------


def test_packs_have_trials_that_can_be_replicas_side_by_side(tmp_path: Path, quick: Path) -> None:
    """A grid that counts its seeds last, and whose shapes are equal."""
    grid = {"seed": [0, 1, 2], "train.weight_decay": [0.1, 0.2, 0.3]}
    many = trials(tmp_path, grid=grid)
    packs = packing.packs(many, lambda one: Needs(pack=3))
    decays = [[one.trial.train.weight_decay for one in pack.trials] for pack in packs]
    assert decays == [[0.1] * 3, [0.2] * 3, [0.3] * 3]
    assert [[one.trial.seed for one in pack.trials] for pack in packs] == [[0, 1, 2]] * 3


def test_records_say_nothing_that_is_not_declared(tmp_path: Path, desk: Desk) -> None:
    many = trials(tmp_path, grid={"train.learning_rate": [0.01, 2.0, 0.02]})
    desk.work(many)
    for record in records(desk.store).values():
        assert list(shape.faults(record, whole=True)) == []
