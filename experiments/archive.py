"""An ablation as it was resolved, kept in the store: later commands need its name alone, and no file of the user's."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backends.errors import MixlabError, choices
from experiments.ablation import Ablation, GridTrial
from experiments.files import write_whole
from experiments.report_spec import EquivalenceSpec, ReportSpec
from experiments.spec import as_tree, trial_from_json
from experiments.store import Store

FILE = "resolved.json"


def keep(store: Store, ablation: Ablation, trials: Sequence[GridTrial]) -> bool:
    """Keep an ablation under its name: the YAML, a line `id <tab> label` for each trial, and all of it resolved.

    Returns: whether other trials that were kept under this name are no longer among them.
    Raises:  StoreError.
    """
    labels, path = {planned.trial.id: planned.label for planned in trials}, _path(store, ablation.name)
    if path.exists() and store.holds_ablation(ablation.name, ablation.text, labels):
        return False
    before = store.ablation_labels(ablation.name) if ablation.name in store.ablations() else {}
    store.write_ablation(ablation.name, ablation.text, labels)
    write(path, ablation, trials)
    return not set(before) <= set(labels)


def write(path: Path, ablation: Ablation, trials: Sequence[GridTrial]) -> None:
    """Raises: StoreError."""
    tree = {
        "ablation": {**asdict(ablation), "points": list(ablation.points)},
        "trials": [{"settings": planned.settings, "spec": as_tree(planned.trial)} for planned in trials],
    }
    write_whole(path, json.dumps(tree).encode())


def recall(store: Store, name: str) -> tuple[Ablation, list[GridTrial]]:
    """The ablation of that name as it was last run or submitted with this store.

    Raises: MixlabError: there is none, or its file is damaged.
    """
    path = _path(store, name)
    if not path.exists():
        known = sorted(found.parent.name for found in store.root.glob(f"ablations/*/{FILE}"))
        raise MixlabError(f"store: {store.root} has no ablation {name!r}; {choices(name, known)}")
    return read(path)


def read(path: Path) -> tuple[Ablation, list[GridTrial]]:
    """What `write` wrote.

    Raises: MixlabError: it is not there, or damaged.
    """
    try:
        tree = json.loads(path.read_text())
        fields = {**tree["ablation"], "points": tuple(tree["ablation"]["points"])}
        fields["overrides"] = tuple(fields.get("overrides", ()))
        ablation = Ablation(**{**fields, "report": _report(fields["report"])})
        return ablation, [GridTrial(trial_from_json(one["spec"]), one["settings"]) for one in tree["trials"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MixlabError(f"store: {path} is damaged ({error}); run or submit the ablation's YAML again") from error


def _path(store: Store, name: str) -> Path:
    return store.root / "ablations" / name / FILE


def _report(fields: dict[str, Any]) -> ReportSpec:
    equivalence = EquivalenceSpec(**fields["equivalence"]) if fields["equivalence"] else None
    rows, columns = tuple(fields["rows"]), tuple(fields["columns"])
    return ReportSpec(**{**fields, "rows": rows, "columns": columns, "equivalence": equivalence})
