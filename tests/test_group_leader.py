"""The process that leads a trial on several devices: it hangs, ends or begins late, and its trial goes on."""

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest

from experiments.design.ablation import GridTrial
from experiments.results.store import Store
from experiments.running import hiring, meeting, process
from experiments.running.events import Event, Lost, Noted, Started, Stepped, Told
from experiments.running.failures import Failure
from experiments.running.local import LocalRun
from experiments.running.opener import WorkerSpec
from experiments.running.pool import Pool, Summary
from experiments.running.worker import Worker
from experiments.spec.trial import Trial
from tests.conftest import records, wait_until
from tests.faulty_group import (
    AT,
    CONTEXT,
    LASTING,
    SILENT_S,
    WHO,
    bits_of,
    goes_on_as,
    grid_trial_of,
    is_running,
    make_alone,  # noqa: F401 - a fixture
    newest,
    pids_of,
    recorded,
    trained,
    trial_of,
    undisturbed,
)

pytestmark = pytest.mark.usefixtures("quick")  # the backend of the trials


def lead(trial: Trial, root: Path, plant: str) -> None:
    """Train in a process of its own; the folder gets a file `pid` of each that follows."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def hear(one: Worker, event: Told) -> None:
        for pid in pids_of(one):
            (root / f"{pid}.pid").touch()
        if isinstance(event, Lost):
            (root / "lost").write_text(f"{event.failure.cause}: {event.failure.reason}")

    trained(trial, root, plant, hear)


@pytest.fixture
def led(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts `lead`; its process is ended with the test."""
    processes: list[Any] = []

    def begin(trial: Trial, plant: str) -> Any:
        processes.append(CONTEXT.Process(target=lead, args=(trial, tmp_path, plant)))
        processes[-1].start()
        return processes[-1]

    yield begin
    for one in processes:
        one.kill()
        one.join()


def test_those_that_follow_a_leader_that_hangs_end_and_nothing_is_lost(
    led: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, alone: Path, tmp_path: Path
) -> None:
    """The leader finds them gone when it goes on."""
    trial = trial_of(tmp_path, **LASTING)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUICK_STEP_S", "0.01")
        process = led(trial, "it is soon silent")
    wait_until(lambda: newest(trial, tmp_path) > AT, "a checkpoint is written")
    (pid,) = (int(path.stem) for path in tmp_path.glob("*.pid"))
    os.kill(process.pid, signal.SIGSTOP)
    wait_until(lambda: not is_running(pid), "the other process has ended", SILENT_S + 8)
    os.kill(process.pid, signal.SIGCONT)
    process.join(20)
    assert process.exitcode == 0
    assert recorded(trial, tmp_path)["reason"] == f"{WHO}its process ended with exit code 1"
    goes_on_as(undisturbed(alone, **LASTING), trial, tmp_path)


class Hears:
    """Calls what it is given with what is told of a trial."""

    def __init__(self, hear: Callable[[Event], None]):
        self.hear = hear

    def on_event(self, planned: GridTrial, event: Event) -> None:
        self.hear(event)


def run_on_two(
    planned: GridTrial, root: Path, hear: Callable[[LocalRun, Event], None] = lambda run, event: None
) -> Summary:
    """Run a trial on two devices, with two tries.  Args: hear: called with the run and what is told."""
    trial = replace(planned.trial, run=replace(planned.trial.run, devices=2))
    pool, reporter = Pool(environment={}, retries={"killed": 1}), Hears(lambda event: hear(run, event))
    run = LocalRun([replace(planned, trial=trial)], Store(root / "runs"), root / "data", pool, reporter)
    return run.run()


