"""Weights that done trials have kept, for exports of models, and the files that such an export writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.export.folder import check_no_file
from backends.errors import MixlabError, counted, listed
from experiments import files
from experiments.results import checkpoint, kept
from experiments.results.states import state
from experiments.results.store import Store
from experiments.spec.trial import Trial, trial_from_json
from experiments.weights import weight_files
from experiments.weights.weight_files import Weights


@dataclass(frozen=True)
class Selection:
    """The trials to export.

    labels: what the ablation's grid sets in each, by id.   name, question: of the ablation; empty for a single trial.
    is_one: whether a single trial is meant, whose files need no folder of its own.
    test: whether numbers of the test split are told.
    """

    labels: Mapping[str, str]
    name: str = ""
    question: str = ""
    is_one: bool = False
    test: bool = False


@dataclass(frozen=True, eq=False)
class Model:
    """A done trial and the weights that it kept.

    when, step: which evaluation's weights they are, last or best, and of which step.   file: in the store.
    """

    trial: Trial
    record: Mapping[str, Any]
    weights: Weights
    when: str
    step: int
    file: Path
    label: str

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What the evaluation of these very weights gave, by split."""
        return dict(self.record["metrics"][self.when])


@dataclass(frozen=True)
class Kept:
    """Which of the selected trials have weights, and why each of the others has none."""

    ids: Sequence[str]
    without: Mapping[str, str]

    def lines(self) -> list[str]:
        """A sentence for each reason that trials are left out, which counts and names them."""
        reasons: dict[str, list[str]] = {}
        for key, why in self.without.items():
            reasons.setdefault(why, []).append(key)
        return [f"left out {counted(len(keys), 'trial')}: {why}: {listed(keys)}" for why, keys in reasons.items()]


def find(store: Store, selection: Selection) -> Kept:
    """Look for the weights of the selected trials; none is read.

    Raises: MixlabError: no trial has any; says why, and how to keep them.
    """
    without = {key: why for key in selection.labels if (why := _lacks(store, key))}
    found = Kept([key for key in selection.labels if key not in without], without)
    if found.ids:
        return found
    if selection.is_one:
        (key, why), *_ = without.items()
        raise MixlabError(f"store: trial {key}: {why}{_remedy(store, key, why)}")
    reasons = "; ".join(line.removeprefix("left out ") for line in found.lines())
    raise MixlabError(
        f"store: no trial of {selection.name!r} has weights: {reasons or 'it has no trials'}; run.keep=last keeps them "
        f"when a trial is trained"
    )


def read(store: Store, key: str, label: str) -> Model:
    """A trial and its weights.  Raises: MixlabError: they are damaged, or of another trial."""
    path, record = store.folder(key) / kept.FILE, store.record(key)
    weights, about = weight_files.read(path), checkpoint.read_progress(path)
    assert record is not None
    if about.get("trial") != key:
        raise MixlabError(f"store: {path} holds weights of trial {about.get('trial')}; remove it, and train {key} anew")
    trial = trial_from_json(record["spec"])
    return Model(trial, record, weights, str(about["kept"]), int(about["step"]), path, label)


def models(store: Store, selection: Selection, found: Kept) -> Iterator[Model]:
    """Each trial that has weights, read when its turn comes: one model at a time is in memory.  Raises: see read."""
    for key in found.ids:
        yield read(store, key, selection.labels[key])


def put(out: Path, contents: Mapping[str, bytes]) -> bool:
    """Write files into a folder, each whole or not at all; returns whether any was not there as it is already.

    Args:   contents: by name in the folder.
    Raises: MixlabError: something else is there under one of the names; nothing was changed.
    """
    check_no_file(out)
    missing = {out / name: content for name, content in contents.items() if not (out / name).exists()}
    for name, content in contents.items():
        path = out / name
        if path not in missing and not (path.is_file() and path.read_bytes() == content):
            raise MixlabError(
                f"command line: DIR: {path} is there already and is not what this export would write; remove it, or "
                f"name another folder"
            )
    for path, content in missing.items():
        files.replace(path, content)
    return bool(missing)


def _lacks(store: Store, key: str) -> str:
    """Why a trial has no weights; empty if it has."""
    now = state(store, key)
    if now.status != "done":
        return f"{now.status}, not done"
    if (store.folder(key) / kept.FILE).exists():
        return ""
    run = ((now.record or {}).get("spec") or {}).get("run") or {}
    return "run.keep was none" if run.get("keep") == "none" else "its weights are gone"


def _remedy(store: Store, key: str, why: str) -> str:
    if why.endswith("not done"):
        return "; its weights are kept when it is done"
    return (
        f"; to have them, move {store.folder(key)} away and train it again: mixlab run FILE run.keep=last, with the "
        f"ablation's FILE"
    )
