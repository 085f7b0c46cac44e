"""Who is lost of a group's processes, and why: a thread of the leader that answers their beats.

Who has ended, or gives no sign of life, ends the group: what the leader waits for is broken off, and says why.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from experiments.machine import memory
from experiments.running.failures import Failure, GroupLost
from experiments.running.meeting import BEAT_S, WORD_S, Awake, Member, Silence, ended, named, task_lost, word

LASTS_S, TIMES = 30.0, 20  # what lasts longer, and so many times the longest before, hangs
LEAST_S = 0.001  # of what is not worth a measure
FOUND_S = 5.0  # after an error, until the loss that it may come from is found
ENDS_S = 10.0  # after a loss, until what waits for the others has ended by itself


class Limit:
    """How long something may last: LASTS_S, or TIMES the longest before; the first time may compile, and has none."""

    def __init__(self, awake: Awake, sentence: str):
        self.awake, self.sentence = awake, sentence
        self.longest_s = 0.0
        self.since: float | None = None  # when it has begun, by `awake`
        self.member: Member | None = None  # that is waited for; None: all are

    def begin(self) -> None:
        """What comes is of another program."""
        self.longest_s = 0.0

    @contextlib.contextmanager
    def within(self, compile_s: Callable[[], float] = lambda: 0.0, member: Member | None = None) -> Iterator[None]:
        """Time what is done inside.

        Args: compile_s: seconds for which the program has compiled, which say nothing of the next time.
              member: who is waited for; None: all.
        """
        start, compiled = self.awake.seconds, compile_s()
        self.since, self.member = start, member
        try:
            yield
            lasted_s = self.awake.seconds - start - (compile_s() - compiled)
            self.longest_s = max(self.longest_s, lasted_s, LEAST_S)
        finally:
            self.since = None

    def is_over(self) -> bool:
        since = self.since  # read once: the training sets it back meanwhile
        too_long_s = max(LASTS_S, TIMES * self.longest_s)
        return bool(self.longest_s) and since is not None and self.awake.seconds - since > too_long_s


class Watch:
    """Keeps an eye on the processes that follow, until it is closed."""

    def __init__(self, members: Sequence[Member], on_lost: Callable[[Failure], None]):
        """Args: on_lost: told of a loss that `meeting` has not met; this process ends then."""
        self.members, self.on_lost = members, on_lost
        self.lost: Failure | None = None
        self.is_closed, self.awake = False, Awake()
        self.steps = Limit(self.awake, "no step has ended for too long")
        self.answers = Limit(self.awake, "it has not answered in an evaluation for too long")
        self.oom_kills = memory.oom_kills()
        threading.Thread(target=self._watch, name="group", daemon=True).start()

    def close(self) -> None:
        """End the processes."""
        self.is_closed = True
        for member in self.members:
            for connection in filter(None, (member.told, member.beats, member.task)):
                connection.close()
            if member.process is not None:
                member.process.kill()
                member.process.join()

    @contextlib.contextmanager
    def meeting(self) -> Iterator[None]:
        """Where what the others do can end this process's work too: an error there becomes GroupLost."""
        if self.lost is not None:
            self._raise(None)
        try:
            yield
        except GroupLost:
            raise
        except Exception as error:
            until = time.monotonic() + FOUND_S
            while self.lost is None and time.monotonic() < until:
                time.sleep(0.05)
            if self.lost is not None:
                self._raise(error)
            raise

    def begin(self) -> None:
        """Another program comes; its first steps and answers may compile for minutes."""
        self.steps.begin()
        self.answers.begin()

    def _raise(self, error: Exception | None) -> None:
        assert self.lost is not None
        self.close()
        raise GroupLost(self.lost) from error

    def _watch(self) -> None:
        """Answer the beats of the others, and find out who has none."""
        silences = {member.rank: Silence() for member in self.members}
        while not self.is_closed and self.lost is None:
            self.awake.look()
            for member in self.members:
                try:
                    while member.beats.poll(0):
                        member.beats.recv()
                        silences[member.rank].hear()
                    member.beats.send(None)
                    while member.task and not self.is_closed and member.task.poll(0):
                        if isinstance(said := member.task.recv(), Failure):
                            return self._lose(member, said)
                except (OSError, EOFError):
                    return self._lose(member, None)
                if silences[member.rank].is_too_long():
                    return self._lose(member, str(silences[member.rank]))
            for limit in (self.steps, self.answers):
                if limit.is_over():
                    waited = limit.member
                    return self._lose(waited or self.members[0], limit.sentence, "" if waited else "the group")
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
        time.sleep(ENDS_S)
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
