"""A process that trains one trial after another on one backend, so that imports and compilation are paid once.

It talks to its parent over a pipe: trials come in, events go out. When the parent dies it ends at once; the store is
safe against that at any instant.
"""

import contextlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import backends
from backends.contract import ArrayDataset
from backends.errors import Diverged, MixlabError
from backends.specs import RunSpec
from experiments import data
from experiments.data import Splits, limits
from experiments.files import StoreError
from experiments.machine import malloc
from experiments.machine.environment import ROOT
from experiments.results import checkpoint
from experiments.results.claims import Claim, ClaimLost
from experiments.results.record import is_final, make_record
from experiments.results.store import Store
from experiments.running import fit
from experiments.running.events import Ended, Event, Noted, Order, Spent, Started, Stop, Train
from experiments.running.failures import DataMissing, DoesNotFit, Failure, failure
from experiments.spec.trial import Trial
from experiments.training.loop import Stopped, TrialRun


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker needs to know before its first trial."""

    backend: str  # which is another than a trial's own where the trial goes on in another framework
    cpus: tuple[int, ...]
    store: Path
    cache: Path  # of decoded images
    environment: dict[str, Any]
    root: Path  # of the code that the parent runs
    hired_s: float  # time.monotonic() of the parent when it began this worker: all processes of a machine share it
    device: str | None = None  # in place of a trial's own; `cuda:1`, `auto:1` show the process that GPU alone
    compile_cache: Path | None = None  # of compiled programs, in place of a trial's own


def main(spec: WorkerSpec, connection: Connection) -> None:
    """Run trials until the parent says stop or goes away."""
    assert spec.root == ROOT, f"the parent's code is in {spec.root}, this worker's in {ROOT}"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to parent and workers; the parent decides
    os.sched_setaffinity(0, spec.cpus)  # XLA takes its number of threads from here
    _show_one_gpu(spec.device)
    stop, trials = threading.Event(), queue.SimpleQueue[Trial | None]()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_listen, args=(connection, stop, trials), daemon=True).start()
    worker, has_compiled = Worker(spec, stop, connection.send), False
    while (trial := trials.get()) is not None:
        has_compiled |= trial.run.compile
        worker.run(trial)
    if has_compiled:
        return  # and let Inductor put its semaphores away, or Python warns of them
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # all is written; a framework takes up to a second to take itself down


def _listen(connection: Connection, stop: threading.Event, trials: "queue.SimpleQueue[Trial | None]") -> None:
    while True:
        try:
            order: Order = connection.recv()
        except (EOFError, OSError):
            os._exit(1)
        if isinstance(order, Stop):
            stop.set()
        trials.put(order.trial if isinstance(order, Train) else None)


def _show_one_gpu(device: str | None) -> None:
    """Hide all GPUs but the one that is named by its place among those that this process was given."""
    index = (device or "").partition(":")[2]
    if index:
        given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        os.environ["CUDA_VISIBLE_DEVICES"] = given[int(index)] if int(index) < len(given) else index


def _as_recorded(trial_id: str, record: dict[str, Any]) -> Ended:
    if record["status"] == "done":
        return Ended(trial_id, "done")
    return Ended(trial_id, "failed", Failure(str(record.get("cause", "error")), str(record["reason"])))


class Worker:
    """Trains trials; keeps the data that they share."""

    def __init__(self, spec: WorkerSpec, stop: threading.Event, send: Callable[[Event], None]):
        self.spec, self.stop, self.send = spec, stop, send
        self.store = Store(spec.store)
        self.datasets: dict[Any, ArrayDataset] = {}
        self.spent = {"start": time.monotonic() - spec.hired_s}

    def run(self, trial: Trial) -> None:
        """Run one trial to its end and tell the parent what came of it."""
        self.send(Started(trial.id, checkpoint.newest_step(self.store.checkpoint(trial.id))))
        try:
            claim = Claim(self.store.folder(trial.id))
        except ClaimLost:
            return self.send(Ended(trial.id, "busy"))
        except MixlabError as error:
            return self.send(Ended(trial.id, "error", failure(error)))
        try:
            with claim.kept():
                ended = self._run_claimed(trial, claim)
        except MixlabError as error:
            ended = Ended(trial.id, "error", failure(error))
        claim.release()
        self.send(Spent(self.spent))
        self.spent = {}
        self.send(ended)

    @contextlib.contextmanager
    def _spending(self, phase: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.spent[phase] = self.spent.get(phase, 0.0) + time.monotonic() - start

    def _run_claimed(self, trial: Trial, claim: Claim) -> Ended:
        record, sentence = self.store.record_or_set_aside(trial.id)
        if sentence:
            self.send(Noted(trial.id, sentence))
        if record is not None and is_final(record):
            return _as_recorded(trial.id, record)  # another process has ended it since this run was planned
        started, run, about, failed, trace = time.time(), None, None, None, {}
        try:
            program, about, splits = self._open(trial)
            with self._spending("data"):
                source = data.in_record(trial.data, trial.info, self.spec.cache)
            self.store.begin(trial, {**self.spec.environment, "backend": about})
            session = {name: self.spec.environment.get(name) for name in ("commit", "dirty", "host")}
            run = TrialRun(trial, self.store, claim, splits, program, {**session, "backend": about})
            run.run(self.stop.is_set, self.send)
            self.spent |= run.spent
        except Stopped:
            return Ended(trial.id, "stopped")
        except ClaimLost:
            return Ended(trial.id, "busy")
        except MixlabError:
            raise
        except Exception as error:
            failed = failure(error)
            trace = {} if isinstance(error, (Diverged, DoesNotFit)) else {"traceback": traceback.format_exc()}
        outcome = {**failed.outcome, **trace} if failed else {"status": "done", "reason": None}
        environment = {**self.spec.environment, "backend": about}
        with self._spending("record"):
            result = {"data": source, **run.result()} if run else None
            try:
                written = self.store.finish(trial.id, make_record(trial, outcome, environment, started, result), claim)
            except ClaimLost:
                return Ended(trial.id, "busy")
        if not written and (record := self.store.sound_record(trial.id)) is not None:
            return _as_recorded(trial.id, record)
        return Ended(trial.id, "crashed" if trace else "failed" if failed else "done", failed)

    def _open(self, trial: Trial) -> tuple[Any, dict[str, str], Splits]:
        with self._spending("data"):
            splits = self._load(trial)
            dataset = self._dataset(trial, splits)
        with self._spending("import"):
            backend, run = backends.load(self.spec.backend), self._run_spec(trial)
        fit.check(trial, backend.free_memory_bytes(run))
        malloc.give_back_at_once(run.remat)
        with self._spending("open"):
            program = backend.open(trial.model, trial.optimizer, dataset, run)
        return program, {"name": self.spec.backend, **backend.about(run)}, splits

    def _load(self, trial: Trial) -> Splits:
        try:
            return data.load(trial.data, trial.info, self.spec.cache)
        except StoreError:
            raise
        except MixlabError as error:
            raise DataMissing(str(error)) from error

    def _run_spec(self, trial: Trial) -> RunSpec:
        device = self.spec.device.partition(":")[0] if self.spec.device else None
        return trial.run_spec(len(self.spec.cpus), device, self.spec.compile_cache)

    def _dataset(self, trial: Trial, splits: Splits) -> ArrayDataset:
        """The same object for trials of the same images, so that a backend places them on its device once."""
        model, config = trial.model, trial.data
        order_key = (config.permutation, model.patch_size, config.split_seed) if config.permutation != "none" else None
        key = (trial.info.content, order_key)
        if key not in self.datasets:
            limits.check_memory(splits.about, config.source, f"trial {trial.id}")
            self.datasets.clear()
            order = data.pixel_order(config.permutation, model.image_size, model.patch_size, config.split_seed)
            self.datasets[key] = ArrayDataset(np.asarray(splits.images), np.asarray(splits.labels), order)
        return self.datasets[key]
