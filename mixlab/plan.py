"""The command `mixlab plan`."""

import argparse

from mixlab.common import COMMAND_LINE, add_ablation, add_overrides, add_store, data_notes, load

HELP = "List an ablation's trials: id, settings, parameters, GFLOP, memory, and whether each is done."
EXAMPLE = "mixlab plan experiments/ablations/tying.yaml data.source=path/to/cifar10"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    add_ablation(parser)
    parser.add_argument(
        "--target",
        metavar="DEVICE",
        help="compile each distinct program for a device that is not here (jax): tpu:v5e:2x2, cuda:h100, ...",
    )
    add_overrides(parser)


def command(arguments: argparse.Namespace) -> int:
    from analysis.terminal.listing import plan_lines
    from analysis.terminal.matched_lines import matched_lines

    if arguments.target is not None:
        return _compile(arguments)
    store, ablation, trials = load(arguments)
    told = [*plan_lines(trials, store), *matched_lines(ablation, trials), *data_notes(ablation, trials, store)]
    print("\n".join(told))
    return 0


def _compile(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from analysis.terminal import target_lines
    from backends.targets import parse
    from experiments.bench import targets

    target = parse(arguments.target, f"{COMMAND_LINE}: --target")
    _, _, trials = load(arguments)
    targets.check(target, trials)
    with Console(stderr=True).status("begins") as status:
        programs = list(targets.compiled(target, trials, status.update))
    print("\n".join(target_lines.lines(target, programs)))
    return 0
