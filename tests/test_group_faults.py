"""Faults of a trial on several devices: each is found where it happens and named, and none changes a result.

Faults of the arithmetic are in test_parity_groups.py, those of an evaluation in test_shares.py, processes that die in
test_group.py. Here the first process is this one, and a fault is planted in the process that follows it.
"""

import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.contract import PREDICT_BATCH
from experiments.running import group, meeting, messages, watch
from experiments.running.events import Ended, Event, Stepped, Told
from experiments.running.worker import Worker
from tests.conftest import is_alive, records, wait_until
from tests.faulty_group import (
    AT,
    LASTING,
    SILENT_S,
    WHO,
    bits_of,
    goes_on_as,
    make_alone,  # noqa: F401 - a fixture
    newest,
    pids_of,
    trained,
    trial_of,
    undisturbed,
)

pytestmark = pytest.mark.usefixtures("quick")  # the backend of the trials

STEP_FAULTS = [
    ("it stops early", "expected a state of step "),
    ("it misses steps", "expected a state of step "),
    ("it is a step behind", "expected a state of step 0, as the others', got one of step -1"),
    ("a batch counts twice", f"expected the predictions of examples {PREDICT_BATCH} to "),
]


@pytest.mark.parametrize(("plant", "sentence"), STEP_FAULTS)
def test_a_process_that_does_other_work_than_its_leader_ends_the_group(
    plant: str, sentence: str, tmp_path: Path
) -> None:
    start = time.monotonic()
    trial = trial_of(tmp_path)
    ended = trained(trial, tmp_path, plant)
    assert ended.how == "crashed" and ended.failure is not None
    assert ended.failure.reason.startswith(WHO + sentence), ended
    assert time.monotonic() - start < 30 and newest(trial, tmp_path) < AT + 3  # where the next evaluation is


def test_a_leader_that_stops_early_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It takes a step less than it has told the others, who would wait for it."""

    def short(self: Any, plans: Any) -> Any:
        more = plans[0].first_step >= AT
        steps = messages.Steps(plans[0].first_step, plans[0].num_steps + more)
        return self.leader.train(steps, lambda: self.program.train(plans))

    monkeypatch.setattr(group.LedProgram, "train", short)
    ended = trained(trial := trial_of(tmp_path), tmp_path, "none")
    assert ended.failure is not None and newest(trial, tmp_path) == AT
    assert ended.failure.reason.startswith(f"rank 0 on {os.uname().nodename}: expected a state of step "), ended


def test_a_signal_to_one_that_follows_stops_nothing(alone: Path, tmp_path: Path) -> None:
    """The leader alone decides when all stop."""

    def hear(one: Worker, event: Event) -> None:
        if isinstance(event, Stepped) and one.leader:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
                os.kill(one.leader.members[0].process.pid, number)

    trial = trial_of(tmp_path)
    assert trained(trial, tmp_path, "none", hear) == Ended(trial.id, "done")
    assert bits_of(trial, tmp_path) == undisturbed(alone)


def raises(patch: pytest.MonkeyPatch, at: int) -> None:
    """The leader's program fails in the midst of the training."""
    train = group.LedProgram.train

    def changed(self: Any, plans: Any) -> Any:
        if plans[0].first_step < at:
            return train(self, plans)
        raise RuntimeError("boom")

    patch.setattr(group.LedProgram, "train", changed)


MOMENTS = random.Random(0).sample(range(4, 201), 10) if os.environ.get("MIXLAB_GROUPS") == "long" else [AT]
MANY = {"steps": 300, "evaluate_every": 100}


@pytest.mark.parametrize("at", MOMENTS)
@pytest.mark.parametrize("rank", [0, 1])
def test_an_exception_of_a_process_ends_the_group_and_nothing_is_lost(
    rank: int, at: int, monkeypatch: pytest.MonkeyPatch, alone: Path, tmp_path: Path
) -> None:
    expected, trial, pids = undisturbed(alone, **MANY), trial_of(tmp_path, **MANY), set[int]()
    if not rank:
        monkeypatch.setattr(watch, "FOUND_S", 0.5)  # none is lost where the leader fails
    with pytest.MonkeyPatch.context() as patch:
        if rank:
            patch.setenv("QUICK_FOLLOWER_FAILS_AT", str(at))
        else:
            raises(patch, at)
        ended = trained(trial, tmp_path, "none", lambda one, _: pids.update(pids_of(one)))
    assert ended.how == "crashed" and ended.failure is not None
    assert ended.failure.reason == (f"{WHO}RuntimeError: out of memory" if rank else "RuntimeError: boom")
    assert pids and not any(map(is_alive, pids))
    goes_on_as(expected, trial, tmp_path)


def test_a_process_that_hangs_ends_its_group_and_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch, alone: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(meeting, "SILENT_S", SILENT_S)
    trial, stopped = trial_of(tmp_path, **LASTING), list[float]()

    def hear(one: Worker, event: Event) -> None:
        if isinstance(event, Stepped) and event.step > AT and not stopped:
            os.kill(*pids_of(one), signal.SIGSTOP)
            stopped.append(time.monotonic())

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUICK_STEP_S", "0.01")
        ended = trained(trial, tmp_path, "none", hear)
    assert ended.failure is not None and ended.failure.cause == "killed"
    assert ended.failure.reason == f"{WHO}it has given no sign of life for {SILENT_S:.0f} s"
    assert time.monotonic() - stopped[0] < SILENT_S + 8
    goes_on_as(undisturbed(alone, **LASTING), trial, tmp_path)


def test_a_loss_after_a_stop_was_asked_for_ends_no_trial(tmp_path: Path) -> None:
    """What Slurm ends with the job may end before the trial has saved."""

    def hear(one: Worker, event: Told) -> None:
        if isinstance(event, Stepped) and event.step > AT:
            one.stop.set()
            os.kill(*pids_of(one), signal.SIGKILL)
            wait_until(lambda: one.leader is None or one.leader.watch.lost, "it is found")

    trial = trial_of(tmp_path)
    trial = replace(
        trial, run=replace(trial.run, sharded_optimizer=True)
    )  # so that it cannot be saved without the other
    assert trained(trial, tmp_path, "none", hear).how == "stopped" and not records(tmp_path / "runs")


def test_a_signal_while_another_process_begins_does_not_end_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Slurm sends it to all processes of a step, also to one that still imports."""
    begin, sent = group._CONTEXT.Process.start, list[int]()

    def start(self: Any) -> None:
        begin(self)
        os.kill(self.pid, signal.SIGTERM)
        sent.append(self.pid)

    monkeypatch.setattr(group._CONTEXT.Process, "start", start)
    trial = trial_of(tmp_path)
    assert trained(trial, tmp_path, "none") == Ended(trial.id, "done") and len(sent) == 1
