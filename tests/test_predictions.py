"""What a done trial keeps of each example is what its record's numbers count, whatever has happened on the way."""

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
from backends.arrays import Array, State
from experiments import data, files
from experiments.results import checkpoint, cleaning, kept, predictions
from experiments.results.claims import Claim
from experiments.results.predictions import FILE, Predicted
from experiments.results.store import Store
from experiments.running.events import Ended, Event, Stepped
from experiments.training.evaluate import predicted
from experiments.training.loop import Loop, Stopped
from experiments.training.trial_run import TrialRun
from experiments.weights import weight_files
from tests.conftest import records
from tests.test_resume import Bench, Killed, after, chunks, make_bench  # noqa: F401 - a fixture

NAMED = tuple(product(("last", "best"), ("validation", "test")))


def often(bench: Bench, checkpoint_every_s: float, **run: Any) -> Bench:
    asked = replace(bench.trial.run, checkpoint_every_s=checkpoint_every_s, **run)
    return replace(bench, trial=replace(bench.trial, run=asked))


@pytest.fixture(scope="module", params=backends.names())
def bench(request: pytest.FixtureRequest, cache: Path) -> Bench:
    """Of a trial whose best point is neither its first nor its last."""
    return make_bench(request.param, cache, learning_rate=0.03, steps=64)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture(scope="module")
