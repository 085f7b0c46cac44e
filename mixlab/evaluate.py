"""The command `mixlab evaluate`."""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mixlab.common import COMMAND_LINE, WEIGHTS, add_choice, add_store, read_weights

HELP = "Print the accuracy of weights on the test examples of a data set."
EXAMPLE = "mixlab evaluate --weights Mixer-B_16.npz path/to/imagenet --backend jax"

if TYPE_CHECKING:
    from experiments.evaluation import Evaluation, Probed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("--weights", required=True, metavar="FILE", help=f"{WEIGHTS}; or trial:ID, those it has kept")
    add_choice(parser)
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="DATA", help="the source, and fields of it as data.<field>=value"
    )
    parser.add_argument(
        "--classes", type=Path, metavar="FILE", help="the classes of the weights, a line each, in order"
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="in place of the head, few-shot linear probes of the features, of any classes",
    )
    parser.add_argument("--shots", default="5", help="training examples of each class that a probe gets: 5, 1,5,10 (5)")
    _add_recipe(parser)
    parser.add_argument("--backend", default="torch", help="torch, jax or an installed one (default: torch)")
    parser.add_argument("--precision", choices=("float32", "float64"), default="float32", help="(default: float32)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ..., tpu (default: auto)")


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add the options of how images are prepared; by default as in trials."""
    recipe = parser.add_argument_group(
        "recipe", "how the weights' own recipe prepares images; without these options as in trials"
    )
    recipe.add_argument(
        "--recipe",
        choices=("inception", "imagenet", "timm"),
        help="mean, std, resize and crop of a preset, or (timm) of the file's metadata or the config.json beside it",
    )
    recipe.add_argument("--mean", metavar="M[,M,M]", help="mean of pixels in [0, 1], for all channels or for each")
    recipe.add_argument("--std", metavar="S[,S,S]", help="deviation that they are divided by")
    recipe.add_argument("--resize", metavar="PIXELS", help="resize the shorter side to this; or squash, to the square")
    recipe.add_argument("--crop", metavar="SHARE", help="share of the shorter side that is cut out, such as 0.875")
    recipe.add_argument("--interpolation", help="bilinear, bicubic, lanczos, box, hamming or nearest")


def command(arguments: argparse.Namespace) -> int:
    from analysis.terminal.details import weights_lines
    from backends import devices
    from backends.specs import RunSpec
    from experiments import evaluation
    from experiments.results.store import Store
    from experiments.spec.expand import expand
    from experiments.weights import class_order, of_trials, recipes

    devices.read(arguments.device, "command line: --device")
    shots = evaluation.read_shots(arguments.shots)
    store = Store(arguments.store)
    store.check_folder()
    path = of_trials.find(expand(arguments.weights, f"{COMMAND_LINE}: --weights"), store)
    weights, config = evaluation.fitted(read_weights(path, arguments), arguments.overrides)
    if (trial := of_trials.trial_of(path)) is not None:
        evaluation.check_permutation(trial, config)
    recipe_options = {name: getattr(arguments, name) for name in recipes.Options.__dataclass_fields__}
    recipe = recipes.find(recipes.Options(**recipe_options), weights, path)
    config = recipe.config(config)
    if arguments.classes:
        weights = replace(weights, classes=class_order.read(arguments.classes))
    run = RunSpec(arguments.device, arguments.precision, threads=len(os.sched_getaffinity(0)))
    how = (weights, config, recipe, store.data, arguments.backend, run)
    result = evaluation.probe(*how, shots) if arguments.probe else evaluation.evaluate(*how)
    print("\n".join(weights_lines(weights)))
    print(f"images      {recipe.line(config)}")
    print(f"test        {result.num_examples:,} examples of {config.source}")
    print("\n".join(_probe_lines(result) if isinstance(result, evaluation.Probed) else _head_lines(result)))
    for note in result.notes:
        print(f"note        {note}")
    return 0


def _head_lines(result: "Evaluation") -> list[str]:
    from experiments.evaluation import TEST_LOSS
    from experiments.results.metrics import LOSS, every

    lines = [f"classes     {result.classes}"]
    for name, value in result.metrics.items():
        metric = every()[name]
        unit = f"({TEST_LOSS})" if metric is LOSS else metric.unit
        lines.append(f"{name:11} {metric.scale * value:.{metric.digits_alone}f} {unit}")
    return lines


def _probe_lines(result: "Probed") -> list[str]:
    """A line for each number of shots: the mean over seeds, and each."""
    from statistics import fmean

    from experiments.results.metrics import ACCURACY, probe_name
    from experiments.training.probe import SEEDS

    lines = []
    for shots, each in result.each_seed.items():
        mean, *alone = (f"{ACCURACY.scale * x:.{ACCURACY.digits_alone}f}" for x in (fmean(each), *each))
        seeds = f"mean of seeds {', '.join(map(str, SEEDS))}: {', '.join(alone)}"
        lines.append(f"{probe_name(shots)} {mean} {ACCURACY.unit} ({seeds})")
    return lines
