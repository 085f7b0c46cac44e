"""A task of a job that leads no trial: for one group after the other it starts a process that follows."""

import contextlib
import multiprocessing
import time
from dataclasses import replace
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection

from backends.microbatches import Group
from experiments.machine import malloc, memory
from experiments.running import meeting
from experiments.running.failures import Failure
from experiments.running.follower import follow
from experiments.running.opener import WorkerSpec
from experiments.running.rendezvous import Invitation, Rendezvous

POLL_S = 0.5  # how often the file of the rendezvous is looked at
GONE = (OSError, EOFError, AuthenticationError)  # errors of a leader that has ended since it invited

_CONTEXT = multiprocessing.get_context("spawn")


def follow_groups(spec: WorkerSpec, rank: int, rendezvous: Rendezvous) -> None:
    """Follow the leaders of a rendezvous, until no more come.  Args: spec: of a process with all the task's cores."""
    last = 0
    while True:
        now = rendezvous.invitation()
        if now is None or now.number == last:
            time.sleep(POLL_S)
            continue
        if now.is_over:
            return
        last = now.number
        with contextlib.suppress(*GONE):
            key = bytes.fromhex(now.key)
            task = meeting.connected(rank, meeting.TASK, now.address, key)
            own = replace(spec, backend=now.backend, cpus=spec.cpus[: now.num_cpus], hired_s=time.monotonic())
            _follow(own, Group(rank, rendezvous.size), now, key, task)


def _follow(spec: WorkerSpec, group: Group, now: Invitation, key: bytes, task: Connection) -> None:
    """Start the process, and say what becomes of it.  Raises: OSError: nobody listens any more."""
    oom_kills = memory.oom_kills()
    process = _CONTEXT.Process(target=follow, args=(spec, group, now.address, key), name=f"mixlab-rank-{group.rank}")
    with malloc.large_pages():
        process.start()
    try:
        while process.is_alive():
            process.join(meeting.BEAT_S)
            task.send(None)
    finally:
        process.join(meeting.SILENT_S)  # by itself, as its leader has gone
        process.kill()
        process.join()
    how = meeting.ended(process.exitcode)
    is_out_of_memory = memory.oom_kills() > oom_kills
    reason = "was killed as the memory was out" if is_out_of_memory else how
    task.send(Failure("out_of_memory" if is_out_of_memory else "killed", f"its process {reason}"))
    task.close()
