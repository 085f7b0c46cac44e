"""The command `mixlab parity`."""

import argparse
import contextlib
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from backends.errors import MixlabError
from mixlab.common import TRIAL_FAILED, add_overrides, add_store, data_cache

if TYPE_CHECKING:
    from analysis.terminal.parity_lines import Climbed

HELP = "Prove that two backends, precisions or devices train the same model, or name where they differ."
EXAMPLE = "mixlab parity experiments/bases/cifar10.yaml --pair torch:float64,jax:float64"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("ablation", type=Path, help="the YAML file of a base, or of an ablation: each distinct model")
    parser.add_argument("--pair", default="torch,jax", help="two of backend[:precision[:device]] [xD] (torch,jax)")
    parser.add_argument("--steps", type=int, default=200, help="of the trajectory (200)")
    parser.add_argument("--python", action="append", default=[], metavar="BACKEND=PATH", help="another interpreter")
    parser.add_argument(
        "--with", dest="checks", action="append", default=[], metavar="CHECK", help="compile: also that"
    )
    parser.add_argument("--json", action="store_true", help="for scripts")
    parser.add_argument("--markdown", action="store_true", help="a table, a row for each model")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="a picture of the divergence over depth and steps")
    add_overrides(parser)


def command(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from analysis.terminal import parity_lines
    from analysis.terminal.parity_lines import Climbed
    from experiments.design.ablation import load_base
    from experiments.parity import pair
    from experiments.parity.trials import conditions, not_covered, read_checks, trials
    from experiments.results.store import Store

    if arguments.steps < 2:
        raise MixlabError(f"command line: --steps: expected at least 2, got {arguments.steps}")
    sides = pair.read_pair(arguments.pair)
    pythons = pair.read_pythons(arguments.python, sides)
    asked = read_checks(arguments.checks)
    if arguments.plot:
        parity_lines.check_plot(arguments.plot)
    store = Store(arguments.store)
    store.check_folder()
    ablation = load_base(arguments.ablation, arguments.overrides)
    cache = data_cache(ablation, store)
    planned = trials(ablation, arguments.steps, cache, asked)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what is temporary is removed
    climbed: list[Climbed] = []
    console = Console(stderr=True)
    with (
        contextlib.closing(pair.ladders(planned, sides, arguments.steps, cache, pythons)) as ladders,
        console.status("both sides start") as status,
    ):
        for one, ladder in zip(planned, ladders, strict=True):
            title = " ".join(filter(None, (ablation.name, one.label)))
            about, rungs = list(ladder.about()), []
            for rung in ladder.climb():
                status.update(f"{title}: {rung.name} compared, model {len(climbed) + 1} of {len(planned)}")
                rungs.append(rung)
            climbed.append(Climbed(title, sides, conditions(one.trial), not_covered(one), about, rungs))
            if not (arguments.json or arguments.markdown):
                print("\n".join([*parity_lines.lines(climbed[-1]), ""]), flush=True)
    return _end(climbed, arguments)


def _end(ladders: "list[Climbed]", arguments: argparse.Namespace) -> int:
    """Print the outcome of all models together; returns the exit code."""
    from analysis.terminal import parity_lines

    if arguments.json:
        print(json.dumps([parity_lines.as_json(climbed) for climbed in ladders], allow_nan=False))
    elif arguments.markdown:
        print(parity_lines.markdown(ladders))
    elif len(ladders) > 1:
        print(parity_lines.summary(ladders))
    if arguments.plot:
        parity_lines.plot(arguments.plot, ladders)
    return 0 if all(climbed.passed for climbed in ladders) else TRIAL_FAILED
