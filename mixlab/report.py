"""`mixlab report`."""

import argparse

from mixlab.common import add_ablation, add_overrides, add_store, load, table

HELP = "Print an ablation's table: mean, standard deviation and n over seeds."
EXAMPLE = "mixlab report experiments/ablations/tying.yaml --format markdown"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    add_ablation(parser)
    add_overrides(parser)
    formats = ("text", "csv", "markdown", "json")
    parser.add_argument("--format", choices=formats, default="text", help="(default: text)")


def command(arguments: argparse.Namespace) -> int:
    store, ablation, trials = load(arguments)
    print(table(ablation, trials, store, arguments.format), end="")
    return 0
