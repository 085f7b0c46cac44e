"""The two sides that are compared, and the two processes that compute them."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import backends
from backends import devices, specs
from backends.errors import MixlabError, choices
from experiments.design.ablation import COMMAND_LINE
from experiments.machine.environment import ROOT
from experiments.parity.job import Job, Work
from experiments.parity.ladder import Ladder
from experiments.parity.trials import Planned
from experiments.running.meeting import LOCAL, free_port
from experiments.running.pool import Slot, shares
from experiments.spec.expand import expand

POLL_S = 0.02
Place = tuple[tuple[int, ...], str | None]  # CPUs and device of a process; None: the device of the trials
Processes = list["subprocess.Popen[bytes]"]  # of a side, by rank


@dataclass(frozen=True)
class Side:
    """One side, typed as backend[:precision[:device]] [xD]; what is left out is the trial's own."""

    backend: str
    precision: str | None = None
    device: str | None = None
    devices: int | None = None  # that train together, with a process for each

    def __str__(self) -> str:
        text = ":".join(filter(None, (self.backend, self.precision, self.device)))
        return f"{text} x{self.devices}" if self.devices else text


def read_pair(text: str) -> tuple[Side, Side]:
    """The two sides of `--pair`.

    Raises: MixlabError: the text is not two sides, or names an unknown backend, precision or device.
    """
    sides, where = [], f"{COMMAND_LINE}: --pair"
    for part in text.split(","):
        one, *times = part.split()
        backend, _, rest = one.partition(":")
        precision, _, device = rest.partition(":")
        if backend not in backends.names():
            raise MixlabError(f"{where}: expected a backend, got {part!r}; {choices(backend, backends.names())}")
        if precision and precision not in specs.PRECISION:
            raise MixlabError(f"{where}: expected a precision, got {part!r}; {choices(precision, specs.PRECISION)}")
        if device:
            devices.read(device, where)
        if times and not (len(times) == 1 and re.fullmatch(r"x[1-9][0-9]{0,3}", times[0])):
            raise MixlabError(
                f"{where}: expected a number of devices behind {one}, such as x2, got {' '.join(times)!r}"
            )
        sides.append(Side(backend, precision or None, device or None, int(times[0][1:]) if times else None))
    if len(sides) != 2:
        raise MixlabError(
            f"{where}: expected two of backend[:precision[:device]] [xD] with a comma between them, got {text!r}"
        )
    return sides[0], sides[1]


def read_pythons(options: Sequence[str], pair: Sequence[Side]) -> dict[str, str]:
    """The path of an interpreter by backend; a shell leaves the `~` behind a `=` to the program.

    Args:   options: backend=path each.
    Raises: MixlabError: one is not that, or its backend is on neither side.
    """
    in_pair = [side.backend for side in pair]
    pythons, where = {}, f"{COMMAND_LINE}: --python"
    for part in options:
        backend, _, path = part.partition("=")
        path = expand(path, where)
        if not os.access(path, os.X_OK) or not Path(path).is_file():
            raise MixlabError(f"{where}: expected backend=path with the path of an interpreter, got {part!r}")
        if backend not in in_pair:
            raise MixlabError(f"{where}: expected a backend of the pair, got {part!r}; {choices(backend, in_pair)}")
        pythons[backend] = path
    return pythons


def ladders(
    planned: Sequence[Planned], pair: tuple[Side, Side], num_steps: int, cache: Path, pythons: Mapping[str, str]
) -> Generator[Ladder]:
    """A ladder for each planned trial, in order; both sides are at work, each in processes of its own for all of them.

    Args:   pythons: the interpreter of a backend, where it is not this one's.
    Raises: MixlabError: so many devices cannot train a trial; while a rung is awaited: a side found a mistake, or a
            process of it ended.
    """
    with tempfile.TemporaryDirectory(prefix="mixlab-parity-") as root:
        jobs = [
            [_job(one, side, num_steps, cache, Path(root) / name / f"{i:05}") for i, one in enumerate(planned)]
            for name, side in zip(("first", "second"), pair, strict=True)
        ]
        processes: tuple[Processes, Processes] = ([], [])
        try:
            for of_side, places, started in zip(jobs, _places(jobs), processes, strict=True):
                _start(of_side, places, pythons, started)
            for both in zip(*jobs, strict=True):
                yield Ladder((both[0], both[1]), partial(_wait, both, processes))
                for job in both:
                    shutil.rmtree(job.folder)
        finally:
            for process in chain(*processes):
                process.kill()
                process.wait()


