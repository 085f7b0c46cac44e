"""A trial that is stopped, killed or damaged ends as if nothing had happened, bit for bit.

Dropout, stochastic depth, mixup, crop, flip and the average of the parameters are on, so that whatever a checkpoint
forgot would be seen in the curve.
"""

import json
import math
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
from backends.arrays import Array, State
from backends.contract import ArrayDataset, Program
from backends.errors import Diverged
from backends.specs import RunSpec
from backends.state import state_shapes
from experiments import data
from experiments.data import Splits
from experiments.machine.environment import ROOT
from experiments.results import checkpoint
from experiments.results.claims import Claim
from experiments.results.store import Store
from experiments.running.events import Ended, Event, Stepped
from experiments.running.failures import Failure
from experiments.running.opener import WorkerSpec
from experiments.running.worker import Worker
from experiments.spec.config import AugmentConfig, DataConfig, ModelConfig, RunConfig, TrainConfig, TrialConfig
from experiments.spec.resolve import resolve
from experiments.spec.trial import Trial
from experiments.training import loop
from experiments.training.events import Tell
from experiments.training.loop import Loop, Paused, Stopped
from experiments.training.plan import step_plan
from experiments.training.start import initial_state
from experiments.training.trial_run import TrialRun

MODEL = {"patch_size": 4, "hidden_dim": 16, "num_blocks": 2, "dropout": 0.1, "stochastic_depth": 0.2}
AUGMENT = {"flip": True, "crop": 2, "mixup": 0.4}
TRAIN = {
    "batch_size": 16,
    "steps": 40,
    "learning_rate": 0.01,
    "weight_decay": 0.1,
    "ema_decay": 0.9,
    "evaluate_every": 8,
}
SECTIONS = ("metrics", "curve", "steps", "parameters", "training_flops")  # of a record: all but times and names
MAX_CHUNK = 5  # steps: fewer than lie between two evaluations, so a run can stop with a sum of losses at hand

# From a checkpoint of the other backend, float64: rounding of 1e-16, grown over the steps that are left. Seen: 5e-16
# in the states.
OTHER_BACKEND_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Bench:
    """A trial on a backend, its data, and runs of it, each with a program of its own."""

    trial: Trial
    splits: Splits
    dataset: ArrayDataset
    cache: Path

    def program(self) -> Program:
        run = RunSpec(precision=self.trial.train.precision)
        backend = backends.load(self.trial.backend)
        return backend.open(self.trial.model, self.trial.optimizer, self.dataset, run)

    def run(
        self,
        store: Store,
        should_stop: Callable[[], bool] = lambda: False,
        tell: Tell = lambda event: None,
    ) -> tuple[TrialRun, State]:
        """One session, from what the store holds; the claim is let go as a process's end would."""
        claim = Claim(store.folder(self.trial.id))
        program = self.program()
        run = TrialRun(self.trial, store, claim, self.splits, tell)
        try:
            for _, error in Loop([run], [run.restore()], program, self.splits).run(should_stop):
                if error is not None:
                    raise error
        finally:
            claim.release()
        return run, program.states()[0]

    def checkpoint(self, store: Store) -> Path:
        return store.folder(self.trial.id) / "checkpoint.safetensors"

    def work(self, store: Store, stop_after: int | None = None) -> tuple[list[Event], dict[str, Any] | None]:
        """The same through a worker.  Args: stop_after: chunks.  Returns: its events, and the record."""
        stop, events = threading.Event(), list[Event]()

        def send(event: Event) -> None:
            events.append(event)
            if stop_after and sum(isinstance(one, Stepped) for one in events) >= stop_after:
                stop.set()

        Worker(
            WorkerSpec(self.trial.backend, (0,), store.root, self.cache, {}, ROOT, time.monotonic()), stop, send
        ).run(self.trial)
        path = store.folder(self.trial.id) / "record.json"
        return events, json.loads(path.read_text()) if path.exists() else None


