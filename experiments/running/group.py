"""A trial on several devices: a process for each of them, of which the first one leads and the others follow.

The leader is a worker as any other: it claims the trial, restores and saves its state, and tells the others what comes
next. They make the same plans from the same trial, read their own rows of each batch, and take their share of the
batches of an evaluation. Nothing but gradients and what evaluations say is exchanged. The leader starts the others on
its own machine, or invites those that other tasks of its job start: see rendezvous.py.

Who dies or hangs ends its group: each process sends a beat every second, and who hears none for SILENT_S ends itself,
or, if it leads, the others. The trial is then begun again from its checkpoint, by the rules for a worker that died.
"""

import functools
import multiprocessing
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Listener
from typing import Any

import backends
from backends.arrays import Array, State
from backends.contract import Predictions, Program, StepMetrics
from backends.microbatches import Group
from backends.plan import StepPlan
from experiments.machine import malloc, memory
from experiments.running.failures import Failure, GroupLost
from experiments.running.meeting import (
    BEAT_S,
    LOCAL,
    SILENT_S,
    WORD_S,
    Member,
    ended,
    free_port,
    met,
    named,
    node_name,
    task_lost,
    word,
)
from experiments.running.opener import WorkerSpec
from experiments.running.shares import in_order, said
from experiments.spec.trial import Trial
from experiments.training.evaluate import Predict
from experiments.training.feed import batches

EXCHANGE_S = 1800.0  # of one exchange: a hang is found by beats, and others may compile for minutes meanwhile
STEPS_S, TIMES = 30.0, 20  # a call of steps that lasts longer, and so many times the longest before, hangs
FOUND_S = 5.0  # for the watch to find who is lost, where an error here may come of it

_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Join:
    """Where the backend's processes meet."""

    address: str


@dataclass(frozen=True)
class Open:
    """Open a program for a trial."""

    trial: Trial


@dataclass(frozen=True, eq=False)
class Load:
    """Take this state, and train from this step on."""

    state: Mapping[str, Array]
    first_step: int
    last_step: int


@dataclass(frozen=True)
class Steps:
    """Take some optimizer steps."""

    first: int
    num: int


@dataclass(frozen=True, eq=False)
class Say:
    """Send what the program says of some examples: of the batches of PREDICT_BATCH that are this process's share."""

    step: int  # of the leader's state
    indices: Array


def other_step(expected: int, found: int) -> str:
    """Why a process is out of step: it would train on, or evaluate, beside the others."""
    return f"expected a state of step {expected}, as the others', got one of step {found}"


