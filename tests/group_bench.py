"""Processes that compute a side of the parity ladder together, for one trial and one planted fault after the other."""

import dataclasses
import multiprocessing
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import backends
from backends.microbatches import Group
from experiments.parity import side
from experiments.parity.job import Job
from experiments.parity.ladder import Ladder
from experiments.parity.rungs import Rung
from experiments.running.meeting import LOCAL, free_port
from tests.parity_bench import fresh_code

Plant = Callable[[pytest.MonkeyPatch, Group], None]  # in a process of a group

JOIN_S, CLIMB_S = 60.0, 120.0
_CONTEXT = multiprocessing.get_context("spawn")


class Processes:
    """The processes of a group, which join once."""

    def __init__(self, backend: str, size: int, plants: Mapping[str, Plant] | None = None):
        """Args: plants: functions of modules, by the name that `climb` is given."""
        self.size, self.plants, self.ends, self.processes = size, dict(plants or {}), [], []
        address = f"{LOCAL}:{free_port(LOCAL)}"
        for rank in range(size):
            own, other = _CONTEXT.Pipe()
            arguments = (backend, Group(rank, size), address, other)
            self.processes.append(_CONTEXT.Process(target=_serve, args=arguments, daemon=True))
            self.processes[-1].start()
            self.ends.append(own)

    def climb(self, sound: Job, folder: Path, fault: str | None = None, shared: bool = False) -> list[Rung]:
        """The rungs between the sound side's files and those of the group with a fault in it.

        Args: shared: with run.sharded_optimizer.
        """
        folder.mkdir()
        for path in sound.folder.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        run = dataclasses.replace(sound.trial.run, devices=self.size, sharded_optimizer=shared)
        trial = dataclasses.replace(sound.trial, run=run)
        other = dataclasses.replace(sound, trial=trial, folder=folder.with_name("faulty"))
        other.folder.mkdir()
        self.do(_climb, other, self.plants[fault] if fault else None)
        return list(Ladder((dataclasses.replace(sound, folder=folder), other), lambda _: None).climb())

    def do(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What a function (backend, group, *arguments) of a module returns in each process."""
        for end in self.ends:
            end.send((function, arguments))
        until, found = time.monotonic() + CLIMB_S, dict[int, Any]()
        while len(found) < self.size:
            for rank in set(range(self.size)) - found.keys():
                if self.ends[rank].poll(0.01):
                    error, found[rank] = self.ends[rank].recv()
                    assert error is None, f"rank {rank}: {error}"
                assert self.processes[rank].is_alive(), f"rank {rank} has ended"
            assert time.monotonic() < until, f"only ranks {sorted(found)} come to an end"
        return [found[rank] for rank in range(self.size)]

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def _serve(name: str, group: Group, address: str, end: Connection) -> None:
    """Join a group, and do what comes."""
    backend = backends.load(name)
    backend.join(group, address, JOIN_S)
    while True:
        function, arguments = end.recv()
        error = result = None
        try:
            result = function(backend, group, *arguments)
        except Exception:
            error = traceback.format_exc()
        end.send((error, result))


def _climb(backend: Any, group: Group, job: Job, plant: Plant | None) -> None:
    with pytest.MonkeyPatch.context() as patch, fresh_code():
        if plant is not None:
            plant(patch, group)
        side.climb(backend, dataclasses.replace(job, rank=group.rank))