def make_bench(backend: str, cache: Path, **changes: Any) -> Bench:
    """Args: changes: of the training, or of the model where it has such a field."""
    model = {name: value for name, value in changes.items() if name in ModelConfig.__dataclass_fields__}
    train = {name: value for name, value in changes.items() if name not in model}
    source = DataConfig(
        source="synthetic", num_examples=100, image_size=12, num_classes=3, augment=AugmentConfig(**AUGMENT)
    )
    config = TrialConfig(
        ModelConfig(**MODEL | model),
        source,
        TrainConfig(**TRAIN | train),
        backend=backend,
        run=RunConfig(device="cpu", threads=1, checkpoint_every_s=1e9),
    )
    trial = resolve(config, data.describe(source, cache, "test"), "test")
    splits = data.load(trial.data, trial.info, cache)
    return Bench(trial, splits, ArrayDataset(np.asarray(splits.images), np.asarray(splits.labels)), cache)


@pytest.fixture(autouse=True)
def chunks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Chunks are cut by number, not by the clock; a test may set the number."""
    monkeypatch.setattr(loop, "CHUNK_S", 1e9)

    def set_longest(num_steps: int) -> None:
        monkeypatch.setattr(loop, "MAX_CHUNK_STEPS", num_steps)

    set_longest(MAX_CHUNK)
    return set_longest


@dataclass(frozen=True)
class Whole:
    """A bench, and what its trial comes to when nothing happens to it."""

    bench: Bench
    curve: list[dict[str, Any]]
    state: State
    result: dict[str, Any]


@pytest.fixture(scope="module", params=backends.names())
def whole(request: pytest.FixtureRequest, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    bench = make_bench(request.param, cache)
    run, state = bench.run(Store(tmp_path_factory.mktemp("whole")))
    yield Whole(bench, run.progress.curve, state, run.result(0))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def after(num_chunks: int) -> Callable[[], bool]:
    """A wish to stop that comes after a number of chunks; it is asked for once before the first."""
    asked = iter(range(10_000))
    return lambda: next(asked) >= num_chunks


def assert_same_bits(one: State, two: State) -> None:
    assert set(one) == set(two)
    for name in one:
        assert one[name].dtype == two[name].dtype, name
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def interrupted(bench: Bench, store: Store, generator: random.Random) -> tuple[TrialRun, State]:
    """Sessions of one to four chunks until the trial is done."""
    for _ in range(bench.trial.num_steps):
        try:
            return bench.run(store, should_stop=after(generator.randint(1, 4)))
        except Stopped:
            assert bench.checkpoint(store).exists()
    raise AssertionError("the sessions make no progress")


def pause(bench: Bench, store: Store, step: int) -> TrialRun:
    """Train a trial to a step, and let go of it."""
    claim = Claim(store.folder(bench.trial.id))
    run = TrialRun(bench.trial, store, claim, bench.splits)
    try:
        (left,) = Loop([run], [run.restore()], bench.program(), bench.splits, until=step).run(lambda: False)
    finally:
        claim.release()
    assert left[0] is run and isinstance(left[1], Paused)
    return run


def test_a_paused_trial_has_the_bits_of_one_that_is_trained_through_and_goes_on_to_its_end(
    whole: Whole, store: Store
) -> None:
    """Twice paused, on both frameworks; a pause that is behind it changes nothing."""
    bench = whole.bench
    for step in (8, 24):
        assert pause(bench, store, step).progress.step == step
        lines = (store.folder(bench.trial.id) / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [one for one in whole.curve if one["step"] <= step]
        before = bench.checkpoint(store).read_bytes()
        assert pause(bench, store, 8).progress.step == step
        assert bench.checkpoint(store).read_bytes() == before
    assert store.sound_record(bench.trial.id) is None
    run, state = bench.run(store)
    assert_same_bits(state, whole.state)
    assert run.progress.curve == whole.curve and [one["first_step"] for one in run.progress.sessions] == [0, 8, 24]


def test_whoever_sees_a_paused_trial_at_its_step_finds_its_checkpoint_there(
    whole: Whole, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the writes of a pause, a trial has its checkpoint, and its curve from it when it goes on."""
    own, bench = TrialRun.write_curve, whole.bench
    curve = store.folder(bench.trial.id) / "metrics.jsonl"

    def write_or_die(run: TrialRun) -> None:
        if run.progress.step == 8:
            raise KeyboardInterrupt
        own(run)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(TrialRun, "write_curve", write_or_die)
        pause(bench, store, 8)
    assert checkpoint.newest_step(bench.checkpoint(store)) == 8 and '"step": 8' not in curve.read_text()
    pause(bench, store, 8)
    assert '"step": 8' in curve.read_text()