class Leader:
    """The first process of a group, and its hold on the others."""

    def __init__(self, spec: WorkerSpec, follow: Callable[..., None], on_lost: Callable[[Failure], None]):
        """Start or invite the others, and let the backend of all join.

        Args:   follow: what processes run that this one starts, with the arguments of `Follower`.
                on_lost: told of a loss that the training has not met; this process ends then.
        Raises: GroupLost: one did not begin.
        """
        self.group, self.on_lost = Group(0, spec.num_devices), on_lost
        self.lost: Failure | None = None
        self.is_closed, self.longest_s, self.since = False, 0.0, 0.0
        self.step = 0  # of its state
        self.oom_kills = memory.oom_kills()
        self.members = _called(spec, self.group, follow)
        threading.Thread(target=self._watch, name="group", daemon=True).start()
        host, listens = (spec.rendezvous.host, "") if spec.rendezvous else (LOCAL, LOCAL)
        address = f"{host}:{free_port(listens)}"
        self._tell(Join(address))
        with self._meeting():
            backends.load(spec.backend).join(self.group, address, EXCHANGE_S)

    @property
    def nodes(self) -> list[str]:
        """Machines on which the processes are, this one first."""
        return list(dict.fromkeys([node_name(), *(member.host for member in self.members)]))

    @property
    def names(self) -> list[str]:
        """Of the processes, by their ranks."""
        return [f"rank 0 on {node_name()}", *map(str, self.members)]

    def open(self, trial: Trial) -> None:
        """Let the others open a trial's program, while this process opens its own."""
        self.longest_s = 0.0  # the first steps of a program may compile for minutes
        self._tell(Open(trial))

    def wait(self) -> None:
        """Wait until all have answered to `open`.  Raises: GroupLost: one could not open the program."""
        answers = {str(member): self._hear(member) for member in self.members}
        for who, answer in answers.items():
            if isinstance(answer, Failure):  # its process goes on
                raise GroupLost(named(answer, who))

    def led(self, program: Program, trial: Trial, first_step: int, last_step: int) -> "LedProgram":
        """A program whose steps all processes take."""
        return LedProgram(self, program, trial, first_step, last_step)

    def predictor(self, program: Program, images: Any, read: Callable[..., Iterator[Array]] = batches) -> Predict:
        """What the programs of all say of some of the images, in their order; see evaluate.predictor."""

        def predict(indices: Array) -> Iterator[Sequence[Predictions]]:
            self._tell(Say(self.step, indices))
            own = said(program, images, indices, self.group, read)
            others = (functools.partial(self._hear, member) for member in self.members)
            is_whole = False
            try:
                yield from in_order(indices, [lambda: next(own, None), *others], self.names)
                is_whole = True
            finally:
                if not is_whole:  # it was broken off: the others are in the midst of it
                    self.close()

        return predict

    def close(self) -> None:
        """End the others."""
        self.is_closed = True
        for member in self.members:
            for connection in filter(None, (member.told, member.beats, member.task)):
                connection.close()
            if member.process is not None:
                member.process.kill()
                member.process.join()

    def load(self, load: Load, do: Callable[[], None]) -> None:
        """Let all take a state.  Args: do: takes it here.  Raises: GroupLost."""
        with self._meeting():
            self._tell(load)
            do()
        self.step = load.first_step

    def train(self, steps: Steps, do: Callable[[], list[StepMetrics]]) -> list[StepMetrics]:
        """Let all take some steps, within a time that follows from that of the steps before.

        Args:   do: takes them here.
        Raises: GroupLost: also where fewer or more were taken here, which the others would wait for.
        """
        start = self.since = time.monotonic()
        with self._meeting():
            self._tell(steps)
            metrics = do()
        self.since, self.longest_s = 0.0, max(self.longest_s, time.monotonic() - start)
        self.step, until = steps.first + len(metrics[0].loss), steps.first + steps.num
        if self.step != until:
            raise GroupLost(Failure("error", f"{self.names[0]}: {other_step(until, self.step)}"))
        return metrics

    def _hear(self, member: Member) -> Any:
        """What one of the others answers.  Raises: GroupLost: its process has ended."""
        with self._meeting():
            return member.told.recv()

    def _tell(self, message: Any) -> None:
        with self._meeting():
            for member in self.members:
                member.told.send(message)

    def _meeting(self) -> "_Meeting":
        return _Meeting(self)

    def _watch(self) -> None:
        """Answer the beats of the others, and find out who has none."""
        heard = {member.rank: time.monotonic() for member in self.members}
        while not self.is_closed and self.lost is None:
            for member in self.members:
                try:
                    while member.beats.poll(0):
                        member.beats.recv()
                        heard[member.rank] = time.monotonic()
                    member.beats.send(None)
                    while member.task and not self.is_closed and member.task.poll(0):
                        if isinstance(said := member.task.recv(), Failure):
                            return self._lose(member, said)
                except (OSError, EOFError):
                    return self._lose(member, None)
                if time.monotonic() - heard[member.rank] > SILENT_S:
                    return self._lose(member, f"it has given no sign of life for {SILENT_S:.0f} s")
            since = self.since  # read once: the training sets it back meanwhile
            if since and self.longest_s and time.monotonic() - since > max(STEPS_S, TIMES * self.longest_s):
                return self._lose(self.members[0], "no step has ended for too long", "the group")
            time.sleep(BEAT_S)
        return None

    def _lose(self, member: Member, how: str | Failure | None, who: str = "") -> None:
        """One is lost: end the others, which ends what this process waits for."""
        if self.is_closed:
            return
        self.lost = self._first_cause(member, how, who or str(member))
        for one in self.members:
            if one.process is not None:
                one.process.kill()
            one.beats.close()
        time.sleep(10.0)
        if not self.is_closed:  # what this process does has not ended by itself
            self.on_lost(self.lost)
            os._exit(1)

    def _first_cause(self, member: Member, how: str | Failure | None, who: str) -> Failure:
        """What became of one that is lost, or of another, of which the exchange of this one has died."""
        found = self._reason(member, how, who)
        if not _may_follow(found):
            return found
        ended_too = (one for one in self.members if one is not member and _has_ended(one))
        reasons = (self._reason(one, None, str(one)) for one in ended_too)
        return next((reason for reason in reasons if not _may_follow(reason)), found)

    def _reason(self, member: Member, how: str | Failure | None, who: str) -> Failure:
        """What became of one that is lost: its own word, or that of its task or of the system."""
        said, _ = word(member.told, 1.0)
        if said is None and isinstance(how, Failure):
            said = how
        if said:
            return named(said, who)
        if member.task is not None:
            said, is_there = word(member.task, WORD_S)
            if said or not is_there:
                return named(said, who) if said else task_lost(who)
        if how:
            return Failure("killed", f"{who}: {how}")
        if member.process is not None:
            member.process.join(1.0)
        code = member.process.exitcode if member.process is not None else None
        if memory.oom_kills() > self.oom_kills:
            return Failure("out_of_memory", f"{who}: its process was killed as the machine's memory was out")
        return Failure("killed", f"{who}: its process {ended(code)}")


