"""Where pixels come from changes no bit of a trial, and a disk that stalls or loses images costs no step."""

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import backends
from backends.arrays import Array
from backends.contract import ArrayDataset
from backends.specs import RunSpec
from experiments import data
from experiments.data.pixels import DataLost, Encoded, Framed, InMemory, Pixels
from experiments.machine.environment import ROOT
from experiments.results import checkpoint
from experiments.results.claims import Claim
from experiments.results.store import Store
from experiments.running import worker
from experiments.running.events import Ended, Event, Stepped
from experiments.running.opener import WorkerSpec
from experiments.running.worker import Worker
from experiments.spec.config import (
    AugmentConfig,
    DataConfig,
    ModelConfig,
    RandAugmentConfig,
    RunConfig,
    TrainConfig,
    TrialConfig,
)
from experiments.spec.resolve import resolve
from experiments.spec.trial import Trial
from experiments.training import loop
from experiments.training.loop import Loop, Stopped
from experiments.training.plan import step_examples
from experiments.training.trial_run import TrialRun
from tests import prepared_sets
from tests.conftest import TIMEOUT_S, start, write_yaml

LONG = os.environ.get("MIXLAB_STREAMS") == "long"
STEPS, EVERY, BATCH, SIDE, NUM = 12, 4, 8, 8, 60
DEVICE_AUGMENT: dict[str, Any] = {"flip": True, "crop": 2, "mixup": 0.4}
HOST_AUGMENT: dict[str, Any] = {
    "flip": True,
    "inception": "tf",
    "randaugment": RandAugmentConfig(num=2),
    "erasing": 0.3,
}
ALL_AUGMENT: dict[str, Any] = {
    "flip": True,
    "mixup": 0.4,
    "mixup_style": "authors",
    "cutmix": 1.0,
    "inception": "torchvision",
    "inception_area": 0.2,
    "randaugment": RandAugmentConfig(num=2, magnitude=9.0, style="torchvision"),
    "color_jitter": 0.3,
    "three_augment": True,
    "erasing": 0.5,
    "repeat": 2,
}
WHOLE_CHUNK = 3  # steps


@pytest.fixture(autouse=True)
def chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks are cut by number, not by the clock."""
    monkeypatch.setattr(loop, "CHUNK_S", 1e9)
    monkeypatch.setattr(loop, "MAX_CHUNK_STEPS", WHOLE_CHUNK)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same images as arrays and as PNG files."""
    folder, generator = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    images = list(generator.integers(0, 256, (NUM, SIDE, SIDE, 3), np.uint8))
    return {form: prepared_sets.write(folder / form, form, images, [i % 3 for i in range(NUM)], 12) for form in FORMS}


FORMS = ("array", "encoded")


def trial_of(source: Path, cache: Path, backend: str, storage: str, augment: dict[str, Any], **framing: int) -> Trial:
    held = DataConfig(source=str(source), storage=storage, augment=AugmentConfig(**augment), **framing)  # type: ignore[arg-type]
    train = TrainConfig(batch_size=BATCH, steps=STEPS, evaluate_every=EVERY, learning_rate=0.01, precision="float64")
    run = RunConfig(device="cpu", threads=1, checkpoint_every_s=1e9)
    model = ModelConfig(patch_size=4, hidden_dim=8, num_blocks=1)
    config = TrialConfig(model, held, train, backend=backend, run=run)
    return resolve(config, data.describe(held, cache, "test"), "test")


def worked(trial: Trial, store: Store, cache: Path, stop_after: int | None = None) -> tuple[list[Event], Any]:
    """What a worker tells of a trial, and its record.  Args: stop_after: chunks."""
    stop, events = threading.Event(), list[Event]()

    def send(event: Event) -> None:
        events.append(event)
        if stop_after and sum(isinstance(one, Stepped) for one in events) >= stop_after:
            stop.set()

    Worker(WorkerSpec(trial.backend, (0,), store.root, cache, {}, ROOT, 0.0), stop, send).run(trial)
    path = store.folder(trial.id) / "record.json"
    return events, json.loads(path.read_text()) if path.exists() else None


# (form of the set, storage, threads, stopped on the way)
WAYS = [
    ("array", "memory", 1, False),
    ("array", "disk", 1, False),
    ("array", "disk", 4, True),
    ("encoded", "encoded", 2, True),
    ("encoded", "disk", 2, False),
    ("encoded", "memory", 4, False),
]


