"""The two sides that are compared, and the two processes that compute them."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import backends
from backends import devices, specs
from backends.errors import MixlabError, choices
from experiments.design.ablation import COMMAND_LINE
from experiments.files import replace
from experiments.machine.environment import ROOT
from experiments.parity.job import Job, job_json
from experiments.parity.ladder import Ladder
from experiments.parity.trials import Planned
from experiments.running.pool import shares
from experiments.spec.expand import expand

POLL_S = 0.02


@dataclass(frozen=True)
class Side:
    """One side, typed as backend[:precision[:device]]; what is left out is the trial's own."""

    backend: str
    precision: str | None = None
    device: str | None = None

    def __str__(self) -> str:
        return ":".join(filter(None, (self.backend, self.precision, self.device)))


def read_pair(text: str) -> tuple[Side, Side]:
    """The two sides of `--pair`.

    Raises: MixlabError: the text is not two sides, or names an unknown backend, precision or device.
    """
    sides, where = [], f"{COMMAND_LINE}: --pair"
    for part in text.split(","):
        backend, _, rest = part.strip().partition(":")
        precision, _, device = rest.partition(":")
        if backend not in backends.names():
            raise MixlabError(f"{where}: expected a backend, got {part!r}; {choices(backend, backends.names())}")
        if precision and precision not in specs.PRECISION:
            raise MixlabError(f"{where}: expected a precision, got {part!r}; {choices(precision, specs.PRECISION)}")
        if device:
            devices.read(device, where)
        sides.append(Side(backend, precision or None, device or None))
    if len(sides) != 2:
        raise MixlabError(
            f"{where}: expected two of backend[:precision[:device]] with a comma between them, got {text!r}"
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
    """A ladder for each planned trial, in order; both sides are at work, each in a process of its own for all of them.

    Args:   pythons: the interpreter of a backend, where it is not this one's.
    Raises: MixlabError: while a rung is awaited: a side found a mistake, or its process ended.
    """
    with tempfile.TemporaryDirectory(prefix="mixlab-parity-") as root:
        jobs = [
            [_job(one, side, num_steps, cache, Path(root) / name / f"{i:05}") for i, one in enumerate(planned)]
            for name, side in zip(("first", "second"), pair, strict=True)
        ]
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for of_side, cpus in zip(jobs, shares(2), strict=True):
                processes.append(_start(of_side, cpus, pythons))
            for both in zip(*jobs, strict=True):
                yield Ladder((both[0], both[1]), partial(_wait, both, processes))
                for job in both:
                    shutil.rmtree(job.folder)
        finally:
            for process in processes:
                process.kill()
                process.wait()


def _job(one: Planned, side: Side, num_steps: int, cache: Path, folder: Path) -> Job:
    folder.mkdir(parents=True)
    trial = one.trial
    train = dataclasses.replace(trial.train, precision=side.precision or trial.train.precision)
    run = dataclasses.replace(trial.run, device=side.device or trial.run.device)
    trial = dataclasses.replace(trial, backend=side.backend, train=train, run=run)
    return Job(trial, num_steps, cache, folder, one.wide_batch, one.checks)


def _start(jobs: Sequence[Job], cpus: tuple[int, ...], pythons: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    folder, backend = jobs[0].folder.parent, jobs[0].trial.backend
    replace(folder / "jobs.json", json.dumps({"cpus": cpus, "jobs": [job_json(job) for job in jobs]}).encode())
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    python = pythons.get(backend, sys.executable)
    with (folder / "output.txt").open("wb") as output:
        try:
            return subprocess.Popen(
                [python, "-m", "experiments.parity.side", folder / "jobs.json"],
                env={**os.environ, "PYTHONPATH": path},
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise MixlabError(
                f"{COMMAND_LINE}: --python: {backend}={python} is no interpreter ({error.strerror})"
            ) from error


def _wait(jobs: Sequence[Job], processes: "Sequence[subprocess.Popen[bytes]]", file: str) -> None:
    """Return once both sides have written a file.  Raises: MixlabError: a side has ended without it."""
    for job, process in zip(jobs, processes, strict=True):
        while not (job.folder / file).exists():
            # Asked before the file is looked for again: what a side wrote at last is there once it has ended.
            mistake, ended = job.folder / "mistake.json", process.poll() is not None
            if mistake.exists():
                raise MixlabError(json.loads(mistake.read_text()))
            if ended and not (job.folder / file).exists():
                lines = (job.folder.parent / "output.txt").read_text(errors="replace").strip().splitlines()
                raise MixlabError(
                    f"parity: the process of {job.trial.backend} ended with exit code {process.returncode}: "
                    f"{lines[-1] if lines else 'it printed nothing'}"
                )
            time.sleep(POLL_S)
