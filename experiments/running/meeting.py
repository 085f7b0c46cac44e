"""How the processes of a group come together, and stay in touch: two connections of each one to its leader.

Over one the leader tells what comes next and is answered; over the other both send a beat every second. Where another
task of a job has started the process, that task has a connection too: it beats as long as the process lives, and says
what has become of it.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, answer_challenge, deliver_challenge
from typing import Any

from backends.microbatches import Group
from experiments.machine.environment import slurm_job
from experiments.running.failures import NODE_LOST, Failure, GroupLost

BEAT_S, SILENT_S = 1.0, 20.0  # between two beats; without one, after which a process counts as hung
GAP_S = 5.0  # between two looks at the beats of another, after which this process was stopped itself
JOIN_S = 120.0  # for all processes to begin; NFS may show a file that calls them up to 60 s late
WORD_S = 2.0  # for a task to say what has become of its process
Found = dict[tuple[int, str], tuple[Connection, str]]  # connections and their hosts, by rank and what they are for
TOLD, BEATS, TASK = "told", "beats", "task"  # the connections of a member
LOCAL = "127.0.0.1"


class Awake:
    """The time for which this process could hear others: not while a terminal or Slurm had stopped all of them."""

    def __init__(self) -> None:
        self.seconds, self._looked = 0.0, time.monotonic()

    def look(self) -> float:
        """The seconds up to now; asked more often than every GAP_S."""
        now = time.monotonic()
        if now - self._looked < GAP_S:
            self.seconds += now - self._looked
        self._looked = now
        return self.seconds


class Silence:
    """How long another process has given no sign of life."""

    def __init__(self) -> None:
        self._awake, self._heard = Awake(), 0.0

    def hear(self) -> None:
        self._heard = self._awake.look()

    def is_too_long(self) -> bool:
        """Whether it counts as hung; asked more often than every GAP_S."""
        return self._awake.look() - self._heard > SILENT_S

    def __str__(self) -> str:
        return f"it has given no sign of life for {SILENT_S:.0f} s"


@dataclass
class Member:
    """A process that follows, as its leader sees it."""

    rank: int
    host: str
    told: Connection
    beats: Connection
    process: Any = None  # None: another task's
    task: Connection | None = None

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host}"


def node_name() -> str:
    """The name of this machine, in Slurm's words where it runs a job of it."""
    return slurm_job().get("node") or socket.gethostname()


def met(listener: Listener, key: bytes, size: int, processes: dict[int, Any]) -> list[Member]:
    """The other processes of a group, once all have connected.

    Args:   listener: without a key of its own.    size: of the group.
            processes: by rank, those that this one has started; else other tasks have.
    Raises: GroupLost: one did not begin.
    """
    ranks = range(1, size)
    wanted = {(rank, what) for rank in ranks for what in ((TOLD, BEATS) if processes else (TOLD, BEATS, TASK))}
    found: Found = {}
    is_over = threading.Event()
    threading.Thread(target=_accept, args=(listener, key, found, is_over), daemon=True).start()
    try:
        _wait(wanted, found, processes)
    finally:
        is_over.set()
        with contextlib.suppress(OSError):  # wakes who accepts
            socket.create_connection((LOCAL, listener.address[1]), timeout=1.0).close()
    return [
        Member(
            *(rank, found[rank, TOLD][1], found[rank, TOLD][0], found[rank, BEATS][0], processes.get(rank)),
            task=None if processes else found[rank, TASK][0],
        )
        for rank in ranks
    ]


def _wait(wanted: set[tuple[int, str]], found: Found, processes: dict[int, Any]) -> None:
    """Wait until all have connected.  Raises: GroupLost."""
    ranks = sorted({rank for rank, _ in wanted})
    until = time.monotonic() + JOIN_S
    while not wanted <= found.keys():
        time.sleep(0.1)
        _answer_beats(connection for (_, what), (connection, _) in list(found.items()) if what == BEATS)
        lost = next(filter(None, (_ended_early(rank, processes, found) for rank in ranks)), None)
        if lost is None and time.monotonic() > until:
            rank = next(rank for rank, what in sorted(wanted) if (rank, what) not in found)
            lost = _late(rank, processes, found)
        if lost is not None:
            for process in processes.values():
                process.kill()
            for connection, _ in list(found.values()):
                connection.close()
            raise GroupLost(lost)


