"""Trains one trial after another on one backend, so that imports and compilation are paid once; see process.py."""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import backends
from backends.arrays import State
from backends.contract import Program
from backends.errors import MixlabError
from backends.microbatches import Group
from experiments import data
from experiments.data import Splits
from experiments.data.ahead import Interrupted
from experiments.machine import memory
from experiments.results import checkpoint, curves
from experiments.results.claims import Claim, ClaimLost
from experiments.results.record import is_final, make_record
from experiments.results.store import Store
from experiments.running import replicas
from experiments.running.events import Ended, How, Lost, Noted, Returned, Spent, Started, Told
from experiments.running.failures import DoesNotFit, GroupLost, failure
from experiments.running.follower import follow
from experiments.running.group import Leader
from experiments.running.opener import Opener, Spending, WorkerSpec
from experiments.running.outcome import as_recorded, with_record, without_record
from experiments.running.storage import Stored
from experiments.spec.trial import Trial
from experiments.training.loop import Loop, Stopped
from experiments.training.transfer import NoStart, check
from experiments.training.trial_run import TrialRun


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

    def __init__(self, spec: WorkerSpec, stop: threading.Event, send: Callable[[Told], None]):
        self.spec, self.stop, self.send = spec, stop, send
        self.store = Store(spec.store)
        self.spending = Spending({"start": time.monotonic() - spec.hired_s})
        self.group = Group(0, spec.num_devices)
        self.leader: Leader | None = None
        self.opener = Opener(spec, self.spending, self._check_stop, self.group)
        self.in_hand: list[InHand] = []
        self.about: dict[str, str] | None = None  # what the backend says of itself
        self.source: dict[str, Any] | None = None  # what the record says of the data
        self.peak_bytes: Callable[[], int | None] = lambda: None

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
        except Interrupted:  # while images were read, before the first step
            for one in list(self.in_hand):
                self._end(one, Stopped())
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
            with contextlib.suppress(Exception), self.spending.on("import"):
                free = backends.load(self.spec.backend).free_memory_bytes(self.opener.run_spec(trials[0]))
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
        if self.spec.num_devices > 1 and self.leader is None:
            with self.spending.on("import"):
                self.leader = Leader(self.spec, follow, lambda lost: self.send(Lost(lost)))
        if self.leader:
            trial = self.opener.stored_as_here(trial)
            self.leader.open(trial)
        try:
            opened = self.opener.open(trial, max(1, len(self.in_hand)))
        except (MixlabError, DoesNotFit):  # after which this process goes on: it hears what the others answer now
            if self.leader:
                with contextlib.suppress(GroupLost):
                    self.leader.wait()
            raise
        program, self.about, stored = opened.program, opened.about, opened.stored
        if self.leader:
            self.leader.wait()
        with self.spending.on("data"):
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
        threads = max(1, self.opener.run_spec(runs[0].trial).threads // len(runs))
        rest = (stored.splits, until, stored.source, threads)
        if self.leader is None:
            return Loop(runs, states, program, *rest)
        (run,) = runs
        led = self.leader.led(program, run.trial, run.progress.step, until or run.trial.num_steps)
        return Loop(runs, states, led, *rest, self.group, self.leader.predictor, self.leader.fed)

    def _restored(self, one: InHand, splits: Splits) -> tuple[TrialRun, State]:
        self.store.begin(one.trial, self._environment)
        session = {name: self.spec.environment.get(name) for name in ("commit", "dirty", "host")}
        session["backend"] = self.about
        if self.leader:
            session |= {"devices": self.group.size, "nodes": len(self.leader.nodes)}
            one.claim.tell(devices=self.group.size, nodes=self.leader.nodes)
        one.run = TrialRun(one.trial, self.store, one.claim, splits, self.send, session)
        return one.run, one.run.restore()

    @property
    def _environment(self) -> dict[str, Any]:
        return {**self.spec.environment, "backend": self.about}

    def _end(self, one: InHand, error: Exception | None) -> None:
        """Record what came of a trial, and let go of it."""
        if one.run:
            for phase, seconds in one.run.spent.items():
                self.spending.seconds[phase] = self.spending.seconds.get(phase, 0.0) + seconds
        try:
            ended = self._recorded(one, error)
        except MixlabError as unwritten:
            ended = Ended(one.trial.id, "error", failure(unwritten))
        self._let_go(one, ended)

    def _let_go(self, one: InHand, event: Ended | Returned) -> None:
        one.let_go()
        self.in_hand = [other for other in self.in_hand if other is not one]
        self.send(Spent(dict(self.spending.seconds)))
        self.spending.seconds.clear()
        self.send(event)

    def _recorded(self, one: InHand, error: Exception | None) -> Ended:
        """What became of a trial, after it is in the record if it is done or failed. Raises: StoreError."""
        if ended := without_record(one.trial.id, error, self.store, self.stop.is_set()):
            return ended
        outcome, ended = with_record(one.trial.id, error)
        with self.spending.on("record"):
            peak = self.peak_bytes() or memory.peak_bytes()
            result = {"data": self.source, **one.run.result(peak)} if one.run else None
            record = make_record(one.trial, outcome, self._environment, one.started, result)
            try:
                written = self.store.finish(one.trial.id, record, one.claim)
            except ClaimLost:
                return Ended(one.trial.id, "busy")
        if not written and (theirs := self.store.sound_record(one.trial.id)) is not None:
            return as_recorded(one.trial.id, theirs)
        return ended

    def close(self) -> None:
        """End the other processes of its group."""
        if self.leader:
            self.leader.close()

    def _check_stop(self) -> None:
        """Images are read, for minutes where there are many.  Raises: Interrupted."""
        if self.stop.is_set():
            raise Interrupted
