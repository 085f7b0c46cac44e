"""What a bounded pool of workers on one machine is made of: how they share it, and each worker's place."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from backends.errors import MixlabError, counted
from experiments.design.ablation import GridTrial
from experiments.machine.environment import environment
from experiments.running.events import Event
from experiments.running.failures import Failure
from experiments.running.meeting import Silence
from experiments.running.rendezvous import Rendezvous
from experiments.spec.config import RunConfig

# What a worker does with its time: Python and Mixlab's own modules, the framework, images, the program and its data on
# the device, and then what a record's `seconds` has; what is in none of them is idle or small.
PHASES = ("start", "import", "data", "open", "compile", "train", "evaluate", "checkpoint", "record")


ALONE = frozenset({"data_missing"})  # the other trials of a run may have other data


class Reporter(Protocol):
    """What watches a run; see progress.py."""

    def on_event(self, planned: GridTrial, event: Event) -> None:
        """Called with what is told of each trial. It ends as done, failed, paused, stopped or busy here.

        An error has no such end.
        """


@dataclass(frozen=True)
class Pool:
    """How trials share this machine, and what to do when one fails."""

    jobs: int = 1  # trials at a time
    devices: tuple[str, ...] = ()  # dealt out to the jobs in turn; none: each trial's own
    cpus: tuple[int, ...] = ()  # cores to use; none: all that this process may
    compile_cache: Path | None = None
    retries: Mapping[str, int] = field(default_factory=dict)  # cause -> how often a trial is begun again at once
    alone: frozenset[str] = ALONE  # causes of errors that end their trial, where else they would end the run
    environment: Mapping[str, Any] = field(default_factory=environment)
    is_wanted: Callable[[str], bool] = lambda trial_id: True  # asked before a trial begins; one that is not is left
    on_signal: Callable[[int], None] = lambda number: None  # told of each signal that asks the run to stop
    rendezvous: Rendezvous | None = None  # where each trial's processes are met that other tasks of this job start

    def check_devices(self, runs: Iterable[RunConfig]) -> None:
        """Raises: MixlabError: a job has fewer of the devices than one of the trials is to train on."""
        if self.rendezvous:  # its processes have a device each
            return
        most, each = max((run.devices for run in runs), default=1), len(self.devices) // self.jobs
        if self.devices and most > max(1, each):
            share = f"{counted(self.jobs, 'job')} {'has' if self.jobs == 1 else 'share'} {', '.join(self.devices)}"
            raise MixlabError(
                f"run.devices: {most} devices train a trial, and {share}; take fewer jobs or more devices"
            )
        twice = [name for name in dict.fromkeys(self.devices) if self.devices.count(name) > 1 and name != "cpu"]
        if most > 1 and twice:
            raise MixlabError(
                f"devices: {twice[0]} is given twice, and run.devices={most} trains a trial on different ones; name "
                f"each once"
            )

    def devices_of(self, job: int) -> tuple[str, ...]:
        """The devices of one of the jobs: those that are left over for it, or one that jobs share."""
        own = self.devices[job :: self.jobs]
        return own or (self.devices and (self.devices[job % len(self.devices)],))


@dataclass
class Summary:
    """What became of the trials of a run, by id."""

    done: list[str] = field(default_factory=list)
    paused: list[str] = field(default_factory=list)  # trained as far as they are for now
    failed: dict[str, str] = field(default_factory=dict)  # id -> reason
    left: list[str] = field(default_factory=list)  # stopped or never begun
    error: Failure | None = None  # what has ended the run
    signals: set[int] = field(default_factory=set)  # that asked it to stop
    spent: dict[str, float] = field(default_factory=dict)  # seconds of all workers together, by phase

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add what a worker has spent."""
        for phase, number in seconds.items():
            self.spent[phase] = self.spent.get(phase, 0.0) + number


@dataclass
class Slot:
    """A share of the cores and devices, and the worker on them."""

    cpus: tuple[int, ...]
    devices: tuple[str, ...] = ()  # none: each trial's own
    process: Any = None
    connection: Connection | None = None
    backend: str | None = None
    num_devices: int = 1  # of the worker's trials
    silence: Silence | None = None  # of the worker; None: of one that leads no group, which may be stopped for long
    trials: dict[str, GridTrial] = field(default_factory=dict)  # in the worker's hands, by id
    is_spent: bool = False  # its worker is not used again
    lost: Failure | None = None  # of a process of the worker's group, for which the worker ends

    def places(self, run: RunConfig) -> list[tuple[tuple[int, ...], str | None]]:
        """The cores and the device of each process that trains a trial; None: the trial's own device."""
        kind, _, index = run.device.partition(":")
        own = [f"{kind}:{int(index or 0) + i}" for i in range(run.devices)]
        each: Sequence[str | None] = self.devices or (own if run.devices > 1 and kind != "cpu" else [None])
        cpus = shares(run.devices, self.cpus)
        return [(cpus[i][: run.threads or None], each[i % len(each)]) for i in range(run.devices)]


def shares(jobs: int, given: Sequence[int] = ()) -> list[tuple[int, ...]]:
    """The cores given, or else all of this process, dealt out to the jobs; jobs beyond the cores share them."""
    cpus = sorted(given or os.sched_getaffinity(0))
    return [tuple(cpus[i::jobs]) or (cpus[i % len(cpus)],) for i in range(jobs)]
