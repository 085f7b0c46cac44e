"""A process that trains one trial after another on one backend, so that imports and compilation are paid once.

It talks to its parent over a pipe: trials come in, events go out. When the parent dies it ends at once; the store is
safe against that at any instant.
"""

import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import backends
from backends.contract import ArrayDataset, RunSpec
from backends.errors import Diverged, MixlabError
from experiments import data, decoded
from experiments.claims import Claim, ClaimLost
from experiments.data import Splits
from experiments.environment import ROOT
from experiments.record import is_final, make_record
from experiments.spec import Trial, trial_from_json
from experiments.store import Store
from experiments.trial import Stopped, TrialRun

# Events: (kind, trial id or None, detail). "error" is a mistake that stops the whole run; "failed" is one trial's, and
# so is "crashed", after which this process is not used again.
Event = tuple[str, str | None, Any]


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker needs to know before its first trial."""

    backend: str  # which is another than a trial's own where the trial goes on in another framework
    cpus: tuple[int, ...]
    store: Path
    cache: Path  # of decoded images
    environment: dict[str, Any]
    root: Path  # of the code that the parent runs


def main(spec: WorkerSpec, connection: Connection) -> None:
    """Run trials until the parent says stop or goes away."""
    assert spec.root == ROOT, f"the parent's code is in {spec.root}, this worker's in {ROOT}"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to parent and workers; the parent decides
    os.sched_setaffinity(0, spec.cpus)  # XLA takes its number of threads from here
    stop, trials = threading.Event(), queue.SimpleQueue[dict[str, Any] | None]()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_listen, args=(connection, stop, trials), daemon=True).start()
    worker = Worker(spec, stop, connection.send)
    while (fields := trials.get()) is not None:
        worker.run(trial_from_json(fields))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # all is written; a framework takes up to a second to take itself down


def _listen(connection: Connection, stop: threading.Event, trials: "queue.SimpleQueue[dict[str, Any] | None]") -> None:
    while True:
        try:
            kind, detail = connection.recv()
        except (EOFError, OSError):
            os._exit(1)
        if kind == "stop":
            stop.set()
        trials.put(detail if kind == "run" else None)


class Worker:
    """Trains trials; keeps the data that they share."""

    def __init__(self, spec: WorkerSpec, stop: threading.Event, send: Callable[[Event], None]):
        self.spec, self.stop, self.send = spec, stop, send
        self.store = Store(spec.store)
        self.datasets: dict[Any, ArrayDataset] = {}

    def run(self, trial: Trial) -> None:
        """Run one trial to its end and tell the parent what came of it."""
        try:
            claim = Claim(self.store.folder(trial.id))
        except ClaimLost:
            return self.send(("busy", trial.id, None))
        except MixlabError as error:
            return self.send(("error", trial.id, str(error)))
        event: Event
        try:
            with claim.kept():
                event = self._run_claimed(trial, claim)
        except MixlabError as error:
            event = ("error", trial.id, str(error))
        claim.release()
        self.send(event)

    def _run_claimed(self, trial: Trial, claim: Claim) -> Event:
        if (record := self.store.record(trial.id)) is not None and is_final(record):
            # another process has ended it since this run was planned
            return (str(record["status"]), trial.id, record["reason"] or record["notes"])
        started, run, about, kind = time.time(), None, None, None
        outcome: dict[str, Any] = {"status": "done", "reason": None}
        try:
            program, about, splits = self._open(trial)
            self.store.begin(trial, {**self.spec.environment, "backend": about})
            session = {name: self.spec.environment.get(name) for name in ("commit", "dirty", "host")}
            run = TrialRun(trial, self.store, claim, splits, program, {**session, "backend": about})
            run.run(self.stop.is_set, lambda said: self.send(("note" if "note" in said else "step", trial.id, said)))
        except Stopped:
            return ("stopped", trial.id, None)
        except ClaimLost:
            return ("busy", trial.id, None)
        except MixlabError:
            raise
        except Diverged as error:
            outcome = {"status": "failed", "reason": str(error)}
        except Exception as error:
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            outcome, kind = {"status": "failed", "reason": reason, "traceback": traceback.format_exc()}, "crashed"
        environment = {**self.spec.environment, "backend": about}
        self.store.finish(trial.id, make_record(trial, outcome, environment, started, run.result() if run else None))
        return (kind or str(outcome["status"]), trial.id, outcome["reason"] or (run.notes if run else []))

    def _open(self, trial: Trial) -> tuple[Any, dict[str, str], Splits]:
        splits = data.load(trial.data, trial.info, self.spec.cache)
        backend, run = backends.load(self.spec.backend), self._run_spec(trial)
        program = backend.open(trial.model, trial.optimizer, self._dataset(trial, splits), run)
        return program, {"name": self.spec.backend, **backend.about(run)}, splits

    def _run_spec(self, trial: Trial) -> RunSpec:
        run = trial.run
        threads = run.threads or len(self.spec.cpus)
        return RunSpec(run.device, trial.train.precision, run.compile, run.deterministic, threads)

    def _dataset(self, trial: Trial, splits: Splits) -> ArrayDataset:
        """The same object for trials of the same images, so that a backend places them on its device once."""
        model, config = trial.model, trial.data
        order_key = (config.permutation, model.patch_size, config.split_seed) if config.permutation != "none" else None
        key = (trial.info.content, order_key)
        if key not in self.datasets:
            decoded.check_memory(splits.about, config.source, f"trial {trial.id}")
            self.datasets.clear()
            order = data.pixel_order(config.permutation, model.image_size, model.patch_size, config.split_seed)
            self.datasets[key] = ArrayDataset(np.asarray(splits.images), np.asarray(splits.labels), order)
        return self.datasets[key]
