"""Take down the cluster inside a directory: python3 -m slurm.testbed.down [DIR] [--purge]."""

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from backends.errors import MixlabError, show_chain
from slurm.testbed import daemons, processes
from slurm.testbed.cluster import SERVERS
from slurm.testbed.layout import Layout, default_directory

USER_ERROR = 2  # exit code
CANCEL_TIMEOUT_S = 8.0
TASK_GRACE_S = 1.0  # between a task's SIGTERM, which Submitit passes over, and SIGKILL


def down(directory: Path | str, purge: bool = False) -> None:
    """Cancel the jobs and stop every process of the cluster in a directory; `purge` removes the directory too.

    It does nothing where no cluster runs. Raises: MixlabError: it is another user's, or `purge` finds no cluster.
    """
    layout = Layout.of(directory)
    if os.geteuid() != 0:  # root sees and may end everybody's processes
        layout.check_owner(os.geteuid())
    if purge and layout.directory.exists() and not layout.marker.exists():
        raise MixlabError(f"{layout.directory}: it holds no cluster, so it is not removed")
    if "slurmctld" in processes.daemons(layout):
        _cancel_jobs(layout)
    if not purge:
        _stop_daemons(layout)
    processes.end(lambda: processes.of_cluster(layout), signal.SIGKILL)
    if purge:
        shutil.rmtree(layout.directory, ignore_errors=True)


def _stop_daemons(layout: Layout) -> None:
    """Let each daemon save its state, before those that it depends on stop."""
    nodes = processes.daemons(layout) - set(SERVERS)
    processes.end(lambda: processes.of_daemons(layout, *nodes))
    for server in reversed(SERVERS):
        processes.end(partial(processes.of_daemons, layout, server))


def _cancel_jobs(layout: Layout) -> None:
    """Cancel as users do, so that the accounting of a directory that is kept says CANCELLED."""
    for state in ("PENDING", "RUNNING", "SUSPENDED"):
        daemons.ask(layout, "scancel", "--quiet", f"--state={state}")

    def idle() -> bool:
        return not daemons.ask(layout, "squeue", "--noheader", "--format=%A")

    if not processes.wait_until(idle, TASK_GRACE_S):
        processes.send([process for process in processes.of_cluster(layout) if process.role == "task"], signal.SIGKILL)
        processes.wait_until(idle, CANCEL_TIMEOUT_S)


def main(arguments: Sequence[str] | None = None) -> int:
    """Take a cluster down; returns the exit code."""
    parser = argparse.ArgumentParser("slurm-down", description="Take down the Slurm inside a directory.")
    parser.add_argument("directory", nargs="?", default=default_directory(), help="default: %(default)s")
    parser.add_argument("--purge", action="store_true", help="remove the directory as well")
    options = parser.parse_args(arguments)
    try:
        down(options.directory, options.purge)
    except MixlabError as error:
        show_chain(error)
        print(f"slurm-down: {error}", file=sys.stderr)
        return USER_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
