"""Faults of a trial on several devices: each is found where it happens and named, and none changes a result.

Faults of the arithmetic are in test_parity_groups.py, those of an evaluation in test_shares.py, processes that die in
test_group.py. Here the first process is this one, and a fault is planted in the process that follows it.
"""

import functools
import multiprocessing
import os
import random
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

from backends.contract import PREDICT_BATCH
from backends.errors import BackendMissing
from experiments.data.ahead import Interrupted
from experiments.data.pixels import DataLost
from experiments.design.ablation import GridTrial
from experiments.machine.environment import ROOT
from experiments.results import checkpoint
from experiments.results.store import Store
from experiments.running import follower, group, hiring, meeting, messages, process, watch, worker
from experiments.running.events import Ended, Event, Lost, Noted, Started, Stepped, Told
from experiments.running.failures import Failure
from experiments.running.local import LocalRun
from experiments.running.opener import WorkerSpec
from experiments.running.pool import Pool, Summary
from experiments.running.worker import Worker
from experiments.spec.trial import Trial
from tests.conftest import base, is_alive, planned, records, wait_until, write_yaml
from tests.test_shares import kept, of_rank_0

AT = 6  # the step from which a fault is in the training
STEPS = 12
SILENT_S = 1.5  # in place of meeting.SILENT_S
LASTS_S, STALLS_S = 1.5, 4.0  # in place of watch.LASTS_S; of a disk
CONTEXT = multiprocessing.get_context("spawn")
# What is planted in the process that follows, by name.


def stops_early(patch: pytest.MonkeyPatch) -> None:
    """It has seen a stop, and takes a step less than the others."""
    plan = follower.step_plan
    patch.setattr(follower, "step_plan", lambda *given: plan(*given[:3], given[3] - (given[2] >= AT)))


def misses_steps(patch: pytest.MonkeyPatch) -> None:
    train, missed = follower.Follower._train, [True]

    def without(self: Any, message: Any) -> None:
        if message.first < AT or not missed:
            train(self, message)
        else:
            missed.clear()

    patch.setattr(follower.Follower, "_train", without)


def one_step_behind(patch: pytest.MonkeyPatch) -> None:
    load = follower.Follower._load
    patch.setattr(
        follower.Follower,
        "_load",
        lambda self, message: load(self, replace(message, first_step=message.first_step - 1)),
    )


def soon_silent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(meeting, "SILENT_S", SILENT_S)


def slow_to_read(patch: pytest.MonkeyPatch) -> None:
    """Its disk stalls once, for the steps of the second chunk."""
    wait, begun = follower.Feeds.wait, list[float]()

    def waits(self: Any, num_steps: int, seconds: float) -> bool:
        begun.append(time.monotonic())
        if len(begun) == 1 or time.monotonic() > begun[1] + STALLS_S:
            return wait(self, num_steps, seconds)
        time.sleep(seconds)
        return False

    patch.setattr(follower.Feeds, "wait", waits)


def cannot_read(patch: pytest.MonkeyPatch, error: Exception) -> None:
    """It cannot read one of the steps from AT on."""
    wait, waited = follower.Feeds.wait, [0]

    def waits(self: Any, num_steps: int, seconds: float) -> bool:
        waited[0] += num_steps
        for feed in self.feeds.values():
            if waited[0] >= AT:
                feed.error, feed.slots = error, {}
        return wait(self, num_steps, seconds)

    patch.setattr(follower.Feeds, "wait", waits)


