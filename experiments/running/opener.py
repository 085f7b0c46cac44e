"""Programs of trials in one process: their images, the memory that they need, and what later trials use again."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import backends
from backends.contract import ArrayDataset, Program
from backends.errors import MixlabError
from backends.microbatches import ALONE, Group
from backends.specs import RunSpec
from experiments import data
from experiments.data import Splits
from experiments.files import StoreError
from experiments.machine import malloc, memory
from experiments.running import fit, storage
from experiments.running.failures import DataMissing
from experiments.running.rendezvous import Rendezvous
from experiments.running.storage import Stored
from experiments.spec.config import AUTO
from experiments.spec.trial import Trial
from experiments.training import host

# Memory that is free, in units of what a trial needs, from which on holes in it do no harm: each worker may take up to
# HOLES times what its trial needs then, and all ask before the others have begun.
HOLES, SPARE = 3.0, 5.0


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
    device: str | None = None  # in place of a trial's own; `cuda:1`, `auto:1`, `tpu:1` show the process that one alone
    compile_cache: Path | None = None  # of compiled programs, in place of a trial's own
    num_workers: int = 1  # of the machine, at a time
    others: tuple["WorkerSpec", ...] = ()  # of the processes that train each trial together with this one
    rendezvous: Rendezvous | None = None  # where those are met that other tasks start
    num_here: int = 1  # processes on this machine that train each trial together, this one included

    @property
    def num_devices(self) -> int:
        """Processes that train each trial together."""
        return self.rendezvous.size if self.rendezvous else 1 + len(self.others)


@dataclass
class Spending:
    """Seconds by phase, see pool.PHASES."""

    seconds: dict[str, float]

    @contextlib.contextmanager
    def on(self, phase: str) -> Iterator[None]:
        """Add the time inside."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - start


@dataclass(frozen=True)
class Opened:
    """A program, what its backend says of itself, and the images of the trial."""

    program: Program
    about: dict[str, str]
    stored: Stored


class Opener:
    """Opens programs; keeps the data that trials share."""

    def __init__(self, spec: WorkerSpec, spending: Spending, check_stop: Callable[[], None], group: Group = ALONE):
        """Args: check_stop: called while images are read, which may take minutes; raises to end it."""
        self.spec, self.spending, self.check_stop, self.group = spec, spending, check_stop, group
        self.held: tuple[Any, Stored] | None = None  # the images of the last trial
        self.datasets: dict[Any, ArrayDataset] = {}
        self.placed: ArrayDataset | None = None  # what lies on the device
        self.needed_bytes = 0  # the estimate by which the last trial was admitted
        self.room = SPARE + HOLES * spec.num_workers

    def open(self, trial: Trial, number: int) -> Opened:
        """A program for a trial, or for so many like it.

        Raises: DoesNotFit.    DataMissing.    MixlabError: the device is not there, or the cache cannot be written.
        """
        with self.spending.on("import"):
            backend, run = backends.load(self.spec.backend), self.run_spec(trial)
        free = backend.free_memory_bytes(run)
        with self.spending.on("data"):
            stored = self.stored(trial, free)
            dataset = self.dataset(trial, stored)
        known = fit.known_bytes(backend, trial, dataset, stored.splits.train, run, number)
        is_placed = dataset is self.placed
        streams, here = stored.source is not None, self.spec.num_here
        self.needed_bytes = fit.check(trial, free, is_placed, known, number, streams, here)
        memory.reset_peak()  # what compiling took to know the needed memory is not the trial's
        malloc.give_back_at_once(run.remat, self.room * self.needed_bytes <= memory.available_bytes())
        with self.spending.on("open"):
            program = backend.open(trial.model, trial.optimizer, dataset, run)
        self.placed = dataset
        return Opened(program, {"name": self.spec.backend, **backend.about(run)}, stored)

    def run_spec(self, trial: Trial) -> RunSpec:
        """Where and how the trial runs here."""
        device = self.spec.device.partition(":")[0] if self.spec.device else None
        return trial.run_spec(len(self.spec.cpus), device, self.spec.compile_cache, self.group)

    def stored_as_here(self, trial: Trial) -> Trial:
        """The trial with the storage that this process finds room for, which all of its group are to take.

        Raises: DataMissing.    MixlabError: see storage.choose.
        """
        with self.spending.on("import"):
            free = backends.load(self.spec.backend).free_memory_bytes(self.run_spec(trial))
        with self.spending.on("data"):
            how = self._storage(trial, self._load(trial), free)
        return replace(trial, data=replace(trial.data, storage=how))

    def _storage(self, trial: Trial, splits: Splits, free_bytes: int | None) -> str:
        if self.held and self.held[0] == _images_of(trial) and trial.data.storage == AUTO:
            return self.held[1].storage
        return storage.choose(trial, splits, free_bytes, self.spec.num_here)

    def stored(self, trial: Trial, free_bytes: int | None) -> Stored:
        """The images of a trial, where it reads them from; trials of the same images share them."""
        splits, key = self._load(trial), _images_of(trial)
        how = self._storage(trial, splits, free_bytes)
        if not (self.held and self.held[0] == key and how == self.held[1].storage):
            self.held = None  # first let go of what is not read again
            self.held = (key, storage.stored(trial, splits, how, self.spec.cache, self.check_stop))
        held = self.held[1]
        return replace(held, splits=replace(splits, images=held.splits.images))

    def dataset(self, trial: Trial, stored: Stored) -> ArrayDataset:
        """The same object for trials of the same images, so that a backend places them on its device once."""
        model, config = trial.model, trial.data
        order_key = (config.permutation, model.patch_size, config.split_seed) if config.permutation != "none" else None
        splits, streams = stored.splits, stored.source is not None
        key = (trial.info.content, order_key, streams)
        if key not in self.datasets:
            self.datasets.clear()
            order = data.pixel_order(config.permutation, model.image_size, model.patch_size, config.split_seed)
            images = np.empty((0, *splits.images.shape[1:]), np.uint8) if streams else np.asarray(splits.images)
            self.datasets[key] = ArrayDataset(images, np.asarray(splits.labels), order)
        return self.datasets[key]

    def _load(self, trial: Trial) -> Splits:
        try:
            return data.load(trial.data, trial.info, self.spec.cache)
        except StoreError:
            raise
        except MixlabError as error:
            raise DataMissing(str(error)) from error


def _images_of(trial: Trial) -> tuple[Any, ...]:
    """What trials share that read the same images in the same way."""
    augment = trial.data.augment
    return trial.info.content, host.needed(augment), bool(augment.inception)
