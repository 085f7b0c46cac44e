"""The command `mixlab plan`."""

import argparse

from mixlab.common import add_ablation, add_overrides, add_store, data_notes, load

HELP = "List an ablation's trials: id, settings, parameters, GFLOP, memory, and whether each is done."
EXAMPLE = "mixlab plan experiments/ablations/tying.yaml data.source=path/to/cifar10"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    add_ablation(parser)
    add_overrides(parser)


def command(arguments: argparse.Namespace) -> int:
    from analysis.terminal.listing import plan_lines

    store, ablation, trials = load(arguments)
    print("\n".join([*plan_lines(trials, store), *data_notes(ablation, trials, store)]))
    return 0
