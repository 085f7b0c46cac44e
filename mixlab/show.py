"""The command `mixlab show`."""

import argparse

from experiments.results.metrics import PREDICTED
from mixlab.common import add_store, noting_a_look, store_option

HELP = "Print one trial: its spec, environment, memory, layers, result, accuracy by class, confusions and curve."
EXAMPLE = "mixlab show 3f9c"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("id", help="the trial's id, or the beginning of it")
    which = f"whose accuracy by class and confusions are shown: {', '.join(PREDICTED)} (default: that of the last step)"
    parser.add_argument("--predictions", metavar="NAME", help=which)
    parser.add_argument("--memory", metavar="GIB", help="say in which settings it fits into a device with so much")
    parser.add_argument("--test", action="store_true", help="show test numbers; counts as a look at them")


def command(arguments: argparse.Namespace) -> int:
    from analysis.terminal import fits_lines
    from analysis.terminal.details import show_lines
    from experiments.design import seen
    from experiments.results import metrics
    from experiments.results.store import Store

    store, test = Store(arguments.store), metrics.TEST
    shows_test = arguments.test or (arguments.predictions or "").endswith(f".{test}")
    predicted = arguments.predictions or f"{metrics.LAST}.{test if shows_test else metrics.VALIDATION}"
    device = None if arguments.memory is None else fits_lines.read(arguments.memory)
    print("\n".join(show_lines(arguments.id, store, predicted, shows_test, device)))
    if shows_test:
        with noting_a_look():
            seen.note(store, [store.find(arguments.id)])
    else:
        print(f"\ntest numbers: mixlab show {arguments.id} --test{store_option(store)}")
    return 0
