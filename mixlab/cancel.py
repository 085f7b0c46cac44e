"""The command `mixlab cancel`."""

import argparse

from backends.errors import counted
from mixlab.common import USER_ERROR, add_store, find_trials

HELP = "Cancel an ablation's trials that are on their way to or on a Slurm cluster, or one trial."
EXAMPLE = "mixlab cancel tying"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("what", help="the name of an ablation, or the beginning of a trial's id")


def command(arguments: argparse.Namespace) -> int:
    from experiments.results.store import Store
    from slurm import following
    from slurm.cancelling import cancel

    store = Store(arguments.store)
    # First, or it would send what is cancelled here; what it has sent when it is ended, is found below.
    is_whole = arguments.what in store.ablations()
    for job in following.cancel_next(store, arguments.what) if is_whole else ():
        print(f"ended job {job}, which would have sent the trials of the table")
    ids = find_trials(store, arguments.what)
    cancelled = cancel(store, ids)
    if cancelled.trials:
        jobs = f"; ended in Slurm: {', '.join(cancelled.jobs)}" if cancelled.jobs else ""
        told = f"{len(cancelled.trials)} of {counted(len(ids), 'trial')}"
        print(f"cancelled {told}{jobs}; mixlab retry or submit sends them again")
    else:
        print(f"nothing to cancel: none of {counted(len(ids), 'trial')} is on its way")
    if cancelled.silence:
        print(f"mixlab: {cancelled.silence}; none of these trials goes on, but their jobs stay: cancel again later")
        return USER_ERROR
    return 0
