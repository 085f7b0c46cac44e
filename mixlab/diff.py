"""The command `mixlab diff`."""

import argparse
from pathlib import Path

from mixlab.common import COMMAND_LINE, add_store

HELP = "Print what differs between two trials in spec, code, environment and data, and where their curves part."
EXAMPLE = "mixlab diff 3f9c 71b0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("first", metavar="TRIAL_A", help="the trial's id, or the beginning of it")
    parser.add_argument("second", metavar="TRIAL_B", help="likewise")
    parser.add_argument("--other-store", type=Path, help="the results directory of TRIAL_B (default: that of TRIAL_A)")


def command(arguments: argparse.Namespace) -> int:
    from analysis.one_trial import read
    from analysis.terminal.diff import diff_lines
    from backends.errors import MixlabError
    from experiments.results.store import Store

    stores = (Store(arguments.store), Store(arguments.other_store or arguments.store))
    ids = [store.find(prefix) for store, prefix in zip(stores, (arguments.first, arguments.second), strict=True)]
    if ids[0] == ids[1] and stores[0].root.resolve() == stores[1].root.resolve():
        raise MixlabError(
            f"{COMMAND_LINE}: expected two trials, got {ids[0]} twice; --other-store names another results directory"
        )
    print("\n".join(diff_lines(*(read(store, trial_id) for store, trial_id in zip(stores, ids, strict=True)))))
    return 0
