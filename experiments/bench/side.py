"""A process that does one side's work on request, and answers with the seconds that it took."""

import dataclasses
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

import backends
from backends.arrays import Array
from backends.bench import Measured
from backends.contract import ArrayDataset, Program
from backends.errors import MixlabError, show_chain
from backends.models.mixer_spec import MixerSpec
from backends.specs import RunSpec
from experiments.bench import reading
from experiments.machine import malloc, memory
from experiments.spec.trial import Trial
from experiments.training.plan import step_plan
from experiments.training.start import initial_state

TRAIN, PREDICT = "train", "predict"
PRODUCT, COPY = "product", "copy"
READ = "read"
ABOUT = "about"
BATCHES = 4  # of random examples, as the data of a program


@dataclass(frozen=True)
class Side:
    """A side: one alternative of those that are compared.

    what: `program`, our backend; the name of a peer; `product` or `copy`, a ceiling, of `size` rows or bytes; one of
          reading.WORKS, which read a data set, decoded in `cache`.
    """

    backend: str
    trial: Trial
    what: str = "program"
    size: int = 0
    peer_path: Path | None = None
    setting: str = ""  # in which it differs from the others of its backend
    replicas: int = 1  # trials as one program; they differ in their seed
    cache: Path | None = None

    @property
    def batch_size(self) -> int:
        """Images of a step, of all replicas together."""
        return self.replicas * self.trial.train.batch_size

    @property
    def label(self) -> str:
        return f"{self.backend} {self.setting}".strip() if self.what == "program" else self.what


def main(side: Side, cpus: tuple[int, ...], connection: Connection) -> None:
    """Answer (work, times) with its seconds, and `about` with facts on the process, until told to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.sched_setaffinity(0, cpus)
    try:
        start = time.perf_counter()
        works, peak = _open(side)
        connection.send({"open_s": time.perf_counter() - start})
        while (asked := connection.recv()) is not None:
            work, times = asked
            if work == ABOUT:
                run = side.trial.run_spec(len(cpus))
                connection.send(
                    {"peak_memory_bytes": peak() or memory.peak_bytes(), **backends.load(side.backend).about(run)}
                )
                continue
            start = time.perf_counter()
            works[work](times)
            connection.send(time.perf_counter() - start)
    except MixlabError as error:
        show_chain(error)  # a pickled error loses its cause on the way to the parent
        connection.send(error)
    except EOFError:  # the parent has gone
        return


def _open(side: Side) -> tuple[dict[str, Callable[[int], None]], Callable[[], int | None]]:
    run = side.trial.run_spec(len(os.sched_getaffinity(0)))
    if side.what in (PRODUCT, COPY):
        ceiling = getattr(backends.load_ceilings(side.backend), side.what)(run, side.size)

        def reach(times: int) -> None:
            for _ in range(times):
                ceiling()

        reach(1)  # the first call loads and chooses what the others use
        return {side.what: reach}, lambda: None
    if side.what in reading.WORKS:
        assert side.cache is not None
        return {READ: reading.opened(side.what, side.trial, side.cache)}, lambda: None
    measured: Measured
    if side.what == "program":
        malloc.give_back_at_once(run.remat)
        measured = OurLoop(side.trial, run, side.replicas)
    else:
        data, (model, optimizer) = random_data(side.trial, 1), (mixer_of(side.trial), side.trial.optimizer)
        peers = backends.load_peers(side.backend)
        measured = peers.open_peer(side.what, model, optimizer, data, run, side.peer_path)
    return {TRAIN: measured.train, PREDICT: measured.predict}, measured.peak_memory_bytes


def mixer_of(trial: Trial) -> MixerSpec:
    """The model of a trial that is measured beside other people's.

    Raises: MixlabError: it is none with a block of a Mixer.
    """
    if not isinstance(trial.model, MixerSpec):
        raise MixlabError("bench: --peer: the peers are Mixers and ViTs, and this model is none; leave --peer out")
    return trial.model


def random_data(trial: Trial, num_batches: int) -> ArrayDataset:
    model, num_examples = trial.model, num_batches * trial.train.batch_size
    rng = np.random.default_rng(0)
    shape = (num_examples, model.image_size, model.image_size, model.image_channels)
    images: Array = rng.integers(0, 256, shape, np.uint8)
    return ArrayDataset(images, rng.integers(0, model.num_classes, num_examples, np.int32))


class OurLoop:
    """A backend's program, called as a trial calls it, with the gathering of batches; see backends.bench.Measured."""

    def __init__(self, trial: Trial, run: RunSpec, num_replicas: int = 1):
        self.trial, self.data = trial, random_data(trial, BATCHES)
        self.trials = [dataclasses.replace(trial, seed=trial.seed + i) for i in range(num_replicas)]
        optimizer = trial.optimizer
        self.program: Program = backends.load(trial.backend).open(trial.model, optimizer, self.data, run)
        self.program.load([initial_state(one) for one in self.trials])
        self.step = 0

    def train(self, num_steps: int) -> None:
        examples = np.arange(len(self.data.images), dtype=np.int32)
        self.program.train([step_plan(one, examples, self.step, num_steps) for one in self.trials])
        self.step += num_steps

    def predict(self, num_batches: int) -> None:
        images = self.data.images[: self.trial.train.batch_size]
        for _ in range(num_batches):
            self.program.predict(images)

    def peak_memory_bytes(self) -> int | None:
        return self.program.peak_memory_bytes()