def test_a_leader_that_hangs_is_ended_by_its_run_and_its_trial_goes_on(
    monkeypatch: pytest.MonkeyPatch, alone: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(meeting, "SILENT_S", SILENT_S)  # of the run, not of the group's processes
    planned, pids, told = grid_trial_of(tmp_path, **LASTING), list[int](), list[str]()

    def hear(run: LocalRun, event: Event) -> None:
        if isinstance(event, Stepped) and event.step > AT and not pids:
            pids.extend(child.pid for child in psutil.Process(run.slots[0].process.pid).children())
            os.kill(run.slots[0].process.pid, signal.SIGSTOP)
        if isinstance(event, Noted):
            told.append(event.sentence)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUICK_STEP_S", "0.01")
        summary = run_on_two(planned, tmp_path, hear)
    assert summary.done == [planned.trial.id]
    lost = f"rank 0 on {os.uname().nodename}: it has given no sign of life for {SILENT_S:.0f} s"
    assert f"{lost}; it is begun again" in told
    assert pids and not any(map(is_running, pids))
    assert bits_of(planned.trial, tmp_path) == undisturbed(alone, **LASTING)


def test_a_leader_that_works_for_long_lives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It tells nothing of its trial meanwhile. A short silence is none too long, also after much work."""
    monkeypatch.setattr(meeting, "SILENT_S", SILENT_S)
    monkeypatch.setenv("QUICK_STEP_S", str(1.5 * SILENT_S))
    planned, stopped = grid_trial_of(tmp_path, steps=2), list[int]()

    def hear(run: LocalRun, event: Event) -> None:
        if isinstance(event, Stepped) and not stopped:
            stopped.append(run.slots[0].process.pid)
            os.kill(stopped[0], signal.SIGSTOP)
            threading.Timer(0.5 * SILENT_S, os.kill, (stopped[0], signal.SIGCONT)).start()

    assert run_on_two(planned, tmp_path, hear).done == [planned.trial.id] and stopped
    assert len(recorded(planned.trial, tmp_path)["sessions"]) == 1


def begins_late(spec: WorkerSpec, connection: Connection) -> None:
    """A worker whose imports take long."""
    time.sleep(1.5 * SILENT_S)
    process.main(spec, connection)


def test_a_leader_may_take_long_to_begin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(meeting, "SILENT_S", SILENT_S)
    monkeypatch.setattr(hiring, "main", begins_late)
    planned = grid_trial_of(tmp_path)
    assert run_on_two(planned, tmp_path).done == [planned.trial.id]


LOSSES = [
    Failure("import_error", "rank 1 on n2: backend: torch is not installed"),
    Failure("out_of_memory", "rank 1 on n2: RuntimeError: out of memory"),
]


def loses(number: int, spec: WorkerSpec, connection: Connection) -> None:
    """A worker that cannot go on for a loss."""
    order = connection.recv()
    connection.send(Started(order.trials[0].id, 0))
    connection.send(Lost(LOSSES[number]))
    os._exit(1)


def test_a_worker_that_ends_for_a_loss_ends_its_trial_by_the_cause_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that would meet every trial ends the run instead."""
    planned = grid_trial_of(tmp_path)
    monkeypatch.setattr(hiring, "main", functools.partial(loses, 0))
    assert run_on_two(planned, tmp_path).error == LOSSES[0] and not records(tmp_path / "runs")
    monkeypatch.setattr(hiring, "main", functools.partial(loses, 1))
    assert run_on_two(planned, tmp_path).failed == {planned.trial.id: LOSSES[1].reason}
    assert recorded(planned.trial, tmp_path)["cause"] == "out_of_memory"


def test_a_process_that_cannot_join_is_the_loss_for_which_its_leader_ends(
    led: Callable[..., Any], tmp_path: Path
) -> None:
    """The leader waits for it in a framework, for as long as an exchange may last."""
    process = led(trial_of(tmp_path, "torch"), "it cannot join")
    process.join(60)
    assert process.exitcode == 1
    assert (tmp_path / "lost").read_text() == f"import_error: {WHO}backend: torch is not installed"


def test_another_is_silent_only_while_this_process_is_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal stops all of them together, for hours."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    silence = meeting.Silence()

    def after(seconds: int, step: int = 1) -> bool:
        for _ in range(0, seconds, step):
            now[0] += step
            found = silence.is_too_long()
        return found

    assert not after(20) and after(1)
    silence.hear()
    assert not after(10) and not after(3600, 3600) and not after(10) and after(1)


def test_a_stop_that_one_process_alone_has_seen_is_found_where_all_exchange(
    led: Callable[..., Any], tmp_path: Path
) -> None:
    """Of a framework, whose exchange the others wait in."""
    trial = trial_of(tmp_path, "torch")
    process = led(trial, "it stops early")
    process.join(60)
    assert process.exitcode == 0
    assert recorded(trial, tmp_path)["reason"].startswith(f"{WHO}expected a state of step ")
    assert AT <= newest(trial, tmp_path) < AT + 3