@pytest.mark.parametrize(
    "augment", [DEVICE_AUGMENT, HOST_AUGMENT, ALL_AUGMENT], ids=["on the device", "on the host", "all at once"]
)
@pytest.mark.parametrize("backend", backends.names())
def test_where_pixels_come_from_is_not_in_the_id_nor_in_any_bit(
    backend: str, augment: dict[str, Any], sets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of threads that read alone: those that compute take sums in another order, wherever pixels come from."""
    curves, ids, weights = [], set(), []
    for number, (form, storage, threads, stopped) in enumerate(WAYS):
        monkeypatch.setattr(worker, "Loop", lambda *arguments, n=threads: Loop(*arguments[:-1], n))
        trial, store = trial_of(sets[form], tmp_path, backend, storage, augment), Store(tmp_path / str(number))
        if stopped:
            events, _ = worked(trial, store, tmp_path, stop_after=2)
            assert isinstance(events[-1], Ended) and events[-1].how == "stopped"
        _, record = worked(trial, store, tmp_path)
        assert record["status"] == "done" and record["data"]["storage"] == storage, record["reason"]
        ids.add(trial.id)
        curves.append(record["curve"])
        weights.append(load_file(store.folder(trial.id) / "weights.safetensors"))
    assert len(ids) == 1 and len(curves[0]) == STEPS // EVERY
    assert all(curve == curves[0] for curve in curves)
    for one in weights[1:]:
        assert one.keys() == weights[0].keys() and all(np.array_equal(one[name], x) for name, x in weights[0].items())


@pytest.mark.parametrize("augment", [{}, {"color_jitter": 0.2}], ids=["on the device", "on the host"])
def test_images_are_framed_once_wherever_they_are_stored(
    augment: dict[str, Any], sets: dict[str, Path], tmp_path: Path
) -> None:
    """Those that lie framed in the cache have lost what data.shorter_side cuts off, and must not lose it again."""
    curves = []
    for number, storage in enumerate(("memory", "disk", "encoded")):
        trial = trial_of(sets["encoded"], tmp_path, "torch", storage, augment, image_size=4, shorter_side=6)
        _, record = worked(trial, Store(tmp_path / str(number)), tmp_path)
        assert record["status"] == "done" and record["data"]["storage"] == storage
        curves.append(record["curve"])
    assert curves[1] == curves[0] and curves[2] == curves[0]


@pytest.mark.parametrize("storage", ["encoded"])
def test_arrays_cannot_be_read_as_encoded(storage: str, sets: dict[str, Path], tmp_path: Path) -> None:
    trial = trial_of(sets["array"], tmp_path, "torch", "auto", {})
    trial = replace(trial, data=replace(trial.data, storage=storage))  # when it was planned, they were encoded
    events, record = worked(trial, Store(tmp_path / "runs"), tmp_path)
    assert record is None and isinstance(events[-1], Ended) and events[-1].failure
    assert "data.storage: encoded needs images that are encoded" in events[-1].failure.reason


def test_all_at_once_is_every_augmentation_that_there_is() -> None:
    """But for the crop with padding, in whose place stands that of inception."""
    assert ALL_AUGMENT.keys() == {one.name for one in fields(AugmentConfig)} - {"crop"}
    assert all(value != getattr(AugmentConfig(), name) for name, value in ALL_AUGMENT.items())


# Faults


@dataclass(frozen=True)
class Bench:
    """A trial whose pixels come from a source."""

    trial: Trial
    splits: data.Splits
    told: list[Any]

    def run(self, store: Store, source: Pixels, should_stop: Callable[[], bool] = lambda: False) -> TrialRun:
        """One session.  Raises: what ended the trial."""
        images = InMemory(np.asarray(self.splits.images)).images
        splits = replace(self.splits, images=Framed(source, SIDE, 3))
        few = ArrayDataset(np.asarray(images)[:0], np.asarray(splits.labels))
        spec = RunSpec(precision="float64")
        program = backends.load(self.trial.backend).open(self.trial.model, self.trial.optimizer, few, spec)
        claim = Claim(store.folder(self.trial.id))
        run = TrialRun(self.trial, store, claim, splits, self.told.append)
        try:
            for _, error in Loop([run], [run.restore()], program, splits, None, source, 2).run(should_stop):
                if error is not None:
                    raise error
        finally:
            claim.release()
        return run

    @property
    def images(self) -> Array:
        return np.asarray(self.splits.images)

    def saved_step(self, store: Store) -> int:
        step = checkpoint.newest_step(store.checkpoint(self.trial.id))
        assert step is not None
        return step


@pytest.fixture(scope="module")
def bench(sets: dict[str, Path], cache: Path) -> Bench:
    trial = trial_of(sets["array"], cache, "torch", "disk", DEVICE_AUGMENT)
    return Bench(trial, data.load(trial.data, trial.info, cache), [])


@pytest.fixture
def curve(bench: Bench, tmp_path: Path) -> Any:
    """What the trial comes to when nothing happens to it."""
    return bench.run(Store(tmp_path / "whole"), InMemory(bench.images)).progress.curve


class Failing(InMemory):
    """Its disk stalls, or loses images, from a number of reads on."""

    def __init__(self, images: Array, after: int, error: DataLost | None = None):
        super().__init__(images)
        self.after, self.error, self.num_read, self.lock = after, error, 0, threading.Lock()
        self.stalls, self.through = threading.Event(), threading.Event()

    def read(self, number: int) -> Array:
        with self.lock:
            self.num_read += 1
            fails = self.num_read > self.after
        if fails and self.error:
            raise self.error
        if fails:
            self.stalls.set()
            assert self.through.wait(TIMEOUT_S)
        return super().read(number)


FIRST_CHUNK = 1  # steps, as nothing is known yet of how long one takes; the next chunk is the one that fails


@pytest.mark.parametrize("in_evaluation", [False, True], ids=["in steps", "in an evaluation"])
def test_a_stalled_disk_shows_as_waiting_and_a_stop_saves_all_steps(
    bench: Bench, curve: Any, tmp_path: Path, in_evaluation: bool
) -> None:
    store, source = Store(tmp_path / "runs"), stalled(bench, in_evaluation)
    bench.told.clear()

    def waits() -> bool:
        return any(isinstance(one, Stepped) and one.waiting == 1.0 for one in bench.told)

    with pytest.raises(Stopped):
        bench.run(store, source, waits)
    assert source.stalls.is_set() and not source.through.is_set() and waits()
    assert bench.saved_step(store) == (EVERY if in_evaluation else FIRST_CHUNK)
    source.through.set()
    assert bench.run(store, InMemory(bench.images)).progress.curve == curve


@pytest.mark.parametrize("in_evaluation", [False, True], ids=["in steps", "in an evaluation"])
def test_a_trial_whose_images_are_lost_keeps_all_steps_and_goes_on_where_they_are_back(
    bench: Bench, curve: Any, tmp_path: Path, in_evaluation: bool
) -> None:
    store, source = Store(tmp_path / "runs"), stalled(bench, in_evaluation)
    source.error = DataLost("data: images.npy ends at byte 9; bring it back")
    with pytest.raises(DataLost, match="ends at byte 9"):
        bench.run(store, source)
    assert bench.saved_step(store) == (EVERY if in_evaluation else FIRST_CHUNK)
    assert bench.run(store, InMemory(bench.images)).progress.curve == curve


class InEvaluation(Failing):
    """Fails at test examples alone."""

    def read(self, number: int) -> Array:
        return super().read(number) if number >= NUM - 12 else InMemory.read(self, number)


class InStep(Failing):
    """Fails at one training example alone: at once, or in the step that has it."""

    number = -1

    def read(self, number: int) -> Array:
        return super().read(number) if number == self.number else InMemory.read(self, number)


def stalled(bench: Bench, in_evaluation: bool) -> Failing:
    if in_evaluation:
        return InEvaluation(bench.images, 0)
    source = InStep(bench.images, 0)
    steps = step_examples(bench.trial, bench.splits.train, 0, STEPS)
    source.number = int(steps[FIRST_CHUNK + 1][0])
    assert source.number not in steps[:FIRST_CHUNK]
    return source


@pytest.mark.parametrize(
    ("storage", "augment"),
    [("memory", DEVICE_AUGMENT), ("memory", HOST_AUGMENT), ("disk", DEVICE_AUGMENT)],
    ids=["into memory", "into memory as stored", "decoded to disk"],
)
def test_a_stop_ends_the_reading_of_all_images_before_the_first_step(
    storage: str, augment: dict[str, Any], sets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a disk that has stalled, for two trials of one program."""
    one = trial_of(sets["encoded"], tmp_path, "torch", storage, augment)
    one = replace(one, run=replace(one.run, replicas="2"))
    trials, store = (one, replace(one, seed=7)), Store(tmp_path / "runs")
    stop, through, events = threading.Event(), threading.Event(), list[Event]()

    def read(self: Any, number: int) -> Array:
        stop.set()
        assert through.wait(TIMEOUT_S)
        raise DataLost("not read")

    monkeypatch.setattr(Encoded, "read", read)
    Worker(WorkerSpec("torch", (0,), store.root, tmp_path, {}, ROOT, 0.0), stop, events.append).run(*trials)
    assert not through.is_set()
    through.set()
    ended = [(event.trial_id, event.how) for event in events if isinstance(event, Ended)]
    assert ended == [(trial.id, "stopped") for trial in trials]
    assert not any(store.record(trial.id) for trial in trials)


def test_images_that_are_lost_are_a_cause_of_their_own(sets: dict[str, Path], tmp_path: Path) -> None:
    """In a worker, whose trial goes on when the file is whole again."""
    import shutil

    own = tmp_path / "set"
    shutil.copytree(sets["array"], own)
    trial, store = trial_of(own, tmp_path, "torch", "disk", {}), Store(tmp_path / "runs")
    _, whole = worked(trial, Store(tmp_path / "whole"), tmp_path)
    content, stop, events = (own / "images.npy").read_bytes(), threading.Event(), list[Event]()

    def cut(event: Event) -> None:
        events.append(event)
        if isinstance(event, Stepped) and event.step == WHOLE_CHUNK + 1:
            os.truncate(own / "images.npy", 200)

    Worker(WorkerSpec("torch", (0,), store.root, tmp_path, {}, ROOT, 0.0), stop, cut).run(trial)
    ended = events[-1]
    assert isinstance(ended, Ended) and ended.failure and ended.failure.cause == "data_missing"
    assert "ends at byte 200" in ended.failure.reason and store.record(trial.id) is None
    saved = checkpoint.newest_step(store.checkpoint(trial.id)) or 0
    assert saved > 0 and ended.failure.reason.startswith(f"trial {trial.id}: data: ")
    told = f"it is saved at step {saved}, and goes on from there when it is run or submitted again"
    assert ended.failure.reason.endswith(told)
    (own / "images.npy").write_bytes(content)
    _, record = worked(trial, store, tmp_path)
    assert record is not None and record["curve"] == whole["curve"]


@pytest.mark.skipif(not LONG, reason="make test-streams")
@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("backend", backends.names())
def test_a_killed_process_goes_on_with_the_same_bits_from_every_storage(
    backend: str, threads: int, sets: dict[str, Path], tmp_path: Path
) -> None:
    curves = {}
    for form, storage in (("array", "memory"), ("array", "disk"), ("encoded", "encoded"), ("encoded", "disk")):
        augment = {"flip": True, "inception": "tf", "randaugment": {"num": 2}, "mixup": 0.2}
        base = {
            "model": {"hidden_dim": 8, "num_blocks": 1, "patch_size": 4},
            "data": {"source": str(sets[form]), "storage": storage, "augment": augment},
            "train": {"steps": 3000, "batch_size": BATCH, "evaluate_every": 500, "precision": "float64"},
            "backend": backend,
            "run": {"device": "cpu", "threads": threads, "checkpoint_every_s": 0.2},
        }
        path = write_yaml(tmp_path / f"{form}_{storage}.yaml", base=base, grid={"seed": [0]})
        store = Store(tmp_path / f"runs_{form}_{storage}")
        for _ in range(2):
            process = start(tmp_path, "run", str(path), "--store", str(store.root))
            wait_for(partial(has_checkpoint, store), process)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process = start(tmp_path, "run", str(path), "--store", str(store.root))
        out, err = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, out + err
        (record,) = (json.loads(one.read_text()) for one in store.root.glob("trials/*/record.json"))
        assert len(record["sessions"]) > 1
        curves[form, storage] = record["curve"]
    assert all(curve == curves["array", "memory"] for curve in curves.values())


def has_checkpoint(store: Store) -> bool:
    return any(store.root.glob("trials/*/checkpoint.safetensors"))


def wait_for(condition: Callable[[], bool], process: Any) -> None:
    import time

    end = time.monotonic() + TIMEOUT_S
    while not condition() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.02)
