"""The command `mixlab show`."""

import argparse

from mixlab.common import add_store

HELP = "Print one trial: its spec, environment, layers, result and curve."
EXAMPLE = "mixlab show 3f9c"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("id", help="the trial's id, or the beginning of it")


def command(arguments: argparse.Namespace) -> int:
    from analysis.terminal.details import show_lines
    from experiments.results.store import Store

    print("\n".join(show_lines(arguments.id, Store(arguments.store))))
    return 0