def _answer_beats(connections: Iterable[Connection]) -> None:
    """Let those that have come know that the leader waits for others; who has gone is found by what it wants."""
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.send(None)


def _accept(listener: Listener, key: bytes, found: Found, is_over: threading.Event) -> None:
    """Take connections until there are all."""
    with contextlib.suppress(OSError):
        while connection := listener.accept():
            if is_over.is_set():
                return connection.close()
            # a stranger may say nothing for as long as it likes
            threading.Thread(target=_greet, args=(connection, key, found), daemon=True).start()


def _greet(connection: Connection, key: bytes, found: Found) -> None:
    """Take a connection in; one that does not know the key is none of ours."""
    try:
        deliver_challenge(connection, key)
        answer_challenge(connection, key)
        rank, what, host = connection.recv()
    except (OSError, EOFError, AuthenticationError):
        connection.close()
    else:
        found[rank, what] = (connection, host)


def _ended_early(rank: int, processes: dict[int, Any], found: Found) -> Failure | None:
    """What has ended a process before all had come."""
    if processes:
        if processes[rank].is_alive():
            return None
        return Failure("killed", f"rank {rank} on {node_name()}: its process {ended(processes[rank].exitcode)}")
    if (rank, TASK) not in found:
        return None
    task, host = found[rank, TASK]
    said, is_there = word(task, 0.0)
    if said is None and is_there:
        return None
    return named(said, f"rank {rank} on {host}") if said else task_lost(f"rank {rank} on {host}")


def _late(rank: int, processes: dict[int, Any], found: Found) -> Failure:
    if processes:
        return Failure("killed", f"rank {rank} on {node_name()}: its process did not begin within {JOIN_S:.0f} s")
    if (rank, TASK) in found:
        host = found[rank, TASK][1]
        return Failure("killed", f"rank {rank} on {host}: its process did not begin within {JOIN_S:.0f} s")
    return Failure(NODE_LOST, f"rank {rank}: its task did not come within {JOIN_S:.0f} s")


def named(said: Failure, who: str) -> Failure:
    """A failure with the name of whose it is."""
    return Failure(said.cause, f"{who}: {said.reason}")


def task_lost(who: str) -> Failure:
    return Failure(NODE_LOST, f"{who}: its task is gone")


def word(connection: Connection, wait_s: float) -> tuple[Failure | None, bool]:
    """The failure that the other side says within some seconds; and whether that side is there."""
    until, is_heard = time.monotonic() + wait_s, wait_s == 0
    try:
        while connection.poll(max(0.0, until - time.monotonic())):
            said, is_heard = connection.recv(), True
            if isinstance(said, Failure):
                return said, True
    except (OSError, EOFError):
        return None, False
    return None, is_heard


def ended(code: int | None) -> str:
    """How a process has ended, as the end of a sentence."""
    if code is None:
        return "has ended"
    return f"was killed by signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def free_port(host: str) -> int:
    """A port of this machine that is free now.  Args: host: the address to listen on; empty: all."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def connected(rank: int, what: str, address: tuple[str, int], key: bytes) -> Connection:
    """A connection to the leader.  Raises: OSError, EOFError, AuthenticationError: it is not there."""
    connection = Client(address, authkey=key)
    connection.send((rank, what, node_name()))
    return connection


def meet(group: Group, address: tuple[str, int], key: bytes) -> Connection:
    """Connect to the leader; this process ends at once where that one does, or gives no sign of life.

    Returns: what it tells.
    """
    told, beats = (connected(group.rank, what, address, key) for what in (TOLD, BEATS))
    threading.Thread(target=_beat, args=(beats,), name="group", daemon=True).start()
    return told


def _beat(beats: Connection) -> None:
    silence = Silence()
    while not silence.is_too_long():
        try:
            beats.send(None)
            while beats.poll(0):
                beats.recv()
                silence.hear()
        except (OSError, EOFError):
            break
        time.sleep(BEAT_S)
    os._exit(1)
