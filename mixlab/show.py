"""The command `mixlab show`."""

import argparse

from experiments.results.metrics import PREDICTED
from mixlab.common import add_store

HELP = "Print one trial: its spec, environment, layers, result, accuracy by class, confusions and curve."
EXAMPLE = "mixlab show 3f9c"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("id", help="the trial's id, or the beginning of it")
    which = f"whose accuracy by class and confusions are shown: {', '.join(PREDICTED)} (default: {PREDICTED[0]})"
    parser.add_argument("--predictions", metavar="NAME", default=PREDICTED[0], help=which)


def command(arguments: argparse.Namespace) -> int:
    from analysis.terminal.details import show_lines
    from experiments.results.store import Store

    print("\n".join(show_lines(arguments.id, Store(arguments.store), arguments.predictions)))
    return 0
