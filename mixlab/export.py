"""The command `mixlab export`."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.export import TARGETS, exporter
from backends.errors import MixlabError, listed
from mixlab.common import COMMAND_LINE, add_overrides, add_store, find, note_unsealed

if TYPE_CHECKING:
    from analysis.export.folder import Folder
    from analysis.export.run import Runs
    from analysis.export.weights import Selection
    from experiments.design.ablation import Ablation, GridTrial
    from experiments.results.store import Store

HELP = "Write an ablation's runs for TensorBoard, W&B, MLflow or Trackio, or its models for the hub (hf) or as ONNX."
EXAMPLE = "mixlab export tying --to tensorboard runs/tensorboard"
FOLLOW_S = 2.0  # between two looks at the records


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    which = "its YAML file, or its name, as it was last run or submitted; a model: also the id of a trial"
    parser.add_argument("ablation", help=which)
    parser.add_argument("--to", choices=tuple(TARGETS), required=True, help="what is to read it")
    parser.add_argument("out", type=Path, metavar="DIR", help="the folder to write, which may not exist yet")
    parser.add_argument("--follow", action="store_true", help="go on until all trials have ended, or Ctrl-C")
    parser.add_argument("--test", action="store_true", help="with the numbers of the test split; that is noted")
    parser.add_argument(
        "--mix-commits", action="store_true", help="means also over trials of several commits of the project"
    )
    add_overrides(parser)


def command(arguments: argparse.Namespace) -> int:
    export = exporter(arguments.to)
    _check_options(arguments)
    if not TARGETS[arguments.to].of_runs:
        store, selection = _selection(arguments)
        print("\n".join(export(store, selection, arguments.out)))
        return 0
    print("\n".join(_runs_written(export, arguments)))
    return 0


def _check_options(arguments: argparse.Namespace) -> None:
    """Raises: MixlabError: an option is given that the target has no use for."""
    target = TARGETS[arguments.to]
    useless = {"--follow": not target.of_runs, "--mix-commits": not target.of_runs, "--test": not target.has_numbers}
    for option, is_useless in useless.items():
        if is_useless and getattr(arguments, option.strip("-").replace("-", "_")):
            raise MixlabError(f"{COMMAND_LINE}: {option}: --to {arguments.to} has no use for it; leave it out")


def _runs_written(export: "Callable[..., list[str]]", arguments: argparse.Namespace) -> list[str]:
    """Lines for the user on the runs that were written, with --follow once all trials have ended."""
    from analysis.export.folder import opened

    look = _look(arguments)
    with opened(arguments.out, arguments.to) as folder:
        lines = _write(export, look, folder)
        while arguments.follow and not _tell(look).is_over:
            while look.stamps == look.now():
                time.sleep(FOLLOW_S)
            look = _look(arguments)
            lines = _write(export, look, folder)
    return [*_summary(look.runs, arguments.out), *lines]


@dataclass(frozen=True)
class Look:
    """The runs of an ablation, as the store had them."""

    store: "Store"
    trials: "Sequence[GridTrial]"
    stamps: list[str]
    num_waiting: int  # trials of the table that are not known, since what is tuned is still to be chosen
    runs: "Runs"

    def now(self) -> list[str]:
        """The stamps of what is in the store by now."""
        from analysis.export.runs import stamp

        return [stamp(self.store, planned.trial.id) for planned in self.trials]

    @property
    def num_ended(self) -> int:
        return sum(run.has_ended for run in self.runs.of_trials)

    @property
    def is_over(self) -> bool:
        """Whether no trial goes on by itself."""
        if self.num_waiting:
            return False
        # One that is paused now waits for others of a choice that a failure keeps from being made.
        return all(run.has_ended or run.status == "paused" for run in self.runs.of_trials)


def _look(arguments: argparse.Namespace) -> Look:
    """Read the runs; with test numbers, note that they are shown."""
    from analysis.export.run import Asked
    from analysis.export.runs import read_runs, stamp
    from experiments.design import tune
    from experiments.design.choice import num_stuck
    from experiments.design.possible import contents

    store, ablation, trials = find(arguments.ablation, arguments.overrides, arguments)
    # Looked at before they are read and chosen by: what comes meanwhile is seen at the next look.
    stamps = [stamp(store, planned.trial.id) for planned in trials]
    trials = tune.known(ablation, trials, store)
    waiting = tune.num_waiting(ablation, trials) if ablation.tune else 0
    num_waiting = waiting - num_stuck(tune.choose(ablation, trials, store))
    runs = read_runs(ablation, trials, store, Asked(arguments.test, arguments.mix_commits))
    if arguments.test and any(run.points for run in runs.runs):
        note_unsealed(store, ablation.name, contents(ablation, trials))
    return Look(store, trials, stamps, num_waiting, runs)


def _write(export: "Callable[..., list[str]]", look: Look, folder: "Folder") -> list[str]:
    from analysis.export.folder import errors

    with errors(folder.path, folder.target):
        lines = export(look.runs, folder)
        folder.save()
    return lines


def _tell(look: Look) -> Look:
    print(f"{look.num_ended} of {len(look.trials) + look.num_waiting} trials have ended", file=sys.stderr)
    return look


def _summary(runs: "Runs", out: Path) -> list[str]:
    of_trials, means = len(runs.of_trials), len(runs.runs) - len(runs.of_trials)
    lines = [f"{out}: {of_trials} runs of trials, {means} of cells, which are means over their done trials"]
    if runs.mixed:
        lines.append(
            f"no mean of {len(runs.mixed)} cells, whose trials are of several commits of the project: "
            f"{listed(runs.mixed)}; --mix-commits averages them"
        )
    return lines


def _selection(arguments: argparse.Namespace) -> "tuple[Store, Selection]":
    """The store, and the trials of an ablation's table, or the one whose id begins with the word.

    Raises: MixlabError: neither is there.
    """
    from analysis.export.weights import Selection
    from experiments.results.store import Store

    word, store = arguments.ablation, Store(arguments.store)
    is_file = word.endswith((".yaml", ".yml", ".json"))
    if is_file or word in store.ablations() or not any(key.startswith(word) for key in store.trial_ids()):
        store, ablation, trials = find(word, arguments.overrides, arguments)
        _unseal(arguments, store, ablation, trials)
        labels = {planned.trial.id: planned.label for planned in trials if planned.in_table}
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
    from experiments.design.possible import contents

    if arguments.test:
        note_unsealed(store, ablation.name, contents(ablation, trials))
