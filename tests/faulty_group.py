"""A bench for groups: trials on two devices, of which this process leads, and faults for the process that follows."""

import functools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from backends.errors import BackendMissing
from experiments.data.pixels import DataLost
from experiments.design.ablation import GridTrial
from experiments.machine.environment import ROOT
from experiments.results import checkpoint
from experiments.results.store import Store
from experiments.running import follower, meeting, worker
from experiments.running.events import Ended, Told
from experiments.running.opener import WorkerSpec
from experiments.running.worker import Worker
from experiments.spec.trial import Trial
from tests.conftest import base, is_alive, planned, records, write_yaml
from tests.test_shares import kept, of_rank_0

AT = 6  # the step from which a fault is in the training
STEPS = 12
# Longer than a busy machine keeps a process that is sound from its work.
SILENT_S = 4.0  # in place of meeting.SILENT_S
LASTS_S, STALLS_S = 4.0, 8.0  # in place of watch.LASTS_S; of a disk
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
    """Before the first answer of the second evaluation.  Args: tells: it waits for images."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        said, asked, hung = follower.said, [0], list[float]()

        def late(*given: Any) -> Iterator[Any]:
            asked[0] += 1
            *_, idle = given
            for answer in said(*given):
                if asked[0] > 4 and not hung:
                    hung.append(time.monotonic())
                while hung and time.monotonic() < hung[0] + seconds:
                    time.sleep(0.02)
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
    assert trained(trial, root) == Ended(trial.id, "done")
    return bits_of(trial, root)


@pytest.fixture(scope="module", name="alone")
def make_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alone")


def newest(trial: Trial, root: Path) -> int:
    return checkpoint.newest_step(Store(root / "runs").checkpoint(trial.id))


def goes_on_as(expected: Any, trial: Trial, root: Path) -> None:
    """A trial that was lost goes on from a checkpoint on one device, to the bits of one that was not."""
    assert newest(trial, root) > 0
    assert trained(trial, root) == Ended(trial.id, "done") and bits_of(trial, root) == expected


WHO = f"rank 1 on {os.uname().nodename}: "


def pids_of(one: Worker) -> list[int]:
    """Of those that follow."""
    return [member.process.pid for member in one.leader.members] if one.leader else []


LASTING = {"steps": 600, "evaluate_every": 300}  # six seconds


def is_running(pid: int) -> bool:
    """Whether it is there, and is no zombie of a leader that is stopped."""
    return psutil.pid_exists(pid) and is_alive(pid)