@pytest.mark.parametrize("seed", range(4))
def test_resume_equals_uninterrupted(whole: Whole, store: Store, seed: int, chunks: Callable[[int], None]) -> None:
    generator = random.Random(seed)
    chunks(generator.randint(1, 8))
    run, state = interrupted(whole.bench, store, generator)
    assert len(run.progress.sessions) > 2
    assert run.progress.curve == whole.curve and run.notes == []
    assert_same_bits(state, whole.state)


@pytest.mark.parametrize("longest", [1, 3, 1024])
def test_length_of_chunks_does_not_matter(
    whole: Whole, store: Store, longest: int, chunks: Callable[[int], None]
) -> None:
    chunks(longest)
    run, state = whole.bench.run(store)
    assert run.progress.curve == whole.curve
    assert_same_bits(state, whole.state)


def test_curve_is_of_the_run_that_was_asked_for(whole: Whole) -> None:
    """Equal curves say something: they have all points, finite, no two alike, and the loss falls."""
    losses = [point["loss"] for point in whole.curve]
    assert [point["step"] for point in whole.curve] == [8, 16, 24, 32, 40]
    assert np.isfinite(losses).all() and len(set(losses)) == 5 and losses[-1] < losses[0]


def test_the_rate_of_a_point_is_that_of_the_step_before_it(whole: Whole) -> None:
    """A cosine over 40 steps, without a warm-up: the first step has the highest rate, and the last one not yet 0."""
    rates = [0.01 * (1 + math.cos(math.pi * (point["step"] - 1) / 40)) / 2 for point in whole.curve]
    assert [point["learning_rate"] for point in whole.curve] == pytest.approx(rates, rel=1e-12)


class Killed(BaseException):
    """The process is gone, between two chunks."""


def test_killed_after_a_checkpoint_equals_uninterrupted(whole: Whole, store: Store) -> None:
    """What was done since the checkpoint is done again; nothing of it stays."""
    trial = replace(whole.bench.trial, run=replace(whole.bench.trial.run, checkpoint_every_s=0.0))
    bench = replace(whole.bench, trial=trial)
    steps: list[int] = []

    def tell(event: Event) -> None:
        if not isinstance(event, Stepped):
            return
        steps.append(event.step)
        if len(steps) in (4, 9):
            raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            bench.run(store, tell=tell)
    run, state = bench.run(store, tell=tell)
    assert len(steps) > len(set(steps))  # the chunk whose end the checkpoint did not see
    assert run.progress.curve == whole.curve
    assert_same_bits(state, whole.state)


def test_a_save_forgets_nothing_of_the_state(whole: Whole, store: Store) -> None:
    with pytest.raises(Stopped):
        whole.bench.run(store, should_stop=after(3))
    trial = whole.bench.trial
    shapes = state_shapes(trial.model, trial.optimizer)
    state, progress = checkpoint.read(whole.bench.checkpoint(store), shapes)
    program = whole.bench.program()
    program.load([initial_state(trial)])
    steps = progress["step"]
    program.train([step_plan(trial, whole.bench.splits.train, 0, steps)])
    assert 0 < steps < trial.num_steps
    assert_same_bits(state, program.states()[0])


