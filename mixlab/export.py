"""The command `mixlab export`."""

import argparse
from pathlib import Path

from analysis.export import TARGETS, exporter
from mixlab.common import add_overrides, add_store, find

HELP = "Write an ablation's runs for TensorBoard, W&B, MLflow or Trackio, also while they grow."
EXAMPLE = "mixlab export tying --to tensorboard runs/tensorboard"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("ablation", help="its YAML file, or its name, as it was last run or submitted")
    parser.add_argument("--to", choices=tuple(TARGETS), required=True, help="what is to read them")
    parser.add_argument("out", type=Path, metavar="DIR", help="the folder to write; it may not exist yet")
    add_overrides(parser)


def command(arguments: argparse.Namespace) -> int:
    target, export = TARGETS[arguments.to], exporter(arguments.to)
    store, _, trials = find(arguments.ablation, arguments.overrides, arguments)
    if not target.of_runs:
        print("\n".join(export(store, [planned for planned in trials if not planned.tunes], arguments.out)))
        return 0
    return 0
