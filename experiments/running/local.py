"""Trials on this machine: a bounded pool of workers, each on its share of the cores."""

import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType

from experiments.design.ablation import GridTrial
from experiments.design.stages import is_halted
from experiments.machine import memory
from experiments.machine.environment import ROOT
from experiments.results.claims import ClaimLost
from experiments.results.record import is_final, make_record
from experiments.results.store import Store
from experiments.running.events import Beat, Ended, Lost, Noted, Returned, Spent, Stop, Told, Train
from experiments.running.failures import NOT_ITS_OWN, Failure
from experiments.running.hiring import dismiss, hire, send
from experiments.running.meeting import Silence, ended, node_name
from experiments.running.opener import WorkerSpec
from experiments.running.outcome import as_recorded
from experiments.running.pool import Pool, Reporter, Slot, Summary, shares
from experiments.running.queue import Queue

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # Slurm warns with one of the last two
BUSY_POLL_S = 1.0  # how often a trial that another process runs is looked at again


class LocalRun:
    """Runs trials until all have ended, a stop is asked for, or an error concerns them all."""

    def __init__(
        self,
        trials: Sequence[GridTrial],
        store: Store,
        cache: Path,
        pool: Pool,
        reporter: Reporter,
        resume_on: str | None = None,
    ):
        """Bring trials into a queue.

        Args:   resume_on: the backend on which trials that have a checkpoint go on; None: on their own.
        Raises: MixlabError: a job has fewer devices than a trial is to train on.
        """
        pool.check_devices(planned.trial.run for planned in trials)
        self.store, self.cache, self.pool, self.reporter = store, cache, pool, reporter
        self.queue = Queue(trials, store, resume_on)
        self.busy: list[GridTrial] = []  # run by another process now
        self.slots = [Slot(cpus, pool.devices_of(i)) for i, cpus in enumerate(shares(pool.jobs, pool.cpus))]
        self.summary = Summary()
        self.tried: dict[tuple[str, str], int] = {}  # id and cause -> how often it was begun again
        self.stopping = False

    def run(self) -> Summary:
        """Run them; what an error or a signal has ended has saved its state."""
        handlers = {number: signal.signal(number, self._interrupt) for number in STOP_SIGNALS}
        self.oom_kills = memory.oom_kills()
        try:
            while self._assign() or self._working() or (self.busy and not self.stopping):
                self._listen()
        finally:
            for slot in self.slots:
                dismiss(slot)
            for number, handler in handlers.items():
                signal.signal(number, handler)
        self.summary.left += [planned.trial.id for planned in (*self.queue.waiting, *self.busy)]
        return self.summary

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Save and stop; a second Ctrl-C ends the workers at once, which loses steps and nothing else.

        Slurm sends several signals together, which all mean the first.
        """
        again = number == signal.SIGINT and number in self.summary.signals
        self.summary.signals.add(number)
        self.pool.on_signal(number)
        if again:
            for slot in self.slots:
                if slot.process:
                    slot.process.kill()
        self._stop()

    def _stop(self) -> None:
        self.stopping = True
        for slot in self.slots:
            if slot.connection and slot.trials:
                send(slot, Stop())

    def _working(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.trials]

    def _assign(self) -> bool:
        """Give every idle slot a trial, or several that train as one program; True if any was given."""
        given = False
        for slot in self.slots:
            if slot.trials or self.stopping or not self.queue:
                continue
            given = True
            backend = self.queue.choose_backend(slot.backend, [other.backend for other in self._working()])
            idle = len(self.slots) - len(self._working())
            together, unwanted = self.queue.take(backend, idle, self.pool.is_wanted)
            self.summary.left += [planned.trial.id for planned in unwanted]
            if not together:
                continue
            if (
                slot.backend != backend
                or slot.num_devices != together[0].trial.run.devices
                or not slot.process.is_alive()
            ):
                self._hire(slot, together[0])
            slot.trials = {planned.trial.id: planned for planned in together}
            send(slot, Train(tuple(planned.trial for planned in together), together[0].until))
            if self.stopping:  # asked for while the worker was hired
                send(slot, Stop())
        return given

    def _hire(self, slot: Slot, planned: GridTrial) -> None:
        """Let a worker on a trial's backend take a slot's place."""
        dismiss(slot)
        run, meets, hired_s = planned.trial.run, self.pool.rendezvous, time.monotonic()
        num_here = meets.num_here if meets else run.devices
        spec, *others = (
            WorkerSpec(
                backend=self.queue.backends[planned.trial.id],
                cpus=cpus,
                store=self.store.root,
                cache=self.cache,
                environment=dict(self.pool.environment),
                root=ROOT,
                hired_s=hired_s,
                device=device,
                compile_cache=self.pool.compile_cache,
                num_workers=len(self.slots),
                num_here=num_here,
            )
            for cpus, device in slot.places(replace(run, devices=1) if meets else run)  # the others are other tasks'
        )
        hire(slot, replace(spec, others=tuple(others), rendezvous=meets), run.devices)

    def _listen(self) -> None:
        """Handle the events that are there, or wait a moment for one."""
        working = self._working()
        if not working:
            time.sleep(BUSY_POLL_S)
        ready = wait([slot.connection for slot in working if slot.connection], timeout=BUSY_POLL_S) if working else []
        for slot in working:
            if slot.connection is None or slot.connection not in ready:
                if slot.silence and slot.silence.is_too_long():
                    slot.process.kill()
                continue
            try:
                told: Told = slot.connection.recv()
            except (EOFError, OSError):
                self._bury(slot)
                continue
            if slot.silence:
                slot.silence.hear()
            self._handle(slot, told)
        free = [planned for planned in self.busy if self.store.owner(planned.trial.id) is None]
        self.busy = [planned for planned in self.busy if planned not in free]
        self.queue.waiting += free

    def _handle(self, slot: Slot, event: Told) -> None:
        if isinstance(event, Beat):
            slot.silence = slot.silence or Silence()  # not before: what it imports may take long to come
            return None
        if isinstance(event, Lost):
            slot.lost = event.failure
            return None
        if isinstance(event, Spent):
            return self.summary.add(event.seconds)
        planned = slot.trials[event.trial_id]
        if isinstance(event, Returned):
            self._take_back(planned, event)
        elif isinstance(event, Ended):
            self._end(planned, event)
        else:
            return self.reporter.on_event(planned, event)
        del slot.trials[event.trial_id]
        # what an unexpected error leaves of a device or a framework, no other trial should meet
        slot.is_spent |= event.crashed if isinstance(event, Returned) else event.how == "crashed"
        if slot.is_spent and not slot.trials:
            dismiss(slot)

    def _end(self, planned: GridTrial, ended: Ended) -> None:
        """Note what became of a trial, or put it back among those that wait."""
        failure = ended.failure
        if ended.how == "error":
            assert failure is not None
            if failure.cause in self.pool.alone:
                return self._fail(planned, failure)
            self.summary.error = self.summary.error or failure
        else:
            self.reporter.on_event(planned, replace(ended, how="failed") if ended.how == "crashed" else ended)
        if failure and ended.how != "error":
            if not self._is_tried_again(planned, failure):
                self.summary.failed[planned.trial.id] = failure.reason
        elif ended.how == "done":
            self.summary.done.append(planned.trial.id)
        elif ended.how == "paused":
            self.summary.paused.append(planned.trial.id)
        elif ended.how == "busy":
            self.busy.append(planned)
        else:
            self.summary.left.append(planned.trial.id)
            self._stop()  # if nobody asked us, somebody has told the worker: what is coming is for all of us

    def _take_back(self, planned: GridTrial, returned: Returned) -> None:
        self.queue.put_back([planned], returned.most)
        self.reporter.on_event(planned, returned)

    def give_up(self, planned: GridTrial, failure: Failure) -> None:
        """Record a trial as failed instead of beginning it."""
        self.queue.waiting.remove(planned)
        self._fail(planned, failure)

    def _is_tried_again(self, planned: GridTrial, failure: Failure) -> bool:
        key = (planned.trial.id, failure.cause)
        if self.stopping or self.tried.get(key, 0) >= self.pool.retries.get(failure.cause, 0):
            return False
        self.tried[key] = self.tried.get(key, 0) + 1
        self.queue.waiting.append(planned)
        return True

    def _bury(self, slot: Slot) -> None:
        """A worker died with trials in hand, by a signal (such as the kernel's, out of memory) or a crash."""
        slot.process.join()
        failure, buried = self._cause_of_death(slot), list(slot.trials.values())
        slot.trials, slot.process, slot.connection, slot.backend, slot.is_spent = {}, None, None, None, False
        if self.stopping:
            self.summary.left += [planned.trial.id for planned in buried]
            return
        if len(buried) > 1:
            sentence = f"{failure.reason}; those of its {len(buried)} trials that are not done are tried one by one"
            self._note(buried[0], sentence)
        for planned in buried:
            record = self.store.sound_record(planned.trial.id)
            if record is not None and is_final(record):  # it died between its record and its word of it
                self._end(planned, as_recorded(planned.trial.id, record))
            elif is_halted(planned, self.store):
                self._end(planned, Ended(planned.trial.id, "paused"))
            elif failure.cause in NOT_ITS_OWN:
                self._end(planned, Ended(planned.trial.id, "error", failure))
            elif len(buried) > 1:  # the others may have been the cause: alone, a failure is a trial's own
                self._take_back(planned, Returned(planned.trial.id, 1, failure, crashed=True))
            elif self._is_tried_again(planned, failure):
                self._note(planned, f"{failure.reason}; it is begun again")
            else:
                self._fail(planned, failure)

    def _cause_of_death(self, slot: Slot) -> Failure:
        """Why a worker has ended."""
        if slot.lost:
            return slot.lost
        is_out_of_memory, self.oom_kills = memory.oom_kills() > self.oom_kills, memory.oom_kills()
        who = f"rank 0 on {node_name()}: " if slot.num_devices > 1 else ""
        reason = f"{who}its process {ended(slot.process.exitcode)}"
        if is_out_of_memory:
            return Failure("out_of_memory", f"{reason}: its memory was out")
        if slot.silence and slot.silence.is_too_long():  # and was killed for it
            reason = f"{who}{slot.silence}"
        return Failure("killed", reason)

    def _note(self, planned: GridTrial, sentence: str) -> None:
        self.reporter.on_event(planned, Noted(planned.trial.id, sentence))

    def _fail(self, planned: GridTrial, failure: Failure) -> None:
        """Record a trial as failed, unless another process has it now, or has ended it."""
        about, trial_id = dict(self.pool.environment), planned.trial.id
        record = make_record(planned.trial, failure.outcome, about, time.time(), None)
        try:
            written = self.store.finish(trial_id, record)
        except ClaimLost:
            self.busy.append(planned)
            return self.reporter.on_event(planned, Ended(trial_id, "busy"))
        if not written and (theirs := self.store.sound_record(trial_id)) is not None:
            return self._end(planned, as_recorded(trial_id, theirs))
        self.summary.failed[trial_id] = failure.reason
        self.reporter.on_event(planned, Ended(trial_id, "failed", failure))