def _job(one: Planned, side: Side, num_steps: int, cache: Path, folder: Path) -> Job:
    folder.mkdir(parents=True)
    trial = one.trial
    train = dataclasses.replace(trial.train, precision=side.precision or trial.train.precision)
    devices = side.devices or trial.run.devices
    if train.microbatches % devices:
        raise MixlabError(
            f"{COMMAND_LINE}: --pair: expected a number of devices that divides train.microbatches "
            f"{train.microbatches}, got {str(side)!r}; more devices need more microbatches"
        )
    run = dataclasses.replace(trial.run, device=side.device or trial.run.device, devices=devices)
    trial = dataclasses.replace(trial, backend=side.backend, train=train, run=run)
    return Job(trial, num_steps, cache, folder, one.wide_batch, one.checks)


def _places(jobs: Sequence[Sequence[Job]]) -> list[list[Place]]:
    """CPUs and device of each process of both sides.

    Where a side has several processes, all of both have as many CPUs: on a CPU, the number of XLA's threads changes
    the bits.
    """
    runs = [of_side[0].trial.run for of_side in jobs]
    places = [Slot(cpus).places(run) for cpus, run in zip(shares(2), runs, strict=True)]
    if max(map(len, places)) == 1:
        return places
    least = min(len(cpus) for cpus, _ in chain(*places))
    return [[(cpus[:least], device) for cpus, device in of_side] for of_side in places]


def _start(jobs: Sequence[Job], places: list[Place], pythons: Mapping[str, str], started: Processes) -> None:
    """Start the processes of a side.  Args: started: takes them, also those before one that cannot be started."""
    folder, backend = jobs[0].folder.parent, jobs[0].trial.backend
    address = f"{LOCAL}:{free_port(LOCAL)}"
    Work(places, address, jobs).write(folder / "jobs.json")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    python = pythons.get(backend, sys.executable)
    for rank in range(len(places)):
        with _output(folder, rank).open("wb") as output:
            try:
                process = subprocess.Popen(
                    [python, "-m", "experiments.parity.side", folder / "jobs.json", str(rank)],
                    env={**os.environ, "PYTHONPATH": path},
                    cwd=ROOT,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            except OSError as error:
                raise MixlabError(
                    f"{COMMAND_LINE}: --python: {backend}={python} is no interpreter ({error.strerror})"
                ) from error
        started.append(process)


def _output(folder: Path, rank: int) -> Path:
    """The file of what a process of a side prints."""
    return folder / f"output-{rank}.txt"


def _wait(jobs: Sequence[Job], processes: Sequence[Processes], file: str) -> None:
    """Return once both sides have written a file.  Raises: MixlabError: a side has ended without it."""
    for job, of_side in zip(jobs, processes, strict=True):
        while not (job.folder / file).exists():
            # Asked before the file is looked for again: what a side wrote at last is there once it has ended.
            mistake, codes = job.folder / "mistake.json", [process.poll() for process in of_side]
            # The first process writes all; another has ended too early if it says so.
            ended = [rank for rank, code in enumerate(codes) if code or (code == 0 and rank == 0)]
            if mistake.exists():
                raise MixlabError(json.loads(mistake.read_text()))
            if ended and not (job.folder / file).exists():
                raise _ended(job, ended[0], codes)
            time.sleep(POLL_S)


def _ended(job: Job, rank: int, codes: Sequence[int | None]) -> MixlabError:
    """The error of a process that ended too early, with its last word."""
    lines = _output(job.folder.parent, rank).read_text(errors="replace").strip().splitlines()
    who = job.trial.backend if len(codes) == 1 else f"{job.trial.backend}, rank {rank} of {len(codes)},"
    return MixlabError(
        f"parity: the process of {who} ended with exit code {codes[rank]}: "
        f"{lines[-1] if lines else 'it printed nothing'}"
    )
