"""The memory that a trial is estimated to need, against the peak that it reaches in a process of its own."""

import math
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import backends
from backends.errors import MixlabError, choices, show_chain
from experiments import data
from experiments.design.ablation import COMMAND_LINE
from experiments.machine import malloc, memory
from experiments.machine.environment import ROOT
from experiments.running.events import Ended, Event
from experiments.running.worker import Worker, WorkerSpec
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

_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Measured:
    """What a trial was estimated to need and what it took, in bytes."""

    estimate_bytes: int
    peak_bytes: int

    @property
    def ratio(self) -> float:
        """The estimate in units of the peak: 1 is right, below it nothing says that a trial will not fit."""
        return self.estimate_bytes / self.peak_bytes


def measure(
    name_or_trial: str | Trial,
    backend: str | None = None,
    device: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Measured:
    """Train a trial in a fresh process, and hold its peak of memory against the estimate that admits it.

    The process trains as a worker of `mixlab run` does: it takes the trial's steps, evaluates, and saves; then it is
    gone, so nothing of it disturbs what is measured next. On a CPU the peak is the highest resident memory of the
    process, less what it holds after a tiny trial of the same kind; on a GPU it is the peak of the program's arrays,
    less that of the tiny one. It has no time limit: whoever calls sets one, as a driver may hang.

    Args:   name_or_trial: a key of EIGHT, which needs a backend, or any trial.
            backend, device: in place of the trial's own; a key of EIGHT is measured on the CPU if no device is given.
            overrides: fields by dotted name, over those of a key of EIGHT.
    Raises: MixlabError: no such setting, the backend or the device is not there, the trial fails, or its process dies.
    """
    connection, theirs = _CONTEXT.Pipe()
    arguments = (_wanted(name_or_trial, backend, device, overrides or {}), theirs)
    process = _CONTEXT.Process(target=_main, args=arguments, name="memory", daemon=True)
    with malloc.large_pages():  # as a run starts a worker
        process.start()
    theirs.close()
    try:
        answer = connection.recv()
    except (EOFError, OSError) as error:
        process.join()
        raise MixlabError(
            f"memory: the process ended with exit code {process.exitcode}; its last words are above; -9 often means "
            f"that it ran out of memory"
        ) from error
    finally:
        process.kill()
        process.join()
    if isinstance(answer, MixlabError):
        raise answer
    assert isinstance(answer, Measured)
    return answer


def _wanted(
    name_or_trial: str | Trial, backend: str | None, device: str | None, overrides: Mapping[str, Any]
) -> Trial | dict[str, Any]:
    """What the process is to measure: a trial, or the fields of one, whose data it makes itself."""
    if isinstance(name_or_trial, Trial):
        own = name_or_trial
        return replace(own, backend=backend or own.backend, run=replace(own.run, device=device or own.run.device))
    if name_or_trial not in EIGHT:
        raise MixlabError(f"{COMMAND_LINE}: expected a setting, got {name_or_trial!r}; {choices(name_or_trial, EIGHT)}")
    assert backend is not None, "a setting names no backend"
    return {**BASE, **EIGHT[name_or_trial], **overrides, "backend": backend, "run.device": device or "cpu"}


def _main(wanted: Trial | dict[str, Any], connection: Connection) -> None:
    """Measure in this process, and answer with what was measured or a MixlabError."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with tempfile.TemporaryDirectory() as folder:
            cache = Path(folder) / "data"
            trial = wanted if isinstance(wanted, Trial) else _resolved(wanted, cache)
            connection.send(_measured(trial, Path(folder), cache))
    except MixlabError as error:
        show_chain(error)
        connection.send(MixlabError(str(error)))


def _resolved(settings: Mapping[str, Any], cache: Path) -> Trial:
    config = fields.set_fields(TrialConfig(), fields.typed(dict(settings), COMMAND_LINE))
    return resolve(config, data.describe(config.data, cache, COMMAND_LINE), COMMAND_LINE)


def _measured(trial: Trial, folder: Path, cache: Path) -> Measured:
    cpus = tuple(sorted(os.sched_getaffinity(0))[: trial.run.threads or None])  # as those of a worker
    os.sched_setaffinity(0, cpus)
    spec = WorkerSpec(trial.backend, cpus, folder / "runs", cache, {}, ROOT, time.monotonic())
    events: list[Event] = []
    worker = Worker(spec, threading.Event(), events.append)
    worker.room = math.inf  # as where memory is short, which is when the estimate decides
    run = {f"run.{name}": getattr(trial.run, name) for name in ("device", "compile", "threads")}
    same = {"backend": trial.backend, "train.precision": trial.train.precision, **run}
    tiny = _resolved({**TINY, **same}, cache)
    data.load(trial.data, trial.info, cache)  # decoding is not what is measured
    before = _peak(worker, tiny, events)
    if backends.load(trial.backend).free_memory_bytes(worker.run_spec(trial)) is None:
        memory.give_back()
        before = memory.resident_bytes()
    peak = _peak(worker, trial, events)
    return Measured(worker.needed_bytes, peak - before)


def _peak(worker: Worker, trial: Trial, events: Sequence[Event]) -> int:
    """The peak that the record of a trial has.

    Args:   events: what the worker tells.
    Raises: MixlabError: the trial failed.
    """
    worker.run(trial)
    failures = [event.failure.reason for event in events if isinstance(event, Ended) and event.failure]
    if failures:
        raise MixlabError(f"memory: trial {trial.id} failed: {failures[-1]}")
    return int((worker.store.record(trial.id) or {})["peak_memory_bytes"])
