"""Which trials to compare on which two sides, and the two processes that do."""

import dataclasses
import json
import math
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
from typing import Any

import backends
from backends import contract
from backends.errors import MixlabError, choices
from experiments.ablation import COMMAND_LINE, Ablation, GridTrial, configs, resolved
from experiments.environment import ROOT
from experiments.files import replace
from experiments.parity.ladder import Ladder
from experiments.parity.side import Job, job_json
from experiments.pool import shares
from experiments.spec import AugmentConfig, Trial, TrialConfig

POLL_S = 0.02
# What the ladder switches on where a trial leaves it off: a part that is off cannot be seen to differ.
CHANCE = {"dropout": 0.1, "stochastic_depth": 0.5}
AUGMENT = {"crop": 1, "mixup": 1.0}
CLIP_NORM = 0.1  # at most: below the norm of any gradient, so that clipping acts
WARMUP_STEPS = 10
BATCH_SIZE = 8  # at most: more examples make no operation more visible


@dataclass(frozen=True)
class Side:
    """backend[:precision[:device]]; what is left out is the trial's own."""

    backend: str
    precision: str | None = None
    device: str | None = None

    def __str__(self) -> str:
        return ":".join(filter(None, (self.backend, self.precision, self.device)))


def read_pair(text: str) -> tuple[Side, Side]:
    """Raises: MixlabError: it is not two sides, or names an unknown backend or precision."""
    sides = []
    for part in text.split(","):
        backend, _, rest = part.strip().partition(":")
        precision, _, device = rest.partition(":")
        if backend not in backends.names():
            raise MixlabError(f"{COMMAND_LINE}: --pair: {part!r}: {choices(backend, backends.names())}")
        if precision and precision not in contract.PRECISION:
            raise MixlabError(f"{COMMAND_LINE}: --pair: {part!r}: {choices(precision, contract.PRECISION)}")
        sides.append(Side(backend, precision or None, device or None))
    if len(sides) != 2:
        raise MixlabError(
            f"{COMMAND_LINE}: --pair: {text!r} came where two of backend[:precision[:device]] are allowed, "
            f"with a comma between them"
        )
    return sides[0], sides[1]


def read_pythons(given: Sequence[str], pair: Sequence[Side]) -> dict[str, str]:
    """backend=path of its interpreter, as a mapping.

    Raises: MixlabError: it is not that, or the backend is on neither side.
    """
    in_pair = [side.backend for side in pair]
    pythons = dict(part.split("=", 1) for part in given if "=" in part)
    for part in given:
        backend, _, path = part.partition("=")
        if not os.access(path, os.X_OK) or not Path(path).is_file():
            raise MixlabError(
                f"{COMMAND_LINE}: --python: {part!r} came where backend=path is allowed, the path one of an interpreter"
            )
        if backend not in in_pair:
            raise MixlabError(f"{COMMAND_LINE}: --python: {part!r}: {choices(backend, in_pair)}")
    return pythons


def whole(config: TrialConfig, num_steps: int) -> TrialConfig:
    """A trial's config with every part that can differ switched on, and a run of so many steps of small batches.

    The learning rate follows the square root of the batch size: at the rate of a large batch, the noise of a small one
    makes a trajectory chaotic, and rounding alone would part the two sides within 200 steps.
    """
    batch_size = min(config.train.batch_size, BATCH_SIZE)
    model: dict[str, Any] = {name: value for name, value in CHANCE.items() if not getattr(config.model, name)}
    augment: dict[str, Any] = {n: value for n, value in AUGMENT.items() if not getattr(config.data.augment, n)}
    train: dict[str, Any] = {
        "steps": num_steps,
        "epochs": None,
        "batch_size": batch_size,
        "learning_rate": config.train.learning_rate * math.sqrt(batch_size / config.train.batch_size),
        "warmup_steps": min(config.train.warmup_steps or WARMUP_STEPS, num_steps // 2),
        "clip_norm": min(config.train.clip_norm or 1.0, CLIP_NORM),
        "weight_decay": config.train.weight_decay or 0.05,
        "label_smoothing": config.train.label_smoothing or 0.1,
        "ema_decay": config.train.ema_decay or 0.9,
        "evaluate_every": None,
    }
    data = dataclasses.replace(
        config.data, augment=AugmentConfig(**{**dataclasses.asdict(config.data.augment), "flip": True, **augment})
    )
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **model),
        data=data,
        train=dataclasses.replace(config.train, **train),
    )


def conditions(trial: Trial) -> str:
    """How the sides train a trial, where that is another way than the trial's own."""
    train, augment = trial.train, trial.data.augment
    return (
        f"batches of {train.batch_size}, learning rate {train.learning_rate:.3g}, clipped to {train.clip_norm:g}, "
        f"dropout {trial.model.dropout:g}, stochastic depth {trial.model.stochastic_depth:g}, flip, "
        f"crop {augment.crop}, mixup {augment.mixup:g}, weight decay {train.weight_decay:g}, "
        f"average {train.ema_decay:g}"
    )


def trials(ablation: Ablation, num_steps: int, cache: Path) -> list[GridTrial]:
    """A trial for each model, optimizer and kind of data of an ablation, whatever seeds and backends it has."""
    found: dict[Any, GridTrial] = {}
    for point, config in configs(ablation):
        trial = resolved(whole(config, num_steps), cache, ablation.where)
        info = dataclasses.replace(trial.info, content="", num_train=0, num_validation=0, num_test=0)
        key = (trial.model, trial.optimizer.structure(), trial.train.precision, info, trial.data.permutation)
        settings = {name: value for name, value in point.items() if name not in ("seed", "backend")}
        found.setdefault(key, GridTrial(trial, settings))
    return list(found.values())


def ladders(
    trials: Sequence[Trial], pair: tuple[Side, Side], num_steps: int, cache: Path, pythons: Mapping[str, str]
) -> Generator[Ladder]:
    """A ladder for each trial, in order; both sides are at work, each in a process of its own for all of them.

    Args:   pythons: the interpreter of a backend, where it is not this one's.
    Raises: MixlabError: in a rung, what a side found wrong or how its process ended.
    """
    with tempfile.TemporaryDirectory(prefix="mixlab-parity-") as root:
        jobs = [
            [_job(trial, side, num_steps, cache, Path(root) / name / f"{i:05}") for i, trial in enumerate(trials)]
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


def _job(trial: Trial, side: Side, num_steps: int, cache: Path, folder: Path) -> Job:
    folder.mkdir(parents=True)
    train = dataclasses.replace(trial.train, precision=side.precision or trial.train.precision)
    run = dataclasses.replace(trial.run, device=side.device or trial.run.device)
    return Job(dataclasses.replace(trial, backend=side.backend, train=train, run=run), num_steps, cache, folder)


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
    """Raises: MixlabError: a side has ended without the file."""
    for job, process in zip(jobs, processes, strict=True):
        while not (job.folder / file).exists():
            mistake, ended = job.folder / "mistake.json", process.poll() is not None
            if mistake.exists():
                raise MixlabError(json.loads(mistake.read_text()))
            if ended and not (job.folder / file).exists():
                said = (job.folder.parent / "output.txt").read_text(errors="replace").strip().splitlines()
                raise MixlabError(
                    f"parity: the process of {job.trial.backend} ended with exit code {process.returncode}: "
                    f"{said[-1] if said else 'it said nothing'}"
                )
            time.sleep(POLL_S)
