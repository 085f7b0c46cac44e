"""`mixlab evaluate`."""

import argparse
import os
from dataclasses import replace
from pathlib import Path

from mixlab.common import WEIGHTS, add_store

HELP = "Print the accuracy of a file of weights on the test examples of a data set."
EXAMPLE = "mixlab evaluate --weights Mixer-B_16.npz path/to/imagenet --backend jax"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE", help=WEIGHTS)
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="DATA", help="the source, and fields of it as data.<field>=value"
    )
    parser.add_argument(
        "--classes", type=Path, metavar="FILE", help="the classes of the weights, a line each, in order"
    )
    parser.add_argument("--backend", default="torch", help="torch, jax or an installed one (default: torch)")
    parser.add_argument("--precision", choices=("float32", "float64"), default="float32", help="(default: float32)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")


def command(arguments: argparse.Namespace) -> int:
    from analysis.details import weights_lines
    from backends.contract import RunSpec
    from experiments import class_order, evaluation, weight_files
    from experiments.store import Store

    store = Store(arguments.store)
    store.check_folder()
    weights = weight_files.read(arguments.weights)
    config = evaluation.read_data(arguments.overrides, weights.model)
    if arguments.classes:
        weights = replace(weights, classes=class_order.read(arguments.classes))
    run = RunSpec(arguments.device, arguments.precision, threads=len(os.sched_getaffinity(0)))
    found = evaluation.evaluate(weights, config, store.data, arguments.backend, run)
    print("\n".join(weights_lines(weights)))
    print(f"test        {found.num_examples:,} examples of {config.source}")
    print(f"classes     {found.classes}")
    print(f"accuracy    {100 * found.accuracy:.2f} %\nloss        {found.loss:.6f} (softmax)")
    for note in found.notes:
        print(f"note        {note}")
    return 0