def hangs(seconds: float, tells: bool) -> Callable[[pytest.MonkeyPatch], None]:
    """Before an answer of the second evaluation.  Args: tells: it waits for images."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        said, asked = follower.said, [0]

        def late(*given: Any) -> Iterator[Any]:
            asked[0] += 1
            *_, idle = given
            for answer in said(*given):
                until = time.monotonic() + seconds
                while asked[0] > 4 and time.monotonic() < until:
                    time.sleep(0.1)
                    if tells:
                        idle()
                yield answer

        patch.setattr(follower, "said", late)

    return plant


def cannot_join(patch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise BackendMissing("backend: torch is not installed")

    patch.setattr(follower.backends, "load", fail)


PLANTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "none": lambda patch: None,
    "it stops early": stops_early,
    "it misses steps": misses_steps,
    "it is a step behind": one_step_behind,
    "a batch counts twice": kept(of_rank_0),
    "it is soon silent": soon_silent,
    "its disk stalls": slow_to_read,
    "an image is damaged": functools.partial(cannot_read, error=DataLost("row 3 is damaged")),
    "its memory is out": functools.partial(cannot_read, error=MemoryError("no room for a batch")),
    "it waits for images": hangs(STALLS_S, True),
    "it waits for images for ever": hangs(3600, True),
    "it hangs in an evaluation": hangs(3600, False),
    "it cannot join": cannot_join,
}


def planted(name: str, *given: Any) -> None:
    """Follow with a fault."""
    PLANTS[name](pytest.MonkeyPatch())
    follower.follow(*given)


def trained(
    trial: Trial, root: Path, plant: str | None = None, hear: Callable[..., None] = lambda *_: None, *more: Trial
) -> Ended:
    """What becomes of a trial; of one with a plant, on two devices.

    Args: plant: of PLANTS; None: on one device.    hear: called with the worker and what it tells.
          more: trials after it, of which the last one is told.
    """
    events: list[Told] = []

    def send(event: Told) -> None:
        events.append(event)
        hear(one, event)

    spec = WorkerSpec(trial.backend, (0,), root / "runs", root / "data", {}, ROOT, time.monotonic())
    with pytest.MonkeyPatch.context() as patch:
        if plant is not None:
            patch.setattr(worker, "follow", functools.partial(planted, plant))
            spec = replace(spec, others=(spec,), num_here=2)
        one = Worker(spec, threading.Event(), send)
        for each in (trial, *more):
            one.run(replace(each, run=replace(each.run, devices=one.spec.num_devices)))
        one.close()
    return [event for event in events if isinstance(event, Ended)][-1]


def trial_of(root: Path, backend: str = "quick", streams: bool = False, **train: Any) -> Trial:
    return grid_trial_of(root, backend, streams, **train).trial


def grid_trial_of(root: Path, backend: str = "quick", streams: bool = False, **train: Any) -> GridTrial:
    """Of two microbatches, of which an evaluation has several batches and a checkpoint is written after each chunk."""
    values = {"steps": STEPS, "evaluate_every": 3, "microbatches": 2, **train}
    augment = {"inception": "tf"} if streams else {}  # then images are read by the process that takes the step
    run = {"device": "cpu", "threads": 1, "checkpoint_every_s": 0.0}
    tree = base(backend=backend, data={"num_examples": 700, "augment": augment}, train=values, run=run)
    return planned(write_yaml(root / "a.yaml", base=tree, grid={"seed": [0]}), root / "data")[0]


def recorded(trial: Trial, root: Path) -> dict[str, Any]:
    return records(root / "runs")[trial.id]


def bits_of(trial: Trial, root: Path) -> Any:
    record = recorded(trial, root)
    assert record["status"] == "done", record
    return record["bits"], record["curve"]


@functools.cache
def undisturbed(root: Path, backend: str = "quick", **train: Any) -> Any:
    """Of the trial on one device."""
    trial = trial_of(root, backend, **train)
    assert trained(trial, root).how == "done"
    return bits_of(trial, root)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alone")


@pytest.fixture(autouse=True)
def _backend(quick: Path) -> None:
    """The backend `quick`, in all tests here."""


def newest(trial: Trial, root: Path) -> int:
    return checkpoint.newest_step(Store(root / "runs").checkpoint(trial.id))


def goes_on_as(expected: Any, trial: Trial, root: Path) -> None:
    """A trial that was lost goes on from a checkpoint on one device, to the bits of one that was not."""
    assert newest(trial, root) > 0
    assert trained(trial, root).how == "done" and bits_of(trial, root) == expected


WHO = f"rank 1 on {os.uname().nodename}: "
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


@pytest.mark.parametrize("backend", ["quick", "torch"])
def test_an_evaluation_that_is_broken_off_leaves_a_group_that_goes_on(
    backend: str, monkeypatch: pytest.MonkeyPatch, alone: Path, tmp_path: Path
) -> None:
    """A stop comes while images are waited for; the state, also one that is shared out, is saved all the same."""
    said, pids, broken = group.said, list[list[int]](), list[bool]()

    def breaks_off(*given: Any) -> Iterator[Any]:
        for answer in said(*given):
            if not broken:
                broken.append(True)
                raise Interrupted
            yield answer

    def hear(one: Worker, event: Event) -> None:
        if isinstance(event, Ended):
            pids.append(pids_of(one))

    trial, expected = trial_of(tmp_path, backend), undisturbed(alone, backend)
    trial = replace(trial, run=replace(trial.run, sharded_optimizer=True))
    monkeypatch.setattr(group, "said", breaks_off)
    assert trained(trial, tmp_path, "none", hear, trial).how == "done"
    assert broken and len(pids) == 2 and pids[0] == pids[1]
    assert bits_of(trial, tmp_path) == expected


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
    assert trained(trial, tmp_path, "none", hear).how == "done"
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


def pids_of(one: Worker) -> list[int]:
    """Of those that follow."""
    return [member.process.pid for member in one.leader.members] if one.leader else []


LASTING = {"steps": 600, "evaluate_every": 300}  # six seconds


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
    assert ended.failure.reason == f"{WHO}it has given no sign of life for 2 s"
    assert time.monotonic() - stopped[0] < SILENT_S + 8
    goes_on_as(undisturbed(alone, **LASTING), trial, tmp_path)


def test_steps_that_do_not_end_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All processes are alive, and wait for each other."""
    train = group.LedProgram.train

    def waits(self: Any, plans: Any) -> Any:
        if plans[0].first_step < AT:
            return train(self, plans)

        def wait() -> Any:
            wait_until(lambda: self.leader.watch.lost, "the group is ended", 20)
            raise RuntimeError("connection closed by peer")

        return self.leader.train(messages.Steps(plans[0].first_step, plans[0].num_steps), wait)

    monkeypatch.setattr(group.LedProgram, "train", waits)
    monkeypatch.setattr(watch, "LASTS_S", SILENT_S)
    ended = trained(trial := trial_of(tmp_path), tmp_path, "none")
    assert ended.failure is not None and ended.failure.cause == "killed"
    assert ended.failure.reason == "the group: no step has ended for too long" and newest(trial, tmp_path) == AT


