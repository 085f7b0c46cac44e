"""Processes of a cluster, known by a mark in their environment, since a file of process ids may be out of date."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slurm.testbed.layout import Layout

DIRECTORY_MARK = "MIXLAB_TESTBED"
DAEMON_MARK = "MIXLAB_TESTBED_DAEMON"
CHILDREN = ("slurmstepd", "slurmscriptd")  # started by slurmd and slurmctld, with their environment
POLL_S = 0.05
END_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Process:
    """A process of a cluster; `daemon` is the one that it is or was started by: a task's is its node's slurmd."""

    pid: int
    daemon: str
    role: Literal["daemon", "child", "task"]


def start(command: Sequence[str], environment: Mapping[str, str], console: Path, sockets: Iterable[int] = ()) -> None:
    """Start a process that nobody waits for, in a session of its own; the descriptors `sockets` stay open in it."""
    with console.open("wb") as output:
        subprocess.run(
            ["setsid", "--fork", *command],
            env=dict(environment),
            cwd=console.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=tuple(sockets),
            check=True,
        )


def of_cluster(layout: Layout) -> list[Process]:
    """The processes that provably belong to this cluster: daemons, their slurmstepd, and the tasks of jobs."""
    mark = str(layout.directory)
    processes = []
    for folder in Path("/proc").glob("[0-9]*"):
        environment = _environment(folder)
        if environment.get(DIRECTORY_MARK) == mark:
            processes.append(_marked(folder, environment.get(DAEMON_MARK, "")))
        elif environment.get("SLURM_CONF") == str(layout.slurm_conf) and "SLURMD_NODENAME" in environment:
            # slurmstepd sets SLURMD_NODENAME, and for tasks only: a user's shell with SLURM_CONF is none of ours.
            processes.append(Process(int(folder.name), environment["SLURMD_NODENAME"], "task"))
    return [process for process in processes if process.pid != os.getpid()]


def _environment(folder: Path) -> dict[str, str]:
    """A process's environment; empty for a zombie, a process of another user's, and one that has ended."""
    try:
        text = (folder / "environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in text.split("\0") if "=" in line)


def _marked(folder: Path, daemon: str) -> Process:
    try:
        name = (folder / "comm").read_text().strip()
    except OSError:
        name = ""
    return Process(int(folder.name), daemon, "child" if name in CHILDREN else "daemon")


def of_daemons(layout: Layout, *names: str) -> list[Process]:
    """The running daemons of these names, without their children."""
    return [process for process in of_cluster(layout) if process.role == "daemon" and process.daemon in names]


def daemons(layout: Layout) -> set[str]:
    """The names of the daemons that run."""
    return {process.daemon for process in of_cluster(layout) if process.role == "daemon"}


def send(processes: Iterable[Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            continue


def end(find: Callable[[], list[Process]], number: signal.Signals = signal.SIGTERM) -> None:
    """Signal the processes that `find` returns, and return when it finds none; those that stay get SIGKILL."""

    def gone(number: signal.Signals) -> bool:
        left = find()
        send(left, number)
        return not left

    if not gone(number) and (number == signal.SIGKILL or not wait_until(lambda: not find(), END_TIMEOUT_S)):
        # Again and again: a slurmstepd may have started a task since the last look.
        wait_until(lambda: gone(signal.SIGKILL), END_TIMEOUT_S)


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait for a condition; tell whether it came true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