@pytest.mark.parametrize("backend", backends.names())
def test_checkpoint_goes_on_in_the_other_backend(backend: str, cache: Path, tmp_path: Path) -> None:
    """In float64, so that what is left is rounding."""
    first = make_bench(backend, cache, precision="float64")
    (expected, state), store = first.run(Store(tmp_path / "whole")), Store(tmp_path / "first")
    with pytest.raises(Stopped):
        first.run(store, should_stop=after(4))
    for other in [name for name in backends.names() if name != backend]:
        second = make_bench(other, cache, precision="float64")
        target = Store(tmp_path / other)
        shutil.copytree(store.folder(first.trial.id), target.folder(second.trial.id))
        run, other_state = second.run(target)
        assert len(run.progress.sessions) == 2 and run.notes == []
        for one, two in zip(run.progress.curve, expected.progress.curve, strict=True):
            assert one["test"]["accuracy"] == two["test"]["accuracy"]
            assert one["loss"] == pytest.approx(two["loss"], rel=OTHER_BACKEND_TOLERANCE)
        for name, array in state.items():
            largest = np.abs(array).max()
            np.testing.assert_allclose(
                other_state[name], array, rtol=0, atol=OTHER_BACKEND_TOLERANCE * largest, err_msg=name
            )


# Damage


def truncated(content: bytes, generator: random.Random) -> bytes:
    return content[: generator.randrange(len(content))]


def flipped(content: bytes, generator: random.Random) -> bytes:
    """One bit of the header, the metadata or the arrays is another."""
    place = generator.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << generator.randrange(8)]) + content[place + 1 :]


def small_checkpoint(path: Path) -> tuple[dict[str, Array], dict[str, tuple[int, ...]]]:
    state = {"params/head/kernel": np.arange(6.0).reshape(2, 3), "params/head/bias": np.ones(3, np.float32)}
    checkpoint.write(path, state, {"step": 3, "curve": [{"loss": 0.1}]})
    return state, {name: array.shape for name, array in state.items()}


def test_checkpoint_reads_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    state, shapes = small_checkpoint(path)
    read, progress = checkpoint.read(path, shapes)
    assert_same_bits(read, state)
    assert progress == {"step": 3, "curve": [{"loss": 0.1}]}


def test_a_checkpoint_with_the_former_checksum_is_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.safetensors"
    monkeypatch.setattr(checkpoint, "CHECKSUM", "sha256")
    state, shapes = small_checkpoint(path)
    assert b"sha256" in path.read_bytes()
    assert_same_bits(checkpoint.read(path, shapes)[0], state)
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(checkpoint.CorruptCheckpoint):
        checkpoint.read(path, shapes)


def test_every_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    _, shapes = small_checkpoint(path)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(checkpoint.CorruptCheckpoint):
            checkpoint.read(path, shapes)


def test_every_flipped_bit_is_refused_or_harmless(tmp_path: Path) -> None:
    """A bit of the padding of the header may change nothing; no bit changes what is read."""
    path = tmp_path / "checkpoint.safetensors"
    state, shapes = small_checkpoint(path)
    content, harmless = path.read_bytes(), 0
    for place in range(len(content)):
        for bit in range(8):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
            try:
                read, progress = checkpoint.read(path, shapes)
            except checkpoint.CorruptCheckpoint:
                continue
            harmless += 1
            assert_same_bits(read, state)
            assert progress == {"step": 3, "curve": [{"loss": 0.1}]}
    assert harmless < 0.02 * 8 * len(content)


@pytest.mark.parametrize("damage", [truncated, flipped, lambda content, _: content[:0]])
def test_damaged_checkpoint_is_set_aside_and_the_trial_run_again(
    whole: Whole, store: Store, damage: Callable[[bytes, random.Random], bytes]
) -> None:
    events, record = whole.bench.work(store, stop_after=4)
    assert events[-1] == Ended(whole.bench.trial.id, "stopped") and record is None
    path = whole.bench.checkpoint(store)
    damaged = damage(path.read_bytes(), random.Random(2))
    path.write_bytes(damaged)
    events, record = whole.bench.work(store)
    assert events[-1] == Ended(whole.bench.trial.id, "done") and record is not None and record["status"] == "done"
    aside = path.with_name("checkpoint.safetensors.corrupt-0")
    assert aside.read_bytes() == damaged
    assert len(record["notes"]) == 1 and str(path) in record["notes"][0] and aside.name in record["notes"][0]
    assert len(record["sessions"]) == 1
    assert {name: record[name] for name in SECTIONS} == {name: whole.result[name] for name in SECTIONS}