def _may_follow(reason: Failure) -> bool:
    """Whether an end may be that of an exchange with one that had died: torch raises an error then, jax aborts."""
    return reason.cause == "error" or "SIGABRT" in reason.reason


def _has_ended(member: Member) -> bool:
    try:
        while member.beats.poll(0):
            member.beats.recv()
    except (OSError, EOFError):
        return True
    return False


def _called(spec: WorkerSpec, group: Group, follow: Callable[..., None]) -> list[Member]:
    """The other processes of a group: invited where there is a rendezvous, else started.  Raises: GroupLost."""
    key, rendezvous, processes = secrets.token_bytes(16), spec.rendezvous, {}
    backlog = 3 * group.size  # all connect at once
    with Listener(("" if rendezvous else LOCAL, 0), backlog=backlog, authkey=key) as listener, malloc.large_pages():
        if rendezvous:
            rendezvous.invite(int(listener.address[1]), key, spec.backend, len(spec.cpus))
        for rank, one in enumerate(spec.others, 1):
            arguments = (one, Group(rank, group.size), listener.address, key)
            processes[rank] = _CONTEXT.Process(target=follow, args=arguments, name=f"mixlab-rank-{rank}", daemon=True)
            processes[rank].start()
        return met(listener, group.size, processes)


class _Meeting:
    """Where what the others do can end this process's work too: an error there becomes GroupLost."""

    def __init__(self, leader: Leader):
        self.leader = leader

    def __enter__(self) -> None:
        if self.leader.lost is not None:
            self._raise(None)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, Exception) or isinstance(error, GroupLost):
            return
        until = time.monotonic() + FOUND_S
        while self.leader.lost is None and time.monotonic() < until:
            time.sleep(0.05)
        if self.leader.lost is not None:
            self._raise(error)

    def _raise(self, error: Exception | None) -> None:
        assert self.leader.lost is not None
        lost = GroupLost(self.leader.lost)
        self.leader.close()
        raise lost from error


class LedProgram:
    """The program of the leader, whose steps all processes of the group take; see contract.Trainer."""

    def __init__(self, leader: Leader, program: Program, trial: Trial, first_step: int, last_step: int):
        self.leader, self.program, self.trial = leader, program, trial
        self.steps = (first_step, last_step)

    @property
    def compile_s(self) -> float:
        """See contract.Trainer."""
        return self.program.compile_s

    @property
    def exchange_s(self) -> float:
        """See contract.Trainer."""
        return self.program.exchange_s

    def load(self, states: Sequence[Mapping[str, Array]]) -> None:
        (state,) = states
        self.leader.load(Load(state, *self.steps), lambda: self.program.load(states))

    def states(self) -> list[State]:
        return self.program.states()

    def train(self, plans: Sequence[StepPlan]) -> list[StepMetrics]:
        message = Steps(plans[0].first_step, plans[0].num_steps)
        return self.leader.train(message, lambda: self.program.train(plans))

    def predict(self, images: Array) -> list[Predictions]:
        return self.program.predict(images)

    def peak_memory_bytes(self) -> int | None:
        return self.program.peak_memory_bytes()
