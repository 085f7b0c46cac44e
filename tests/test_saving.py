"""A checkpoint that is written beside the training: steps go on meanwhile, and what becomes of it is not lost."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.contract import StepMetrics
from backends.microbatches import Group
from backends.plan import StepPlan
from experiments import data
from experiments.data import Splits
from experiments.files import StoreError
from experiments.results import checkpoint, curves, kept
from experiments.results.claims import Claim
from experiments.results.store import CHECKPOINT, Store
from experiments.training.loop import Loop, Stopped
from experiments.training.trial_run import TrialRun
from tests.conftest import base, planned, wait_until, write_yaml
from tests.test_curve import LOGITS, Known

STEPS = 12


@pytest.fixture
def opened(tmp_path: Path) -> tuple[TrialRun, Splits]:
    """A trial that saves after each chunk of steps, with its best weights."""
    train = {"steps": STEPS, "evaluate_every": 3, "warmup_steps": 0}
    tree = base(train=train, run={"checkpoint_every_s": 0.0, "keep": "best"})
    trial, store = (
        planned(write_yaml(tmp_path / "a.yaml", base=tree), tmp_path / "data")[0].trial,
        Store(tmp_path / "runs"),
    )
    splits = data.load(trial.data, trial.info, tmp_path / "data")
    return TrialRun(trial, store, Claim(store.folder(trial.id)), splits), splits


class Slow:
    """Writes of checkpoints that wait until they may go on; the first one is held up."""

    def __init__(self, patch: pytest.MonkeyPatch, fails: Callable[[], bool] = lambda: False):
        self.steps, self.goes_on, write = list[int](), threading.Event(), checkpoint.write

        def slowly(path: Path, state: Any, progress: Any) -> None:
            self.steps.append(progress["step"])
            assert self.goes_on.wait(20)
            if fails():
                raise StoreError("no space left")
            write(path, state, progress)

        patch.setattr(checkpoint, "write", slowly)


class Trains(Known):
    """It does something at each call of steps; its arrays are full of the number of the step."""

    exchange_s = 0.0

    def __init__(self, do: Callable[[], None]):
        super().__init__(LOGITS)
        self.do = do

    def train(self, plans: list[StepPlan]) -> list[StepMetrics]:
        self.do()
        (state,) = self.held
        last = plans[0].first_step + plans[0].num_steps
        self.held = [{name: np.full_like(array, last) for name, array in state.items()}]
        return super().train(plans)


def looped(
    opened: tuple[TrialRun, Splits],
    group: Group,
    should_stop: Callable[[], bool] = lambda: False,
    do: Callable[[], None] = lambda: None,
) -> Any:
    run, splits = opened
    loop = Loop([run], [run.restore()], Trains(do), splits, group=group)  # type: ignore[arg-type]
    return [error for _, error in loop.run(should_stop)]


def test_a_group_trains_on_while_its_first_process_writes(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step of a checkpoint that is under way is the one at which it was begun."""
    slow, (run, _), meanwhile = Slow(monkeypatch), opened, list[int]()

    def steps_on() -> None:
        if run.progress.step:
            wait_until(lambda: slow.steps, "the first one is under way")
            if not slow.goes_on.is_set():
                meanwhile.append(run.progress.step)
            slow.goes_on.set()

    assert looped(opened, Group(0, 2), do=steps_on) == [None]
    assert meanwhile == [1] and slow.steps[0] == 1 and run.saving is None


def test_a_trial_on_one_device_waits_for_its_checkpoint(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, saved = Slow(monkeypatch), list[bool]()
    monkeypatch.setattr(TrialRun, "finish_saving", lambda self: saved.append(self.saving is not None))
    slow.goes_on.set()
    assert looped(opened, Group()) == [None] and saved and not any(saved)


def test_a_stop_waits_for_what_is_written_and_saves_its_own_step(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, (run, _) = Slow(monkeypatch), opened

    stop = threading.Event()

    def ask() -> None:
        if run.progress.step:
            wait_until(lambda: slow.steps, "the first one is under way")
            stop.set()
            threading.Timer(0.2, slow.goes_on.set).start()

    (error,) = looped(opened, Group(0, 2), stop.is_set, ask)
    assert isinstance(error, Stopped)
    last = checkpoint.newest_step(run.folder / CHECKPOINT)
    assert last == run.progress.step == slow.steps[-1] and slow.steps[0] < last


def test_a_checkpoint_that_could_not_be_written_ends_the_trial_with_its_reason(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, (run, _) = Slow(monkeypatch, fails=lambda: len(slow.steps) > 1), opened
    slow.goes_on.set()
    (error,) = looped(opened, Group(0, 2))
    assert isinstance(error, StoreError) and str(error) == "no space left"
    assert checkpoint.newest_step(run.folder / CHECKPOINT) == 1 and run.saving is None


def test_what_is_written_has_the_state_and_the_best_weights_of_its_step(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill at any instant leaves a whole checkpoint, and the weights that it names."""
    slow, (run, _), found = Slow(monkeypatch), opened, list[tuple[int, int | None]]()
    slow.goes_on.set()
    shapes = {name: array.shape for name, array in run.restore().items()}
    drop = kept.drop_saved

    def look(folder: Path, **how: Any) -> None:
        """After the write, in its thread, while the training goes on."""
        drop(folder, **how)
        if how.get("after", -1) >= 0:
            return
        state, progress = checkpoint.read(folder / CHECKPOINT, shapes)
        assert all((array == progress["step"]).all() for array in state.values())
        best = point["step"] if (point := curves.best(progress["curve"])) else None
        assert best is None or (folder / f"best-{best:08d}.safetensors").exists()
        found.append((progress["step"], best))

    monkeypatch.setattr(kept, "drop_saved", look)
    assert looped(opened, Group(0, 2)) == [None]
    steps = [step for step, _ in found]
    assert steps == sorted(steps) == slow.steps and found[-1][1]


def test_the_next_checkpoint_waits_for_the_one_before(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, (run, _) = Slow(monkeypatch), opened
    state = run.restore()
    run.save(state, beside=True)
    wait_until(lambda: slow.steps, "the first one is under way")
    run.progress.step = 5
    other = threading.Thread(target=run.save, args=(state,))
    other.start()
    other.join(0.3)
    assert other.is_alive() and slow.steps == [0]
    slow.goes_on.set()
    other.join(20)
    assert slow.steps == [0, 5] and checkpoint.newest_step(run.folder / CHECKPOINT) == 5