@pytest.mark.parametrize("damage", [truncated, flipped, None])
def test_the_checkpoint_before_serves_where_the_last_is_damaged_or_gone(
    whole: Whole, store: Store, damage: Callable[[bytes, random.Random], bytes] | None
) -> None:
    trial = replace(whole.bench.trial, run=replace(whole.bench.trial.run, checkpoint_every_s=0.0))
    bench = replace(whole.bench, trial=trial)
    with pytest.raises(Stopped):
        bench.run(store, should_stop=after(5))
    path = bench.checkpoint(store)
    last, previous = (checkpoint.read_progress(one)["step"] for one in (path, checkpoint.before(path)))
    assert 0 < previous < last
    if damage is None:  # killed between the two renames
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes(), random.Random(2)))
    run, state = bench.run(store)
    assert run.progress.sessions[-1]["first_step"] == previous
    assert [f"gone on from step {previous}" in note for note in run.notes] == ([] if damage is None else [True])
    assert run.progress.curve == whole.curve
    assert_same_bits(state, whole.state)


def test_both_checkpoints_are_gone_when_the_trial_is_done(whole: Whole, store: Store) -> None:
    trial = replace(whole.bench.trial, run=replace(whole.bench.trial.run, checkpoint_every_s=0.0))
    replace(whole.bench, trial=trial).work(store)
    assert not list(store.folder(trial.id).glob("*checkpoint*"))


def test_checkpoint_of_another_model_is_refused(cache: Path, store: Store) -> None:
    bench = make_bench(backends.names()[0], cache)
    for changes in ({"hidden_dim": 8}, {"num_blocks": 1}, {"optimizer": "sgd"}, {"ema_decay": 0.0}):
        other = make_bench(backends.names()[0], cache, **changes).trial
        checkpoint.write(bench.checkpoint(store), initial_state(other), {"step": 3})
        shapes = state_shapes(bench.trial.model, bench.trial.optimizer)
        with pytest.raises(checkpoint.CorruptCheckpoint, match="another model or optimizer"):
            checkpoint.read(bench.checkpoint(store), shapes)


def test_checkpoint_with_unknown_progress_is_set_aside(whole: Whole, store: Store) -> None:
    trial = whole.bench.trial
    checkpoint.write(whole.bench.checkpoint(store), initial_state(trial), {"step": 3, "phase": "moon"})
    run, state = whole.bench.run(store)
    assert len(run.notes) == 1 and "corrupt-0" in run.notes[0]
    assert run.progress.curve == whole.curve
    assert_same_bits(state, whole.state)


# Stopping before anything has begun


def test_a_stop_before_the_first_chunk_trains_nothing(whole: Whole, store: Store) -> None:
    """The first chunk compiles, which may take longer than the time that is left."""
    with pytest.raises(Stopped):
        whole.bench.run(store, should_stop=lambda: True)
    assert not whole.bench.checkpoint(store).exists()
    run, state = whole.bench.run(store)
    assert len(run.progress.sessions) == 1 and run.progress.curve == whole.curve
    assert_same_bits(state, whole.state)


# Divergence


@pytest.mark.parametrize("backend", backends.names())
def test_a_loss_that_is_not_finite_ends_as_diverged_with_its_step(backend: str, cache: Path, store: Store) -> None:
    bench = make_bench(
        backend, cache, optimizer="sgd", learning_rate=1e3, clip_norm=0.0, warmup_steps=0, pre_head_norm=False
    )
    program = bench.program()
    program.load([initial_state(bench.trial)])
    losses = program.train([step_plan(bench.trial, bench.splits.train, 0, bench.trial.num_steps)])[0].loss
    step = 1 + int(np.argmin(np.isfinite(losses)))
    assert 1 < step < bench.trial.num_steps
    with pytest.raises(Diverged) as caught:
        bench.run(store)
    assert caught.value.step == step
    events, record = bench.work(store)
    assert events[-1] == Ended(bench.trial.id, "failed", Failure("diverged", f"diverged at step {step}"))
    assert record is not None and record["status"] == "failed" and record["reason"] == f"diverged at step {step}"
    assert record["steps"] == step and "traceback" not in record
