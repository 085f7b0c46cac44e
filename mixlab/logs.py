"""The command `mixlab logs`."""

import argparse

from mixlab.common import add_store, find_trials

HELP = "Print what the jobs of an ablation, or of one trial, have written, and the errors of failed trials."
EXAMPLE = "mixlab logs tying --failed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("what", help="the name of an ablation, or the beginning of a trial's id")
    parser.add_argument("--follow", action="store_true", help="go on until none of them is on its way")
    parser.add_argument("--failed", action="store_true", help="only of trials that failed or were lost")


def command(arguments: argparse.Namespace) -> int:
    from experiments.results.store import Store
    from slurm import logs
    from slurm.status import overview

    store = Store(arguments.store)
    ids = find_trials(store, arguments.what)
    if arguments.failed:
        states = overview(store, ids).states
        ids = [key for key in ids if states[key].status in ("failed", "lost")]
        if not ids:
            print("none of these trials has failed or was lost")
            return 0
    lines = logs.follow(store, ids) if arguments.follow else logs.lines(store, ids, whole=len(ids) == 1)
    for line in lines:
        print(line, flush=arguments.follow)
    return 0