def test_the_first_steps_of_a_program_may_compile_for_longer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither what it takes to load the state nor the steps of the trial before say how long they last."""
    monkeypatch.setattr(watch, "LASTS_S", 0.2)
    first, second = (trial_of(tmp_path, steps=1, batch_size=size) for size in (8, 4))

    def hear(one: Worker, event: Event) -> None:
        if isinstance(event, Ended):
            monkeypatch.setenv("QUICK_STEP_S", "2.5")

    assert trained(first, tmp_path, "none", hear, second).how == "done"


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


def test_a_disk_that_stalls_for_one_process_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, alone: Path, tmp_path: Path
) -> None:
    """Longer than steps may last."""
    monkeypatch.setattr(watch, "LASTS_S", LASTS_S)
    start, trial = time.monotonic(), trial_of(tmp_path, streams=True)
    assert trained(trial, tmp_path, "its disk stalls").how == "done" and time.monotonic() - start > STALLS_S
    assert bits_of(trial, tmp_path) == undisturbed(alone, streams=True)


def test_an_image_that_one_process_cannot_read_is_named_and_the_state_is_saved(tmp_path: Path) -> None:
    trial = trial_of(tmp_path, streams=True)
    trial = replace(trial, run=replace(trial.run, checkpoint_every_s=3600.0))
    ended = trained(trial, tmp_path, "an image is damaged")
    assert ended.how == "error" and ended.failure is not None and ended.failure.cause == "data_missing"
    assert ended.failure.reason.startswith(f"trial {trial.id}: {WHO}row 3 is damaged; it is saved at step ")
    assert 0 < newest(trial, tmp_path) < STEPS and not records(tmp_path / "runs")


def test_what_else_fails_where_one_process_reads_keeps_its_cause(tmp_path: Path) -> None:
    ended = trained(trial_of(tmp_path, streams=True), tmp_path, "its memory is out")
    assert ended.failure == Failure("out_of_memory", f"{WHO}MemoryError: no room for a batch")


def test_an_evaluation_waits_for_the_images_of_another_process(
    monkeypatch: pytest.MonkeyPatch, alone: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(watch, "LASTS_S", LASTS_S)
    trial = trial_of(tmp_path)
    assert trained(trial, tmp_path, "it waits for images").how == "done"
    assert bits_of(trial, tmp_path) == undisturbed(alone)


def test_a_stop_is_answered_while_another_process_waits_for_images(tmp_path: Path) -> None:
    trial, stopped = trial_of(tmp_path), list[float]()

    def hear(one: Worker, event: Told) -> None:
        if isinstance(event, Stepped) and event.waiting == 1.0 and not stopped:
            one.stop.set()
            stopped.append(time.monotonic())

    assert trained(trial, tmp_path, "it waits for images for ever", hear).how == "stopped"
    assert time.monotonic() - stopped[0] < 5 and newest(trial, tmp_path) > 0


def test_a_process_that_hangs_in_an_evaluation_is_named(
    monkeypatch: pytest.MonkeyPatch, alone: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(watch, "LASTS_S", LASTS_S)
    trial = trial_of(tmp_path)
    ended = trained(trial, tmp_path, "it hangs in an evaluation")
    assert ended.failure == Failure("killed", f"{WHO}it has not answered in an evaluation for too long")
    goes_on_as(undisturbed(alone), trial, tmp_path)


def test_all_processes_read_images_from_where_the_first_one_finds_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A step has as many examples in each of them as one call takes there."""
    told, tell = list[Any](), group.Leader._tell
    monkeypatch.setattr(group.Leader, "_tell", lambda self, message: (told.append(message), tell(self, message)))
    monkeypatch.setattr("experiments.running.storage.choose", lambda *given: "disk")
    trial = trial_of(tmp_path)
    assert trial.data.storage == "auto" and trained(trial, tmp_path, "none").how == "done"
    (opened,) = (message.trial for message in told if isinstance(message, messages.Open))
    assert (opened.id, opened.data.storage) == (trial.id, "disk")
    assert recorded(trial, tmp_path)["data"]["storage"] == "disk" and any(isinstance(x, messages.Fed) for x in told)


