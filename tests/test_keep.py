"""The weights of a done trial are those of its record's numbers, whatever has happened on the way."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
from backends.arrays import State
from experiments import files
from experiments.results import checkpoint, kept
from experiments.results.curves import best
from experiments.results.store import Store
from experiments.running.events import Ended, Event, Stepped
from experiments.spec.trial import Trial, as_tree, trial_from_json
from experiments.training import evaluate
from experiments.training.loop import Leaving, Loop, Stopped
from experiments.training.trial_run import TrialRun
from experiments.weights import weight_files
from tests.conftest import base, records, results, write_yaml
from tests.test_resume import Bench, Killed, after, assert_same_bits, chunks, make_bench  # noqa: F401 - a fixture

FILE = "weights.safetensors"


def asking(bench: Bench, keep: str, checkpoint_every_s: float = 1e9) -> Bench:
    run = replace(bench.trial.run, keep=keep, checkpoint_every_s=checkpoint_every_s)
    return replace(bench, trial=replace(bench.trial, run=run))


@pytest.fixture(scope="module", params=backends.names())
def bench(request: pytest.FixtureRequest, cache: Path) -> Bench:
    """Of a trial with an average, whose best point is neither its first nor its last."""
    return make_bench(request.param, cache, learning_rate=0.03, steps=64)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def weights(store: Store, bench: Bench) -> Path:
    return store.folder(bench.trial.id) / FILE


def content(path: Path) -> tuple[dict[str, Any], dict[str, tuple[str, bytes]]]:
    """What a file says, and its arrays' types and bits: safetensors writes its metadata in any order."""
    params = weight_files.read(path).params
    return checkpoint.read_progress(path), {name: (str(x.dtype), x.tobytes()) for name, x in params.items()}


def bests(store: Store, bench: Bench) -> list[int]:
    return sorted(int(path.stem[5:]) for path in store.folder(bench.trial.id).glob("best-*.safetensors"))


def evaluated_states(monkeypatch: pytest.MonkeyPatch) -> dict[int, State]:
    """The averages at each evaluation, by step, as they come."""
    seen: dict[int, State] = {}
    evaluate = Loop._evaluate

    def note(self: Loop, idle: Any) -> Leaving:
        yield from evaluate(self, idle)
        seen[self.step] = {
            name.removeprefix("average/"): x
            for name, x in self.program.states()[0].items()
            if name.startswith("average/")
        }

    monkeypatch.setattr(Loop, "_evaluate", note)
    return seen


@pytest.mark.parametrize("keep", ["last", "best"])
def test_what_is_kept_is_what_the_numbers_are_of(
    bench: Bench, store: Store, monkeypatch: pytest.MonkeyPatch, keep: str
) -> None:
    seen = evaluated_states(monkeypatch)
    run, _ = asking(bench, keep).run(store)
    point = run.result(0)["metrics"][keep]
    found = weight_files.read(weights(store, bench))
    assert (found.format, found.model) == ("mixlab", bench.trial.model)
    assert_same_bits(found.params, seen[point["step"]])
    about = checkpoint.read_progress(weights(store, bench))
    assert (about["kept"], about["step"], about["trial"]) == (keep, point["step"], bench.trial.id)
    accuracies = [one["validation"]["accuracy"] for one in run.progress.curve]
    rises = [one["step"] for i, one in enumerate(run.progress.curve) if accuracies[i] > max(accuracies[:i], default=-1)]
    assert bests(store, bench) == (rises if keep == "best" else []) and len(rises) < len(accuracies)
    if keep == "best":
        assert 8 < point["step"] < 64, "a best point at an end would prove little"
        program = bench.program()
        program.load([{f"{group}/{name}": x for group in GROUPS for name, x in found.params.items()}])
        again = evaluate.evaluate(program, bench.splits, bench.splits.validation, "softmax")
        assert again["accuracy"] == point["validation"]["accuracy"]


GROUPS = ("params", "average", "first_moment", "second_moment")


