"""The command `mixlab evaluate`."""

import argparse
import os
from dataclasses import replace
from pathlib import Path

from mixlab.common import WEIGHTS, add_choice, add_store

HELP = "Print the accuracy of a file of weights on the test examples of a data set."
EXAMPLE = "mixlab evaluate --weights Mixer-B_16.npz path/to/imagenet --backend jax"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE", help=WEIGHTS)
    add_choice(parser)
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="DATA", help="the source, and fields of it as data.<field>=value"
    )
    parser.add_argument(
        "--classes", type=Path, metavar="FILE", help="the classes of the weights, a line each, in order"
    )
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
    from experiments.results.metrics import LOSS, METRICS
    from experiments.results.store import Store
    from experiments.weights import class_order, recipes, weight_files

    devices.read(arguments.device, "command line: --device")
    store = Store(arguments.store)
    store.check_folder()
    weights = weight_files.read(arguments.weights, arguments.ema, arguments.group)
    recipe_options = {name: getattr(arguments, name) for name in recipes.Options.__dataclass_fields__}
    recipe = recipes.find(recipes.Options(**recipe_options), weights, arguments.weights)
    config = recipe.config(evaluation.read_data(arguments.overrides, weights.model))
    if arguments.classes:
        weights = replace(weights, classes=class_order.read(arguments.classes))
    run = RunSpec(arguments.device, arguments.precision, threads=len(os.sched_getaffinity(0)))
    result = evaluation.evaluate(weights, config, recipe, store.data, arguments.backend, run)
    print("\n".join(weights_lines(weights)))
    print(f"images      {recipe.line(config)}")
    print(f"test        {result.num_examples:,} examples of {config.source}")
    print(f"classes     {result.classes}")
    for name, value in result.metrics.items():
        metric = METRICS[name]
        unit = f"({evaluation.TEST_LOSS})" if metric is LOSS else metric.unit
        print(f"{name:11} {metric.scale * value:.{metric.digits_alone}f} {unit}")
    for note in result.notes:
        print(f"note        {note}")
    return 0