def test_a_loss_after_a_stop_was_asked_for_ends_no_trial(tmp_path: Path) -> None:
    """What Slurm ends with the job may end before the trial has saved."""

    def hear(one: Worker, event: Told) -> None:
        if isinstance(event, Stepped) and event.step > AT:
            one.stop.set()
            os.kill(*pids_of(one), signal.SIGKILL)
            wait_until(lambda: one.leader is None or one.leader.watch.lost, "it is found")

    trial = trial_of(tmp_path)
    assert trained(trial, tmp_path, "none", hear).how == "stopped" and not records(tmp_path / "runs")


def test_a_signal_while_another_process_begins_does_not_end_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Slurm sends it to all processes of a step, also to one that still imports."""
    begin, sent = group._CONTEXT.Process.start, list[int]()

    def start(self: Any) -> None:
        begin(self)
        os.kill(self.pid, signal.SIGTERM)
        sent.append(self.pid)

    monkeypatch.setattr(group._CONTEXT.Process, "start", start)
    assert trained(trial_of(tmp_path), tmp_path, "none").how == "done" and len(sent) == 1


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
    assert f"rank 0 on {os.uname().nodename}: it has given no sign of life for 2 s; it is begun again" in told
    assert pids and not any(map(is_running, pids))
    assert bits_of(planned.trial, tmp_path) == undisturbed(alone, **LASTING)


def test_a_leader_that_works_for_long_lives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It tells nothing of its trial meanwhile."""
    monkeypatch.setattr(meeting, "SILENT_S", SILENT_S)
    monkeypatch.setenv("QUICK_STEP_S", str(3 * SILENT_S))
    planned = grid_trial_of(tmp_path, steps=2)
    assert run_on_two(planned, tmp_path).done == [planned.trial.id]
    assert len(recorded(planned.trial, tmp_path)["sessions"]) == 1


def begins_late(spec: WorkerSpec, connection: Connection) -> None:
    """A worker whose imports take long."""
    time.sleep(2 * SILENT_S)
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


def test_what_lasts_too_long_is_measured_while_this_process_is_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    awake = meeting.Awake()
    limit = watch.Limit(awake, "it lasts")

    def passes(seconds: int, step: int = 1) -> None:
        for _ in range(0, seconds, step):
            now[0] += step
            awake.look()

    def is_over(seconds: int, compiled: float = 0.0) -> bool:
        compiles = iter((0.0, compiled))
        with limit.within(lambda: next(compiles)):
            passes(seconds)
            passes(3600, 3600)  # all are stopped
            return limit.is_over()

    assert not is_over(600, 598.0)  # it has compiled: the first time has no limit
    assert not is_over(39) and is_over(2 * 20 * 39) and limit.longest_s == 39 * 40
    limit.begin()
    assert not is_over(300)
    passes(20 * 310, 4)
    assert not limit.is_over()  # nothing is under way


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


def is_running(pid: int) -> bool:
    """Whether it is there, and is no zombie of a leader that is stopped."""
    return psutil.pid_exists(pid) and is_alive(pid)


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
