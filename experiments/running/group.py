"""A trial on several devices: a process for each of them, of which the first one leads and the others follow.

The leader is a worker as any other: it claims the trial, restores and saves its state, and tells the others what comes
next. They make the same plans from the same trial, read their own rows of each batch, and take their share of the
batches of an evaluation. Nothing but gradients and what evaluations say is exchanged. The leader starts the others on
its own machine, or invites those that other tasks of its job start: see rendezvous.py.

Who dies or hangs ends its group: each process sends a beat every second, and who hears none for SILENT_S ends itself,
or, if it leads, the others; the run that has started the leader ends it. The trial is then begun again from its
checkpoint, by the rules for a worker that died.
"""

import contextlib
import functools
import multiprocessing
import secrets
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Listener
from typing import Any

import backends
from backends.arrays import Array, State
from backends.contract import Predictions, Program, StepMetrics
from backends.microbatches import Group
from backends.plan import StepPlan
from experiments.data.ahead import WAIT_S
from experiments.data.pixels import DataLost
from experiments.machine import malloc
from experiments.running.failures import Failure, GroupLost
from experiments.running.meeting import (
    LOCAL,
    Member,
    free_port,
    met,
    named,
    node_name,
)
from experiments.running.messages import Fed, Halt, Join, Load, Open, Say, States, Steps, Waits, other_step
from experiments.running.opener import WorkerSpec
from experiments.running.shares import in_order, said
from experiments.running.watch import Watch
from experiments.spec.trial import Trial
from experiments.training.evaluate import Predict

EXCHANGE_S = 1800.0  # of one exchange: a hang is found by beats, and others may compile for minutes meanwhile

_CONTEXT = multiprocessing.get_context("spawn")


