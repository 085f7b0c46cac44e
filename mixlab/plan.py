"""The command `mixlab plan`."""

import argparse
from pathlib import Path

from mixlab.common import COMMAND_LINE, add_overrides, add_store, data_notes, load_or_recall, waiting_lines

HELP = "Say what an ablation costs and what its seeds can show, and list its trials, done or not."
EXAMPLE = "mixlab plan experiments/ablations/tying.yaml --sd 0.4 --detect 0.5"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument(
        "ablation", type=Path, help="its YAML file, or its name, as it was last run or submitted with this store"
    )
    parser.add_argument(
        "--target",
        metavar="DEVICE",
        help="compile each distinct program for a device that is not here (jax): tpu:v5e:2x2, cuda:h100, ...",
    )
    parser.add_argument("--all", action="store_true", help="list every trial, not only the first ones")
    parser.add_argument(
        "--sd",
        metavar="NUMBER",
        help="standard deviation over seeds of the table's metric, of one setting, in points of an accuracy or nats of "
        "a loss: what the grid can show is said by it (default: by the store's records)",
    )
    parser.add_argument(
        "--detect", metavar="NUMBER", help="say how many seeds show a difference of so much, in the same unit"
    )
    parser.add_argument(
        "--rate",
        metavar="FLOP/S",
        help="say how long a device takes that sustains so much, such as 1.25e14",
    )
    parser.add_argument(
        "--memory",
        metavar="GIB",
        help="say what fits into the memory of a device that is not here, such as 80: by train.microbatches, run.remat "
        "and run.devices (a trial that does not fit here is told without it)",
    )
    add_overrides(parser)


def command(arguments: argparse.Namespace) -> int:
    from analysis.planning.known import Known
    from analysis.terminal import fits_lines, plan_lines, shows_lines
    from analysis.terminal.matched_lines import matched_lines

    if arguments.target is not None:
        return _compile(arguments)
    numbers = {name: getattr(arguments, name) for name in ("sd", "detect")}
    asked = shows_lines.Asked(
        **{name: shows_lines.read(text, f"--{name}") for name, text in numbers.items() if text is not None}
    )
    rate = None if arguments.rate is None else shows_lines.read(arguments.rate, "--rate", "FLOP/s, such as 1.25e14")
    device = None if arguments.memory is None else fits_lines.read(arguments.memory)
    store, ablation, trials = load_or_recall(arguments)
    about = [*matched_lines(ablation, trials), *waiting_lines(ablation, trials), *data_notes(ablation, trials, store)]
    known = Known.of(ablation, trials, store)
    print("\n".join([*plan_lines.lines(known, asked, arguments.all, rate, device), *about]))
    return 0


def _compile(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from analysis.terminal import target_lines
    from backends.targets import parse
    from experiments.bench import targets

    target = parse(arguments.target, f"{COMMAND_LINE}: --target")
    _, _, trials = load_or_recall(arguments)
    targets.check(target, trials)
    with Console(stderr=True).status("begins") as status:
        programs = list(targets.compiled(target, trials, status.update))
    print("\n".join(target_lines.lines(target, programs)))
    return 0
