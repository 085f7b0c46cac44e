"""The command `mixlab compare`."""

import argparse

from experiments.results.metrics import DEFAULT
from mixlab.common import add_store

HELP = "Compare the same trials in two stores, or under two commits of the project."
EXAMPLE = "mixlab compare runs /scratch/their/runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    words = "a results directory, a commit of --store, or DIRECTORY@COMMIT"
    parser.add_argument("first", metavar="RUN_SET_A", help=words)
    parser.add_argument("second", metavar="RUN_SET_B", help="likewise")
    parser.add_argument("--metric", default=DEFAULT, help=f"(default: {DEFAULT})")


def command(arguments: argparse.Namespace) -> int:
    from analysis.run_sets import read_run_set
    from analysis.terminal.compare import compare_lines
    from experiments.spec.expand import expand

    sets = [expand(text, "command line: run set") for text in (arguments.first, arguments.second)]
    first, second = (read_run_set(text, arguments.store) for text in sets)
    print("\n".join(compare_lines(first, second, arguments.metric)))
    return 0
