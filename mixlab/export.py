"""The command `mixlab export`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.export import TARGETS, exporter
from mixlab.common import COMMAND_LINE, add_overrides, add_store, find, note_unsealed

if TYPE_CHECKING:
    from analysis.export.weights import Selection
    from experiments.design.ablation import Ablation, GridTrial
    from experiments.results.store import Store

HELP = "Write an ablation's runs for TensorBoard, W&B, MLflow or Trackio, or its models for the hub (hf) or as ONNX."
EXAMPLE = "mixlab export tying --to tensorboard exported"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    which = "its YAML file, or its name, as it was last run or submitted; a model: also the id of a trial"
    parser.add_argument("ablation", help=which)
    parser.add_argument("--to", choices=tuple(TARGETS), required=True, help="what is to read it")
    parser.add_argument("out", type=Path, metavar="DIR", help="the folder to write, which may not exist yet")
    parser.add_argument("--test", action="store_true", help="with the numbers of the test split; that is noted")
    add_overrides(parser)


def command(arguments: argparse.Namespace) -> int:
    export = exporter(arguments.to)
    if not TARGETS[arguments.to].of_runs:
        store, selection = _selection(arguments)
        print("\n".join(export(store, selection, arguments.out)))
        return 0
    return 0


def _selection(arguments: argparse.Namespace) -> "tuple[Store, Selection]":
    """The store, and the trials of an ablation's table, or the one whose id begins with the word.

    Raises: MixlabError: neither is there; --test is given and the target tells no numbers.
    """
    from analysis.export.weights import Selection
    from backends.errors import MixlabError
    from experiments.results.store import Store

    if arguments.test and not TARGETS[arguments.to].has_numbers:
        raise MixlabError(f"{COMMAND_LINE}: --test: --to {arguments.to} has no use for it; leave it out")
    word, store = arguments.ablation, Store(arguments.store)
    is_file = word.endswith((".yaml", ".yml", ".json"))
    if is_file or word in store.ablations() or not any(key.startswith(word) for key in store.trial_ids()):
        store, ablation, trials = find(word, arguments.overrides, arguments)
        _unseal(arguments, store, ablation, trials)
        labels = {planned.trial.id: planned.label for planned in trials if not planned.tunes}
        return store, Selection(labels, ablation.name, ablation.question, test=arguments.test)
    if arguments.overrides:
        raise MixlabError(f"{COMMAND_LINE}: {arguments.overrides[0]!r}: a trial has no field to set; leave it out")
    return store, _of_one(arguments, store, store.find(word))


def _of_one(arguments: argparse.Namespace, store: "Store", key: str) -> "Selection":
    """A trial alone; with the question of its ablation, where it is of one and no more."""
    from analysis.export.weights import Selection
    from experiments.design import archive

    names = [name for name in store.ablations() if key in store.ablation_labels(name)]
    found = [archive.recall(store, name) for name in names if (store.ablation(name) / archive.FILE).exists()]
    for ablation, trials in found:
        _unseal(arguments, store, ablation, trials)
    if len(found) != 1:
        return Selection({key: ""}, is_one=True, test=arguments.test)
    ((ablation, trials),) = found
    label = next((planned.label for planned in trials if planned.trial.id == key), "")
    return Selection({key: label}, ablation.name, ablation.question, is_one=True, test=arguments.test)


def _unseal(arguments: argparse.Namespace, store: "Store", ablation: "Ablation", trials: "list[GridTrial]") -> None:
    """Note that test numbers of an ablation are shown, if they are asked for."""
    if arguments.test:
        contents = {planned.trial.id: planned.trial.info.content for planned in trials if not planned.tunes}
        note_unsealed(store, ablation.name, contents)
