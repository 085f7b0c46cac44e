"""The memory that a trial is estimated to need, against the peak that it reaches in a process of its own."""

import math
import os
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import backends
from backends.errors import MixlabError, choices
from experiments import data
from experiments.bench import process
from experiments.design.ablation import COMMAND_LINE
from experiments.machine import malloc, memory
from experiments.machine.environment import ROOT
from experiments.running.events import Ended, Told
from experiments.running.opener import WorkerSpec
from experiments.running.worker import Worker
from experiments.spec import fields
from experiments.spec.config import TrialConfig
from experiments.spec.resolve import resolve
from experiments.spec.trial import Trial

# A step of about half a GiB on a CPU, and of a second or two. Nothing is left to defaults that a model's ratios decide.
BASE: Mapping[str, Any] = {
    "model.patch_size": 4,
    "model.hidden_dim": 256,
    "model.num_blocks": 4,
    "model.tokens_mlp_dim": 128,
    "model.channels_mlp_dim": 1024,
    "data.source": "synthetic",
    "data.image_size": 32,
    "data.num_examples": 400,
    "train.steps": 2,
    "train.batch_size": 128,
    "train.evaluate_every": 2,
    "train.evaluate_train_examples": 64,
    "run.checkpoint_every_s": 0.001,
}
# Each differs from BASE in what a part of the estimate speaks of.
EIGHT: Mapping[str, Mapping[str, Any]] = {
    "float32": {},
    "bfloat16": {"train.precision": "bfloat16"},
    "remat": {"run.remat": True, "model.num_blocks": 8, "train.batch_size": 256},
    "dropout": {"model.dropout": 0.1},
    "untied": {"model.token_mixing": "untied"},
    "data": {"data.image_size": 224, "data.num_examples": 1500, "model.patch_size": 32, "train.batch_size": 16},
    "parameters": {"model.hidden_dim": 1024, "model.channels_mlp_dim": 3072, "train.batch_size": 8},
    "evaluation": {"model.patch_size": 2, "model.num_blocks": 2, "train.batch_size": 16},
}
# A program of the same kind, with next to no arrays: what is left after it is the framework's own.
TINY: Mapping[str, Any] = {
    **BASE,
    "model.hidden_dim": 8,
    "model.num_blocks": 1,
    "model.tokens_mlp_dim": 4,
    "model.channels_mlp_dim": 8,
    "train.batch_size": 8,
    "data.num_examples": 40,
    "data.image_size": 8,
}


@dataclass(frozen=True)
class Measured:
    """What a trial was estimated to need and what it took, in bytes."""

    estimate_bytes: int
    peak_bytes: int

    @property
    def ratio(self) -> float:
        """The estimate in units of the peak: 1 is right, below it nothing says that a trial will not fit."""
        return self.estimate_bytes / self.peak_bytes


def measure(name: str, backend: str, device: str = "cpu") -> Measured:
    """Train a trial in a fresh process, and hold its peak of memory against the estimate that admits it.

    The process trains as a worker of `mixlab run` does: it takes the trial's steps, evaluates, and saves; then it is
    gone, so nothing of it disturbs what is measured next. On a CPU the peak is the highest resident memory of the
    process, less what it holds after a tiny trial of the same kind; on a GPU it is the peak of the program's arrays,
    less that of the tiny one. It has no time limit: whoever calls sets one, as a driver may hang.

    Args:   name: a key of EIGHT.
    Raises: MixlabError: no such setting, the backend or the device is not there, the trial fails, or its process dies.
    """
    settings = _settings(name, backend, device)
    with tempfile.TemporaryDirectory() as folder:
        try:
            # As a run starts a worker.
            measured = process.answer(_measured, settings, Path(folder), started=malloc.large_pages())
        except process.Died as error:
            raise MixlabError(
                f"memory: the process {error}; its last words are above; -9 often means that it ran out of memory"
            ) from error
    assert isinstance(measured, Measured)
    return measured


def _settings(name: str, backend: str, device: str) -> dict[str, Any]:
    if name not in EIGHT:
        raise MixlabError(f"{COMMAND_LINE}: expected a setting, got {name!r}; {choices(name, EIGHT)}")
    return {**BASE, **EIGHT[name], "backend": backend, "run.device": device}


def _resolved(settings: Mapping[str, Any], cache: Path) -> Trial:
    config = fields.set_fields(TrialConfig(), fields.typed(dict(settings), COMMAND_LINE))
    return resolve(config, data.describe(config.data, cache, COMMAND_LINE), COMMAND_LINE)


def _measured(settings: Mapping[str, Any], folder: Path) -> Measured:
    """Measure in this process."""
    cache = folder / "data"
    trial = _resolved(settings, cache)
    cpus = tuple(sorted(os.sched_getaffinity(0))[: trial.run.threads or None])  # as those of a worker
    os.sched_setaffinity(0, cpus)
    spec = WorkerSpec(trial.backend, cpus, folder / "runs", cache, {}, ROOT, time.monotonic())
    events: list[Told] = []
    worker = Worker(spec, threading.Event(), events.append)
    worker.opener.room = math.inf  # as where memory is short, which is when the estimate decides
    run = {f"run.{name}": getattr(trial.run, name) for name in ("device", "compile", "threads")}
    same = {"backend": trial.backend, "train.precision": trial.train.precision, **run}
    tiny = _resolved({**TINY, **same}, cache)
    data.load(trial.data, trial.info, cache)  # decoding is not what is measured
    before = _peak(worker, tiny, events)
    if backends.load(trial.backend).free_memory_bytes(worker.opener.run_spec(trial)) is None:
        memory.give_back()
        before = memory.resident_bytes()
    peak = _peak(worker, trial, events)
    return Measured(worker.opener.needed_bytes, peak - before)


def _peak(worker: Worker, trial: Trial, events: Sequence[Told]) -> int:
    """The peak that the record of a trial has.

    Args:   events: what the worker tells.
    Raises: MixlabError: the trial failed.
    """
    worker.run(trial)
    failures = [event.failure.reason for event in events if isinstance(event, Ended) and event.failure]
    if failures:
        raise MixlabError(f"memory: trial {trial.id} failed: {failures[-1]}")
    return int((worker.store.record(trial.id) or {})["peak_memory_bytes"])
