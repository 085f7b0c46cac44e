"""A process that trains one trial after another on one backend, so that imports and compilation are paid once.

It talks to its parent over a pipe: trials come in, events go out. When the parent dies it ends at once; the store is
safe against that at any instant.
"""

import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import backends
from backends.arrays import State
from backends.contract import ArrayDataset, Program
from backends.errors import Diverged, MixlabError
from backends.specs import RunSpec
from experiments import data
from experiments.data import Splits
from experiments.files import StoreError
from experiments.machine import malloc, memory
from experiments.results import checkpoint, curves
from experiments.results.claims import Claim, ClaimLost
from experiments.results.record import is_final, make_record
from experiments.results.store import Store
from experiments.running import fit, replicas, storage
from experiments.running.events import Ended, Event, How, Noted, Returned, Spent, Started
from experiments.running.failures import DataMissing, DoesNotFit, Failure, failure
from experiments.running.storage import Stored
from experiments.spec.config import AUTO
from experiments.spec.trial import Trial
from experiments.training import host
from experiments.training.loop import Loop, Paused, Stopped
from experiments.training.transfer import NoStart, check
from experiments.training.trial_run import TrialRun

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


def as_recorded(trial_id: str, record: dict[str, Any]) -> Ended:
    """What became of a trial that another process has ended."""
    if record["status"] == "done":
        return Ended(trial_id, "done")
    return Ended(trial_id, "failed", Failure(str(record.get("cause", "error")), str(record["reason"])))


@dataclass
class InHand:
    """A trial that this process has claimed, and keeps its claim on until `let_go`."""

    trial: Trial
    claim: Claim
    beating: contextlib.ExitStack
    started: float
    run: TrialRun | None = None

    def let_go(self) -> None:
        self.beating.close()  # before the release: a beat in between would bring the claim back
        self.claim.release()