def test_without_an_average_the_parameters_are_kept(cache: Path, store: Store) -> None:
    bench = make_bench("torch", cache, ema_decay=0.0)
    _, state = bench.run(store)
    assert_same_bits(
        weight_files.read(weights(store, bench)).params,
        {name.removeprefix("params/"): x for name, x in state.items() if name.startswith("params/")},
    )


def test_none_keeps_none_and_takes_back_what_was_kept(bench: Bench, store: Store) -> None:
    bench.run(store)
    assert weights(store, bench).exists()
    asking(bench, "none").run(store)
    assert not weights(store, bench).exists() and bests(store, bench) == []


def test_without_validation_examples_the_best_are_the_last(cache: Path, store: Store) -> None:
    bench = asking(make_bench("torch", cache), "best")
    bench = replace(bench, splits=replace(bench.splits, validation=bench.splits.validation[:0]))
    run, _ = bench.run(store)
    about = checkpoint.read_progress(weights(store, bench))
    assert about["step"] == run.result(0)["metrics"]["best"]["step"] == bench.trial.num_steps and run.notes == []


# --- kills, stops and damage --------------------------------------------------------------------------------------


@pytest.fixture
def expected(bench: Bench, tmp_path: Path) -> Any:
    """What an undisturbed run keeps."""
    asking(bench, "best").run(Store(tmp_path / "whole"))
    return content(weights(Store(tmp_path / "whole"), bench))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("every_s", [0.0, 1e9])
def test_the_best_survive_kills_and_stops_bit_for_bit(
    bench: Bench, store: Store, expected: Any, seed: int, every_s: float
) -> None:
    """Stops save the state; a kill loses what came after the last save, its best points too."""
    dice, asked = random.Random(seed), asking(bench, "best", every_s)
    for _ in range(60):
        chunks_left = dice.randint(2, 6)

        def tell(event: Event) -> None:
            nonlocal chunks_left
            chunks_left -= isinstance(event, Stepped)
            if chunks_left == 0:
                raise Killed

        try:
            if dice.random() < 0.5:
                run, _ = asked.run(store, should_stop=after(dice.randint(1, 4)))
            else:
                run, _ = asked.run(store, tell=tell)
            break
        except (Stopped, Killed):
            continue
    else:
        raise AssertionError("the sessions make no progress")
    assert len(run.progress.sessions) > 2 and run.notes == []
    assert content(weights(store, bench)) == expected


def test_a_best_of_a_future_that_did_not_come_is_not_kept(bench: Bench, store: Store) -> None:
    """After the last save a better point was reached; what goes on from the save takes another way."""
    asked, folder = asking(bench, "best"), store.folder(bench.trial.id)
    with pytest.raises(Stopped):
        asked.run(store, should_stop=after(2))
    lost = [12, 16, 24, 63]
    for step in lost:
        (folder / f"best-{step:08d}.safetensors").write_bytes(b"of the future")
    with pytest.raises(Stopped):
        asked.run(store, should_stop=after(0))
    assert set(bests(store, bench)).isdisjoint(lost)
    run, _ = asked.run(store)
    about = checkpoint.read_progress(weights(store, bench))
    assert about["step"] == run.result(0)["metrics"]["best"]["step"] and run.notes == []