class Leader:
    """The first process of a group, and its hold on the others."""

    def __init__(self, spec: WorkerSpec, follow: Callable[..., None], on_lost: Callable[[Failure], None]):
        """Start or invite the others, and let the backend of all join.

        Args:   follow: what processes run that this one starts, with the arguments of `Follower`.
                on_lost: told of a loss that the training has not met; this process ends then.
        Raises: GroupLost: one did not begin.
        """
        self.group, self.step = Group(0, spec.num_devices), 0  # the step of its state
        self.members = _called(spec, self.group, follow)
        self.watch = Watch(self.members, on_lost)
        host, listens = (spec.rendezvous.host, "") if spec.rendezvous else (LOCAL, LOCAL)
        address = f"{host}:{free_port(listens)}"
        self._tell(Join(address))
        with self.watch.meeting():
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
        self.watch.begin()
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

    def predictor(
        self, program: Program, images: Any, num_threads: int = 1, idle: Callable[[], None] = lambda: None
    ) -> Predict:
        """What the programs of all say of some of the images, in their order; see evaluate.predictor."""

        def predict(indices: Array) -> Iterator[Sequence[Predictions]]:
            self._tell(Say(self.step, indices))
            own = said(program, images, indices, self.group, num_threads, idle)
            others = (functools.partial(self._hear_said, member, idle) for member in self.members)
            is_whole = False
            try:
                yield from in_order(indices, [lambda: next(own, None), *others], self.names)
                is_whole = True
            finally:
                if not is_whole and self.watch.lost is None:  # it was broken off: the others are in the midst of it
                    self._halt()

        return predict

    def close(self) -> None:
        """End the others."""
        self.watch.close()

    def states(self, program: Program, wanted: bool) -> list[State]:
        """Let all give what they hold of a state that is shared out."""
        with self.watch.meeting():
            self._tell(States())
            return program.states(wanted)

    def load(self, load: Load, do: Callable[[], None]) -> None:
        """Let all take a state.  Args: do: takes it here.  Raises: GroupLost."""
        with self.watch.meeting():
            self._tell(load)
            do()
        self.step = load.first_step

    def fed(self, num_steps: int) -> bool:
        """Whether the others have the pixels of so many steps.

        Raises: DataLost: one of them cannot read an image.    GroupLost: what else has failed there.
        """
        self._tell(Fed(num_steps))
        answers = {str(member): self._hear(member) for member in self.members}
        for who, answer in answers.items():
            if isinstance(answer, Failure):
                lost = named(answer, who)
                raise DataLost(lost.reason) if lost.cause == "data_missing" else GroupLost(lost)
        return all(answers.values())

    def train(
        self, steps: Steps, do: Callable[[], list[StepMetrics]], compile_s: Callable[[], float] = lambda: 0.0
    ) -> list[StepMetrics]:
        """Let all take some steps, within a time that follows from that of the steps before.

        Args:   do: takes them here.    compile_s: see Limit.within.
        Raises: GroupLost: also where fewer or more were taken here, which the others would wait for.
        """
        with self.watch.steps.within(compile_s), self.watch.meeting():
            self._tell(steps)
            metrics = do()
        self.step, until = steps.first + len(metrics[0].loss), steps.first + steps.num
        if self.step != until:
            raise GroupLost(Failure("error", f"{self.names[0]}: {other_step(until, self.step)}"))
        return metrics

    def _halt(self) -> None:
        """Let the others say no more, and forget what they have said; who is lost meanwhile is told with what comes."""
        with contextlib.suppress(GroupLost):
            self._tell(Halt())
            for member in self.members:
                while not isinstance(self._hear_said(member), Halt):
                    pass

    def _hear(self, member: Member) -> Any:
        """What one of the others answers.  Raises: GroupLost: its process has ended."""
        with self.watch.meeting():
            return member.told.recv()

    def _hear_said(self, member: Member, idle: Callable[[], None] = lambda: None) -> Any:
        """What it answers in an evaluation.

        Args:   idle: called every WAIT_S while it is waited for.
        Raises: GroupLost: its process has ended, or does not answer.    What `idle` raises.
        """
        while True:
            with self.watch.answers.within(member=member):
                while not self._has_answered(member):
                    idle()
                answer = self._hear(member)
            if not isinstance(answer, Waits):
                return answer
            idle()

    def _has_answered(self, member: Member) -> bool:
        with self.watch.meeting():
            return member.told.poll(WAIT_S)

    def _tell(self, message: Any) -> None:
        with self.watch.meeting():
            for member in self.members:
                member.told.send(message)


def _called(spec: WorkerSpec, group: Group, follow: Callable[..., None]) -> list[Member]:
    """The other processes of a group: invited where there is a rendezvous, else started.  Raises: GroupLost."""
    key, rendezvous, processes = secrets.token_bytes(16), spec.rendezvous, {}
    backlog = 3 * group.size  # all connect at once
    with Listener(("" if rendezvous else LOCAL, 0), backlog=backlog) as listener, malloc.large_pages():
        if rendezvous:
            rendezvous.invite(int(listener.address[1]), key, spec.backend, len(spec.cpus))
        # inherited: Slurm sends it to all processes of a step, and until `follow` ignores it, it would end one
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        for rank, one in enumerate(spec.others, 1):
            arguments = (one, Group(rank, group.size), listener.address, key)
            processes[rank] = _CONTEXT.Process(target=follow, args=arguments, name=f"mixlab-rank-{rank}", daemon=True)
            processes[rank].start()
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        return met(listener, key, group.size, processes)


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

    def states(self, wanted: bool = True) -> list[State]:
        if not self.trial.run.sharded_optimizer:
            return self.program.states(wanted)
        return self.leader.states(self.program, wanted)

    def train(self, plans: Sequence[StepPlan]) -> list[StepMetrics]:
        message = Steps(plans[0].first_step, plans[0].num_steps)
        return self.leader.train(message, lambda: self.program.train(plans), lambda: self.program.compile_s)

    def predict(self, images: Array) -> list[Predictions]:
        return self.program.predict(images)

    def peak_memory_bytes(self) -> int | None:
        return self.program.peak_memory_bytes()