class Worker:
    """Trains trials; keeps the data that they share."""

    def __init__(self, spec: WorkerSpec, stop: threading.Event, send: Callable[[Event], None]):
        self.spec, self.stop, self.send = spec, stop, send
        self.store = Store(spec.store)
        self.stored: tuple[Any, Stored] | None = None  # the images of the last trial
        self.datasets: dict[Any, ArrayDataset] = {}
        self.placed: ArrayDataset | None = None  # what lies on the device
        self.needed_bytes = 0  # the estimate by which the last trial was admitted
        self.spent = {"start": time.monotonic() - spec.hired_s}
        self.in_hand: list[InHand] = []
        self.about: dict[str, str] | None = None  # what the backend says of itself
        self.source: dict[str, Any] | None = None  # what the record says of the data
        self.peak_bytes: Callable[[], int | None] = lambda: None
        self.room = SPARE + HOLES * spec.num_workers

    def run(self, *trials: Trial, until: int | None = None) -> None:
        """Train trials as one program, as far as they fit, and tell the parent what comes of each.

        Args: until: the step at which they pause; None: to the end.

        What ends one of them is its own. What the program itself raises ends a trial that was alone in it; several are
        given back, to be tried one by one.
        """
        self.about = self.source = None
        together = self._that_fit(trials)
        self.in_hand = [one for trial in together if (one := self._claimed(trial, until))]
        if not self.in_hand:
            return
        number = len(self.in_hand)
        try:
            self._train(together[0], until)
        except Exception as error:
            if number > 1 and self.in_hand:
                self._give_back(number, error)
            for one in list(self.in_hand):
                self._end(one, error)
        finally:
            for one in self.in_hand:  # none, unless this process is about to end
                one.beating.close()
        self.peak_bytes = lambda: None  # or the program would take its memory until the next one is open

    def _give_back(self, number: int, error: Exception) -> None:
        """Give back what is left of a program that has failed. Args: number: of the trials that it had."""
        failed = failure(error)
        sentence = f"a program of {number} trials failed ({failed.reason}); those left of it are tried one by one"
        self.send(Noted(self.in_hand[0].trial.id, sentence))
        for one in list(self.in_hand):
            self._let_go(one, Returned(one.trial.id, 1, failed, crashed=not isinstance(error, MixlabError)))

    def _that_fit(self, trials: Sequence[Trial]) -> Sequence[Trial]:
        """As many of them as go through one program here; the others are given back."""
        self._tell_start(trials[0])
        number = 1
        if len(trials) > 1:
            # what fails here fails again, and is told, where the first trial is opened alone
            with contextlib.suppress(Exception), self._spending("import"):
                free = backends.load(self.spec.backend).free_memory_bytes(self.run_spec(trials[0]))
                number = replicas.number(trials[0], free)
        for trial in trials[number:]:
            self.send(Returned(trial.id, number))
        return trials[:number]

    def _tell_start(self, trial: Trial) -> None:
        self.send(Started(trial.id, checkpoint.newest_step(self.store.checkpoint(trial.id))))

    def _claimed(self, trial: Trial, until: int | None) -> InHand | None:
        """The trial with its claim; None: it is another's, or has ended or paused since this run was planned."""
        try:
            one = InHand(trial, Claim(self.store.folder(trial.id)), contextlib.ExitStack(), time.time())
        except (ClaimLost, MixlabError) as error:
            how: How = "busy" if isinstance(error, ClaimLost) else "error"
            self.send(Ended(trial.id, how, None if how == "busy" else failure(error)))
            return None
        one.beating.enter_context(one.claim.kept())
        try:
            record, sentence = self.store.record_or_set_aside(trial.id)
        except MixlabError as error:
            self._let_go(one, Ended(trial.id, "error", failure(error)))
            return None
        if sentence:
            self.send(Noted(trial.id, sentence))
        if record is not None and is_final(record):
            self._let_go(one, as_recorded(trial.id, record))
        elif until is not None and curves.has_come_to(self.store, trial.id, until):
            self._let_go(one, Ended(trial.id, "paused"))
        elif why := self._no_start(trial):
            self._end(one, why)
        else:
            return one
        return None

    def _no_start(self, trial: Trial) -> NoStart | None:
        """Why a trial that has not begun cannot: before its data is read and its program compiled for nothing."""
        try:
            if not self.store.can_go_on(trial.id):
                check(trial, self.store)
        except NoStart as error:
            return error
        return None

    def _train(self, trial: Trial, until: int | None) -> None:
        """Train what is in hand. Args: trial: the one whose start is told already; it, or one like it, is in hand."""
        program, self.about, stored = self._open(trial)
        with self._spending("data"):
            held = data.in_record(trial.data, trial.info, self.spec.cache)
            self.source = {**held, "storage": stored.storage}
        self.peak_bytes = program.peak_memory_bytes
        by_step = self._restored_by_step(stored.splits)
        for one in self.in_hand:  # by what was compiled to know the memory that they need
            if one.run:
                one.run.progress.seconds["compile"] += program.compile_s / len(self.in_hand)
        for step in list(by_step):  # several where a checkpoint is damaged that looked whole
            loop = self._loaded(by_step.pop(step), program, stored, until)
            for run in loop.runs:
                if run.trial.id != trial.id and not self.stop.is_set():
                    self._tell_start(run.trial)
            for run, ended_by in loop.run(self.stop.is_set):
                self._end(next(one for one in self.in_hand if one.run is run), ended_by)

    def _restored_by_step(self, splits: Splits) -> dict[int, list[tuple[TrialRun, State]]]:
        """What is in hand, and the state of each, by the step that it goes on from; one that has none ends."""
        by_step: dict[int, list[tuple[TrialRun, State]]] = {}
        for one in list(self.in_hand):
            try:
                run, state = self._restored(one, splits)
            except (MixlabError, NoStart) as error:
                self._end(one, error)
                continue
            by_step.setdefault(run.progress.step, []).append((run, state))
        return by_step

    def _loaded(
        self, together: list[tuple[TrialRun, State]], program: Program, stored: Stored, until: int | None
    ) -> Loop:
        """A loop whose states are on the device, and nowhere else: here they are of twice the precision."""
        runs, states = zip(*together, strict=True)
        together.clear()
        threads = max(1, self.run_spec(runs[0].trial).threads // len(runs))
        return Loop(runs, states, program, stored.splits, until, stored.source, threads)

    def _restored(self, one: InHand, splits: Splits) -> tuple[TrialRun, State]:
        self.store.begin(one.trial, self._environment)
        session = {name: self.spec.environment.get(name) for name in ("commit", "dirty", "host")}
        session["backend"] = self.about
        one.run = TrialRun(one.trial, self.store, one.claim, splits, self.send, session)
        return one.run, one.run.restore()

    @property
    def _environment(self) -> dict[str, Any]:
        return {**self.spec.environment, "backend": self.about}

    def _end(self, one: InHand, error: Exception | None) -> None:
        """Record what came of a trial, and let go of it."""
        if one.run:
            for phase, seconds in one.run.spent.items():
                self.spent[phase] = self.spent.get(phase, 0.0) + seconds
        try:
            ended = self._recorded(one, error)
        except MixlabError as unwritten:
            ended = Ended(one.trial.id, "error", failure(unwritten))
        self._let_go(one, ended)

    def _let_go(self, one: InHand, event: Ended | Returned) -> None:
        one.let_go()
        self.in_hand = [other for other in self.in_hand if other is not one]
        self.send(Spent(self.spent))
        self.spent = {}
        self.send(event)

    def _recorded(self, one: InHand, error: Exception | None) -> Ended:
        """What became of a trial, after it is in the record if it is done or failed. Raises: StoreError."""
        key, failed, trace = one.trial.id, None, {}
        if isinstance(error, (Paused, Stopped)):
            return Ended(key, "paused" if isinstance(error, Paused) else "stopped")
        if isinstance(error, ClaimLost):
            return Ended(key, "busy")
        if isinstance(error, MixlabError):
            return Ended(key, "error", self._with_way_on(key, failure(error)))
        if error is not None:
            failed = failure(error)
            is_expected = isinstance(error, (Diverged, DoesNotFit, NoStart))
            trace = {} if is_expected else {"traceback": "".join(traceback.format_exception(error))}
        outcome = {**failed.outcome, **trace} if failed else {"status": "done", "reason": None}
        with self._spending("record"):
            peak = self.peak_bytes() or memory.peak_bytes()
            result = {"data": self.source, **one.run.result(peak)} if one.run else None
            record = make_record(one.trial, outcome, self._environment, one.started, result)
            try:
                written = self.store.finish(key, record, one.claim)
            except ClaimLost:
                return Ended(key, "busy")
        if not written and (theirs := self.store.sound_record(key)) is not None:
            return as_recorded(key, theirs)
        return Ended(key, "crashed" if trace else "failed" if failed else "done", failed)

    def _with_way_on(self, trial_id: str, failed: Failure) -> Failure:
        """The failure; of a trial whose data is lost, with its name, what is saved of it, and how it goes on."""
        if failed.cause != "data_missing":
            return failed
        step = checkpoint.newest_step(self.store.checkpoint(trial_id))
        where = f"it is saved at step {step:,}, and goes on from there" if step else "it begins"
        whose = "" if trial_id in failed.reason else f"trial {trial_id}: "
        return replace(failed, reason=f"{whose}{failed.reason}; {where} when it is run or submitted again")

    @contextlib.contextmanager
    def _spending(self, phase: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.spent[phase] = self.spent.get(phase, 0.0) + time.monotonic() - start

    def _open(self, trial: Trial) -> tuple[Any, dict[str, str], Stored]:
        with self._spending("import"):
            backend, run = backends.load(self.spec.backend), self.run_spec(trial)
        free = backend.free_memory_bytes(run)
        with self._spending("data"):
            stored = self._stored(trial, free)
            dataset = self._dataset(trial, stored)
        number = max(1, len(self.in_hand))
        known = fit.known_bytes(backend, trial, dataset, stored.splits.train, run, number)
        is_placed = dataset is self.placed
        self.needed_bytes = fit.check(trial, free, is_placed, known, number, stored.source is not None)
        memory.reset_peak()  # what compiling took to know the needed memory is not the trial's
        malloc.give_back_at_once(run.remat, self.room * self.needed_bytes <= memory.available_bytes())
        with self._spending("open"):
            program = backend.open(trial.model, trial.optimizer, dataset, run)
        self.placed = dataset
        return program, {"name": self.spec.backend, **backend.about(run)}, stored

    def _stored(self, trial: Trial, free_bytes: int | None) -> Stored:
        """The images of a trial, where it reads them from; trials of the same images share them."""
        splits, augment = self._load(trial), trial.data.augment
        key = (trial.info.content, host.needed(augment), bool(augment.inception))
        if not (self.stored and self.stored[0] == key and trial.data.storage in (AUTO, self.stored[1].storage)):
            how, self.stored = storage.choose(trial, splits, free_bytes), None  # first let go of what is not read again
            self.stored = (key, storage.stored(trial, splits, how, self.spec.cache))
        held = self.stored[1]
        return replace(held, splits=replace(splits, images=held.splits.images))

    def _load(self, trial: Trial) -> Splits:
        try:
            return data.load(trial.data, trial.info, self.spec.cache)
        except StoreError:
            raise
        except MixlabError as error:
            raise DataMissing(str(error)) from error

    def run_spec(self, trial: Trial) -> RunSpec:
        """Where and how the trial runs here."""
        device = self.spec.device.partition(":")[0] if self.spec.device else None
        return trial.run_spec(len(self.spec.cpus), device, self.spec.compile_cache)

    def _dataset(self, trial: Trial, stored: Stored) -> ArrayDataset:
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