def test_the_best_of_the_checkpoint_before_are_there_when_the_last_one_is_damaged(
    bench: Bench, store: Store, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, save, changes = asking(bench, "best", 0.0), TrialRun.save, set[int]()

    def check(self: TrialRun, state: State, beside: bool) -> None:
        """Whichever checkpoint a run goes on from, in whichever framework, its best are there."""
        save(self, state, beside)
        path = bench.checkpoint(store)
        curves = [checkpoint.read_progress(one)["curve"] for one in (path, checkpoint.before(path)) if one.exists()]
        steps = [(best(curve) or {})["step"] for curve in curves if curve]
        assert set(steps) <= set(bests(store, bench))
        changes.update(steps if len(set(steps)) == 2 else ())

    monkeypatch.setattr(TrialRun, "save", check)
    for sessions in range(1, 11):
        with pytest.raises(Stopped):
            asked.run(store, should_stop=after(2))
        assert len(bests(store, bench)) <= 2, f"after {sessions} sessions"
        path = bench.checkpoint(store)
        if checkpoint.before(path).exists() and sessions % 5 == 0:
            path.write_bytes(path.read_bytes()[:-1])
    run, _ = asked.run(store)
    assert changes and len(run.progress.sessions) > 3
    assert not any("no weights are kept" in note for note in run.notes)
    assert content(weights(store, bench)) == expected


@pytest.mark.parametrize("damage", ["gone", "cut", "another model's"])
def test_best_weights_that_are_not_as_they_were_saved_are_not_kept_and_said(
    bench: Bench, store: Store, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_best = kept.keep_best

    def damaged(folder: Path, trial: Trial, step: int) -> str | None:
        path = kept._best(folder, step)
        if damage == "gone":
            path.unlink()
        elif damage == "cut":
            path.write_bytes(path.read_bytes()[:-1])
        else:
            checkpoint.write(path, {"a": np.ones(1)}, {})
        return keep_best(folder, trial, step)

    monkeypatch.setattr(kept, "keep_best", damaged)
    run, _ = asking(bench, "best").run(store)
    assert len(run.notes) == 1 and "no weights are kept of this trial" in run.notes[0]
    assert not weights(store, bench).exists()


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_kill_between_the_weights_and_the_record_loses_neither(
    bench: Bench, store: Store, keep: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = asking(bench, keep, 0.0)

    def killed(self: Store, *arguments: Any) -> bool:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Store, "finish", killed)
        with pytest.raises(Killed):
            asked.work(store)
    first = content(weights(store, bench))
    assert not records(store.root)
    (store.folder(bench.trial.id) / "heartbeat").unlink()
    _, record = asked.work(store)
    assert record and record["status"] == "done" and record["notes"] == []
    assert content(weights(store, bench)) == first
    assert not list(store.folder(bench.trial.id).glob("*best*")) and not bench.checkpoint(store).exists()


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_disk_that_is_full_for_the_weights_ends_the_run_and_the_next_one_goes_on(
    cache: Path, store: Store, keep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = asking(make_bench("torch", cache), keep, 0.0)
    write_new = files.write_new

    def full(path: Path, content: bytes, *rest: Any) -> None:
        write_new(path, content, *rest)
        if FILE in path.name:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_new", full)
        events, record = bench.work(store)
    ended = events[-1]
    assert isinstance(ended, Ended) and ended.how == "error" and ended.failure and record is None
    assert ended.failure.cause == "disk_full"
    assert FILE in ended.failure.reason and "no space is left" in ended.failure.reason
    assert not weights(store, bench).exists() and not list(store.root.rglob(".*.tmp"))
    _, record = bench.work(store)
    assert record and record["status"] == "done" and weights(store, bench).exists()


@pytest.mark.parametrize("keep", ["last", "best", "none"])
def test_what_a_done_record_has_kept_is_not_replaced_by_another_owner(bench: Bench, store: Store, keep: str) -> None:
    """Owner after owner may train to the end, on devices that round in other ways; the first record stays."""
    _, record = asking(bench, "last").work(store)
    assert record is not None and record["status"] == "done"
    files = dict.fromkeys((weights(store, bench), weights(store, bench).with_name(FILTERS)), b"of the first owner")
    for path, bits in files.items():
        assert path.exists()
        path.write_bytes(bits)
    asking(bench, keep).run(store)
    assert {path: path.read_bytes() for path in files} == files


FILTERS = "filters.safetensors"


@pytest.mark.parametrize("fault", ["diverges", "an error after the weights"])
def test_a_failed_trial_keeps_nothing(cache: Path, store: Store, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"learning_rate": 1e3, "clip_norm": 0.0, "optimizer": "sgd"} if fault == "diverges" else {}
    bench = asking(make_bench("torch", cache, **changes), "last")
    if fault != "diverges":

        def boom(self: TrialRun) -> dict[str, Any]:
            assert weights(store, bench).exists()
            raise RuntimeError("boom")

        monkeypatch.setattr(TrialRun, "keep", _then(TrialRun.keep, boom))
    events, record = bench.work(store)
    assert record and record["status"] == "failed", events
    assert not weights(store, bench).exists()


def _then(first: Any, second: Any) -> Any:
    def both(self: TrialRun, *arguments: Any) -> None:
        first(self, *arguments)
        second(self)

    return both


# --- what is not hashed, and the command line ---------------------------------------------------------------------


def test_what_is_kept_is_no_part_of_the_id_and_old_specs_are_read(cache: Path) -> None:
    trial = make_bench("torch", cache).trial
    ids = {replace(trial, run=replace(trial.run, keep=keep)).id for keep in ("best", "last", "none")}
    assert ids == {trial.id}
    old = json.loads(json.dumps(as_tree(trial)))
    del old["run"]["keep"]
    assert trial_from_json(old) == trial and trial.run.keep == "last"


def test_kept_weights_are_inspected_converted_evaluated_and_shown(run: Any, tmp_path: Path) -> None:
    data = {"source": "digits", "image_size": None, "image_channels": None}
    given = base(data=data, train={"steps": 20, "evaluate_every": 10, "ema_decay": 0.5})
    write_yaml(tmp_path / "a.yaml", base=given, grid={"seed": [0]})
    assert run("run", "a.yaml").code == 0
    (record,) = records(tmp_path / "runs").values()
    path = f"runs/trials/{record['id']}/{FILE}"
    shown = run("show", record["id"][:6])
    assert f"weights {path} (last, of step 20)" in shown.out.splitlines()
    inspected = run("weights", "inspect", path)
    assert inspected.code == 0 and f"parameters  {record['parameters']:,} (float32)" in inspected.out
    assert run("weights", "convert", path, "out.npz").code == 0
    found = run("evaluate", "--weights", path, "digits")
    assert found.code == 0, found.err
    point = record["metrics"]["last"]["test"]
    assert f"accuracy    {100 * point['accuracy']:.2f} %" in found.out and f"{point['loss']:.4f}" in found.out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("none", "weights none: run.keep was none"),
        ("removed", "weights none: they were removed, or could not be kept"),
        ("damaged", "damaged: it does not load"),
        ("old", "weights none: an earlier version of Mixlab kept none"),
    ],
)
def test_show_says_why_there_are_no_weights(run: Any, tmp_path: Path, quick: Path, change: str, words: str) -> None:
    keep = {"run": {"keep": "none"}} if change == "none" else {}
    write_yaml(tmp_path / "a.yaml", base=base(backend="quick", **keep), grid={"seed": [0]})
    assert run("run", "a.yaml").code == 0
    ((key, record),) = records(tmp_path / "runs").items()
    folder = tmp_path / "runs" / "trials" / key
    if change == "damaged":
        (folder / FILE).write_bytes(b"x")
    if change in ("removed", "old"):
        (folder / FILE).unlink()
    if change == "old":
        del record["spec"]["run"]["keep"]
        (folder / "record.json").write_text(json.dumps(record))
    assert any(words in line for line in run("show", key).out.splitlines() if line.startswith("weights "))


@pytest.mark.parametrize("keep", ["best", "none"])
def test_what_is_kept_changes_no_number(run: Any, tmp_path: Path, quick: Path, keep: str) -> None:
    for store, asked in (("one", "last"), ("two", keep)):
        write_yaml(tmp_path / "a.yaml", base=base(backend="quick", run={"keep": asked}))
        assert run("run", "a.yaml", "--store", store).code == 0
    one, two = ({key: record["curve"] for key, record in results(tmp_path / name).items()} for name in ("one", "two"))
    assert one == two and len(one) == 2
    bad: Ended = run("plan", "a.yaml", "run.keep=all")
    assert bad.code == 2 and "run.keep: expected one of best, last, none, got 'all'" in bad.err


def test_of_equal_validation_accuracies_the_first_point_is_the_best() -> None:
    curve = [{"step": step, "validation": {"accuracy": a}} for step, a in ((1, 0.5), (2, 0.75), (3, 0.75), (4, 0.5))]
    assert (best(curve) or {})["step"] == 2