def expected(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What an undisturbed run keeps."""
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    bench.run(store)
    return path_of(store, bench).read_bytes()


def path_of(store: Store, bench: Bench) -> Path:
    return store.folder(bench.trial.id) / FILE


def of(store: Store, bench: Bench, when: str, split: str) -> Predicted:
    found = predictions.read(store.folder(bench.trial.id), when, split)
    assert found is not None
    return found


def saved(store: Store, bench: Bench) -> list[int]:
    return sorted(int(path.name[12:20]) for path in store.folder(bench.trial.id).glob("predictions-*.safetensors.gz"))


# --- the numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("backend", backends.names())
def test_the_share_of_right_examples_is_the_accuracy_of_the_record(
    backend: str, loss: str, cache: Path, store: Store
) -> None:
    bench = make_bench(backend, cache, learning_rate=0.03, steps=64, loss=loss)
    run, _ = bench.run(store)
    points = run.result(0)["metrics"]
    assert points["last"]["step"] != points["best"]["step"]
    for when, split in NAMED:
        found, indices = of(store, bench, when, split), getattr(bench.splits, split)
        assert found.correct.sum() / len(indices) == points[when][split]["accuracy"]
        assert 0 < found.correct.sum() < len(indices), "all right or all wrong would prove little"
        labels = predictions.labels(store.folder(bench.trial.id), split)
        np.testing.assert_array_equal(labels, bench.splits.labels[indices])
        np.testing.assert_array_equal(found.classes == labels, found.correct)
    last, best = (of(store, bench, when, "validation").classes for when in ("last", "best"))
    assert (last != best).any()


@pytest.mark.parametrize("keep", ["last", "best"])
def test_what_is_kept_is_what_the_kept_weights_say(bench: Bench, store: Store, keep: str) -> None:
    """Example by example, in the order of the split."""
    often(bench, 1e9, keep=keep).run(store)
    program, params = bench.program(), weight_files.read(store.folder(bench.trial.id) / kept.FILE).params
    groups = ("params", "average", "first_moment", "second_moment")
    program.load([{f"{group}/{name}": x for group in groups for name, x in params.items()}])
    for split in ("validation", "test"):
        images = bench.splits.images[getattr(bench.splits, split)]
        found = of(store, bench, keep, split)
        np.testing.assert_array_equal(found.classes, program.predict(images)[0].logits.argmax(1))
        assert found.classes.dtype == np.uint16 and found.correct.dtype == bool


def test_a_class_takes_as_few_bytes_as_its_number_needs() -> None:
    for num_classes, kind in ((2, np.uint8), (256, np.uint8), (257, np.uint16), (65_537, np.uint32)):
        logits = np.zeros((1, num_classes))
        logits[0, -1] = 1
        assert predicted(logits).dtype == kind and predicted(logits)[0] == num_classes - 1


def test_a_split_without_examples_has_no_predictions(cache: Path, store: Store) -> None:
    bench = make_bench("torch", cache)
    bench = replace(bench, splits=replace(bench.splits, validation=bench.splits.validation[:0]))
    run, _ = bench.run(store)
    folder = store.folder(bench.trial.id)
    assert predictions.read(folder, "last", "validation") is predictions.labels(folder, "validation") is None
    last, best = (of(store, bench, when, "test").classes for when in ("last", "best"))
    assert run.notes == [] and (last == best).all()


def test_each_replica_keeps_its_own(bench: Bench, store: Store) -> None:
    many = [replace(bench, trial=replace(bench.trial, seed=seed)) for seed in (0, 1, 2)]
    claims = [Claim(store.folder(one.trial.id)) for one in many]
    runs = [TrialRun(one.trial, store, claim, bench.splits) for one, claim in zip(many, claims, strict=True)]
    states = [run.restore() for run in runs]
    assert [error for _, error in Loop(runs, states, bench.program(), bench.splits).run(lambda: False)] == [None] * 3
    for one, run in zip(many, runs, strict=True):
        for when, split in NAMED:
            point = run.result(0)["metrics"][when]
            assert of(store, one, when, split).correct.mean() == point[split]["accuracy"]
    assert len({of(store, one, "last", "test").classes.tobytes() for one in many}) == 3


# --- the same examples ----------------------------------------------------------------------------------------------


def keys(cache: Path, **changes: Any) -> dict[str, str]:
    """The key of each split, as a trial with these fields of the data would have it."""
    trial = make_bench("torch", cache).trial
    config = replace(trial.data, **changes)
    info = data.describe(config, cache, "test")
    splits = data.load(config, info, cache)
    return {name: predictions.examples_key(info.content, getattr(splits, name)) for name in ("validation", "test")}


def test_trials_share_a_key_exactly_if_their_examples_are_the_same(bench: Bench, cache: Path, store: Store) -> None:
    own = keys(cache)
    assert own["validation"] != own["test"]
    bench.run(store)
    assert {split: of(store, bench, "last", split).examples for split in own} == own
    other = make_bench("jax", cache, steps=8, loss="sigmoid", hidden_dim=8)
    other = replace(other, trial=replace(other.trial, seed=5))
    other.run(store)
    assert {split: of(store, other, "best", split).examples for split in own} == own
    same = {"fraction": 0.5, "permutation": "pixels", "augment": replace(bench.trial.data.augment, crop=0)}
    for name, value in same.items():
        assert keys(cache, **{name: value}) == own, f"{name} changes neither split"
    for name, value in {"split_seed": 1, "test_fraction": 0.3, "num_examples": 101, "interpolation": "nearest"}.items():
        found = keys(cache, **{name: value})
        assert (found["test"] != own["test"]) == (name != "interpolation"), name  # nothing is resized here
    found = keys(cache, validation_fraction=0.2)
    assert found["test"] == own["test"] and found["validation"] != own["validation"]


def test_the_order_of_examples_is_in_the_key() -> None:
    indices = np.array([3, 1, 2], np.int32)
    found = {
        predictions.examples_key(*one)
        for one in (("a", indices), ("a", indices[::-1]), ("a", indices[:2]), ("b", indices))
    }
    assert len(found) == 4
    assert predictions.examples_key("a", indices) == predictions.examples_key("a", indices.astype(np.int64))


# --- kills, stops and damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("every_s", [0.0, 1e9])
def test_predictions_survive_kills_and_stops_bit_for_bit(
    bench: Bench, store: Store, expected: bytes, seed: int, every_s: float
) -> None:
    dice, asked = random.Random(seed), often(bench, every_s)
    for _ in range(60):
        chunks_left = dice.randint(2, 6)

        def tell(event: Event) -> None:
            nonlocal chunks_left
            chunks_left -= isinstance(event, Stepped)
            if chunks_left == 0:
                raise Killed

        try:
            stops = dice.random() < 0.5
            run, _ = asked.run(store, should_stop=after(dice.randint(1, 4))) if stops else asked.run(store, tell=tell)
            break
        except (Stopped, Killed):
            assert not path_of(store, bench).exists()
    else:
        raise AssertionError("the sessions make no progress")
    assert len(run.progress.sessions) > 2 and run.notes == []
    assert path_of(store, bench).read_bytes() == expected


def test_those_of_the_checkpoint_before_are_there_when_the_last_one_is_damaged(
    bench: Bench, store: Store, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, save, most = often(bench, 0.0), TrialRun.save, 0

    def check(self: TrialRun, state: State, beside: bool) -> None:
        """Whichever checkpoint a run goes on from, what its curve names is there, and nothing that none names."""
        nonlocal most
        save(self, state, beside)
        path = bench.checkpoint(store)
        curves = [checkpoint.read_progress(one)["curve"] for one in (path, checkpoint.before(path)) if one.exists()]
        named = {point["step"] for curve in curves if curve for point in (curve[-1], best_of(curve))}
        assert set(saved(store, bench)) == named
        most = max(most, len(named))

    monkeypatch.setattr(TrialRun, "save", check)
    for sessions in range(1, 11):
        with pytest.raises(Stopped):
            asked.run(store, should_stop=after(2))
        path = bench.checkpoint(store)
        if checkpoint.before(path).exists() and sessions % 5 == 0:
            path.write_bytes(path.read_bytes()[:-1])
    run, _ = asked.run(store)
    assert most > 1 and len(run.progress.sessions) > 3
    assert not any("no predictions" in note for note in run.notes)
    assert path_of(store, bench).read_bytes() == expected


def best_of(curve: list[dict[str, Any]]) -> dict[str, Any]:
    return max(curve, key=lambda point: point["validation"]["accuracy"])


def test_those_of_a_future_that_did_not_come_go(bench: Bench, store: Store, expected: bytes) -> None:
    with pytest.raises(Stopped):
        bench.run(store, should_stop=after(2))
    lost = [16, 24, 64]
    for step in lost:
        predictions.saved_path(store.folder(bench.trial.id), step).write_bytes(b"of the future")
    with pytest.raises(Stopped):
        bench.run(store, should_stop=after(0))
    assert set(saved(store, bench)).isdisjoint(lost)
    bench.run(store)
    assert path_of(store, bench).read_bytes() == expected


@pytest.mark.parametrize("backend", backends.names())
def test_the_best_of_one_framework_is_kept_by_the_other(backend: str, cache: Path, tmp_path: Path) -> None:
    """In float64, where both say the same of each example."""
    first = make_bench(backend, cache, learning_rate=0.03, steps=64, precision="float64")
    first.run(Store(tmp_path / "whole"))
    (other,) = [name for name in backends.names() if name != backend]
    store, second = Store(tmp_path / "runs"), replace(first, trial=replace(first.trial, backend=other))
    with pytest.raises(Stopped):
        first.run(store, should_stop=after(12))
    curve = checkpoint.read_progress(first.checkpoint(store))["curve"]
    shutil.copytree(store.folder(first.trial.id), store.folder(second.trial.id))
    run, _ = second.run(store)
    assert run.result(0)["metrics"]["best"] == best_of(curve), "the best point lies before the checkpoint"
    assert run.notes == []
    assert path_of(store, second).read_bytes() == path_of(Store(tmp_path / "whole"), first).read_bytes()


@pytest.mark.parametrize("damage", ["never saved, by an earlier version", "cut"])
def test_a_checkpoint_without_its_predictions_goes_on_and_says_what_is_not_kept(
    bench: Bench, store: Store, expected: bytes, damage: str
) -> None:
    with pytest.raises(Stopped):
        bench.run(store, should_stop=after(12))
    folder = store.folder(bench.trial.id)
    for path in folder.glob("predictions-*"):
        path.write_bytes(path.read_bytes()[:-9])
        if damage != "cut":
            path.unlink()
    run, _ = bench.run(store)
    (note,) = run.notes
    assert "gone or damaged; no predictions are kept of the best evaluation" in note
    assert predictions.read(folder, "best", "test") is None
    assert of(store, bench, "last", "test").correct.mean() == run.progress.curve[-1]["test"]["accuracy"]


def test_a_kill_after_the_last_evaluation_loses_no_predictions(
    bench: Bench, store: Store, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next process has no step to train, and evaluates nothing."""

    def killed(self: TrialRun, state: State) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(TrialRun, "keep", killed)
        with pytest.raises(Killed):
            often(bench, 0.0).run(store)
    assert checkpoint.read_progress(bench.checkpoint(store))["step"] == bench.trial.num_steps
    assert not path_of(store, bench).exists()
    run, _ = bench.run(store)
    assert path_of(store, bench).read_bytes() == expected and run.notes == []


# --- the record -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["last", "best", "none"])
def test_predictions_are_whole_before_the_record_and_the_saved_ones_go_with_it(
    cache: Path, store: Store, keep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, finish, seen = often(make_bench("torch", cache), 0.0, keep=keep), Store.finish, list[bytes]()

    def note(self: Store, *arguments: Any) -> bool:
        assert not records(store.root) and saved(store, bench)
        seen.append(path_of(store, bench).read_bytes())
        return finish(self, *arguments)

    monkeypatch.setattr(Store, "finish", note)
    _, record = bench.work(store)
    assert record and record["status"] == "done" and record["notes"] == []
    assert seen == [path_of(store, bench).read_bytes()] and saved(store, bench) == []
    for when, split in NAMED:
        assert of(store, bench, when, split).correct.mean() == record["metrics"][when][split]["accuracy"]


@pytest.mark.parametrize("file", [FILE, "predictions-"])
def test_a_disk_that_is_full_for_predictions_leaves_no_record_and_the_next_run_goes_on(
    cache: Path, store: Store, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    bench, write_new = often(make_bench("torch", cache), 0.0), files.write_new

    def full(path: Path, content: bytes, *rest: Any) -> None:
        write_new(path, content, *rest)
        if file in path.name:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_new", full)
        events, record = bench.work(store)
    ended = events[-1]
    assert isinstance(ended, Ended) and ended.how == "error" and ended.failure and record is None
    assert ended.failure.cause == "disk_full" and file in ended.failure.reason
    assert not path_of(store, bench).exists() and not list(store.root.rglob(".*.tmp"))
    _, record = bench.work(store)
    assert record and record["status"] == "done" and path_of(store, bench).exists() and record["notes"] == []


def test_what_a_done_record_has_kept_is_not_replaced_by_another_owner(bench: Bench, store: Store) -> None:
    _, record = bench.work(store)
    assert record and record["status"] == "done"
    path_of(store, bench).write_bytes(b"of the first owner")
    bench.run(store)
    assert path_of(store, bench).read_bytes() == b"of the first owner"


def test_a_failed_trial_keeps_no_predictions(cache: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, keep = make_bench("torch", cache), TrialRun.keep

    def boom(self: TrialRun, state: State) -> None:
        keep(self, state)
        assert path_of(store, bench).exists()
        raise RuntimeError("boom")

    monkeypatch.setattr(TrialRun, "keep", boom)
    _, record = bench.work(store)
    assert record and record["status"] == "failed" and not path_of(store, bench).exists()


# --- reading --------------------------------------------------------------------------------------------------------


def damages(content: bytes) -> Iterator[bytes]:
    """The file cut off, and with one byte changed, here and there."""
    for place in range(0, len(content), 7):
        yield content[:place]
        yield content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


def test_a_damaged_file_gives_what_was_written_or_nothing(cache: Path, store: Store) -> None:
    bench = make_bench("torch", cache)
    bench.run(store)
    path = path_of(store, bench)
    right, content, refused = of(store, bench, "best", "test"), path.read_bytes(), 0
    for damaged in damages(content):
        path.write_bytes(damaged)
        found = predictions.read(path.parent, "best", "test")
        refused += found is None
        assert found is None or same(found, right)
    assert refused > len(content) / 14


def same(one: Predicted, other: Predicted) -> bool:
    arrays: tuple[tuple[Array, Array], ...] = ((one.classes, other.classes), (one.correct, other.correct))
    return one.examples == other.examples and all(np.array_equal(*pair) for pair in arrays)


def test_a_trial_of_before_has_none(store: Store) -> None:
    assert predictions.read(store.folder("0123456789ab"), "last", "test") is None
    assert predictions.labels(store.folder("0123456789ab"), "test") is None


def test_predictions_stay_when_states_are_cleaned_away(bench: Bench, store: Store) -> None:
    """Those of the done trial are a result; those of the stopped one belong to its checkpoint."""
    bench.work(store)
    other = replace(bench, trial=replace(bench.trial, seed=1))
    with pytest.raises(Stopped):
        other.run(store, should_stop=after(6))
    assert saved(store, other)
    items = list(cleaning.items(store, cleaning.Held(), [bench.trial.id, other.trial.id], {}))
    (own,) = [item.kind for item in items if item.path == path_of(store, bench)]
    for item in items:
        if item.kind in ("checkpoints", "weights"):
            assert cleaning.remove(store, item) == ""
    left = {path.name for path in store.folder(other.trial.id).iterdir()}
    assert own == "results" and path_of(store, bench).exists()
    assert left == {"metrics.jsonl"}
