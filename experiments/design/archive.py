"""Archive of resolved ablations in the store: later commands need a name alone, and no file of the user's.

`resolved.json` holds all of it and changes at once; every command reads it alone. `ablation.yaml` and `trials.txt` (a
line `id <tab> label` for each trial) say the same to people. They are written after it: a kill between the writes
leaves them a form behind, until the ablation is run or submitted again.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from backends.errors import MixlabError, choices
from experiments.design import labels as labelling
from experiments.design import overridden, tune
from experiments.design.ablation import Ablation, GridTrial
from experiments.design.chain import Stage, of_table
from experiments.design.halving import Halving
from experiments.design.report_spec import EquivalenceSpec, Grid, ReportSpec, read_report
from experiments.design.report_spec import as_tree as report_tree
from experiments.design.tune_spec import TuneSpec, check_places
from experiments.files import write_whole
from experiments.results import metrics
from experiments.results.store import RESOLVED, TRIALS, Store
from experiments.spec.fields import of_json
from experiments.spec.trial import as_tree, trial_from_json

FILE = RESOLVED
GIVEN = ("tunes", "until", "pruned", "stage", "aside")  # of a GridTrial; what has its default is left out


def keep(store: Store, ablation: Ablation, trials: Sequence[GridTrial]) -> bool:
    """Keep an ablation under its name.

    Returns: whether other trials that were kept under this name are no longer among them.
    Raises:  StoreError.
    """
    folder, labels = store.ablation(ablation.name), _labels(trials)
    lines = "".join(f"{key}\t{label}\n" for key, label in labels.items())
    copies = {folder / "ablation.yaml": ablation.text.encode(), folder / TRIALS: lines.encode()}
    files = {folder / FILE: _content(ablation, trials), **copies}
    if all(path.exists() and path.read_bytes() == content for path, content in files.items()):
        return False
    before = _known_labels(store, ablation.name)
    for path, content in files.items():
        write_whole(path, content)
    return not set(before) <= set(labels)


def is_kept(store: Store, ablation: Ablation) -> bool:
    """Tell whether an ablation of the archive is the one that the store has under its name, whatever its trials.

    The path of its file and the comments in it may be others.
    """
    try:
        kept = read(store.ablation(ablation.name) / FILE)[0]
    except MixlabError:
        return False
    return replace(kept, where=ablation.where, text=ablation.text) == ablation


def write(path: Path, ablation: Ablation, trials: Sequence[GridTrial]) -> None:
    """Write the file of a resolved ablation. Raises: StoreError."""
    write_whole(path, _content(ablation, trials))


def _content(ablation: Ablation, trials: Sequence[GridTrial]) -> bytes:
    tree = {
        "labels": _labels(trials),  # first; see store.LABELS, store.WAITING, store.HALVING
        **({"waiting": tune.num_waiting(ablation, trials)} if ablation.tune else {}),
        **({"halving": True} if ablation.tune and ablation.tune.halving else {}),
        "ablation": _asked(ablation),
        # how far a trial is trained for now follows from the store
        "trials": [to_tree(replace(planned, until=None, pruned=False)) for planned in trials],
    }
    return json.dumps(tree).encode()


def _asked(ablation: Ablation) -> dict[str, Any]:
    tree = asdict(ablation)
    if ablation.tune and ablation.tune.halving is None:
        del tree["tune"]["halving"]  # as before there was such a key
    if not ablation.stages:
        del tree["stages"], tree["report"]["stage"]
    return {**tree, "points": list(ablation.points)}


def to_tree(planned: GridTrial) -> dict[str, Any]:
    """A trial of a grid as nested mappings."""
    more = {name: getattr(planned, name) for name in ("implied", *GIVEN)}
    return {
        "settings": planned.settings,
        **{name: one for name, one in more.items() if one},
        "spec": as_tree(planned.trial),
    }


def from_tree(tree: Mapping[str, Any]) -> GridTrial:
    """The trial of a tree that `to_tree` gave.  Raises: KeyError, TypeError: it is no such tree."""
    given = {name: tree[name] for name in GIVEN if name in tree}
    return GridTrial(trial_from_json(tree["spec"]), of_json(tree["settings"]), tuple(tree.get("implied", ())), **given)


def _labels(trials: Sequence[GridTrial]) -> dict[str, str]:
    return {planned.trial.id: planned.label for planned in trials}


def _known_labels(store: Store, name: str) -> dict[str, str]:
    """The labels that were kept before; none if the file is damaged, since it is written anew."""
    try:
        return store.ablation_labels(name)
    except MixlabError:
        return {}


def recall(store: Store, name: str) -> tuple[Ablation, list[GridTrial]]:
    """The ablation of that name as it was last run or submitted with this store, and its trials as tune.known says.

    Raises: MixlabError: there is none, or its file is damaged.
    """
    path = store.ablation(name) / FILE
    if not path.exists():
        names = sorted(file.parent.name for file in store.root.glob(f"ablations/*/{FILE}"))
        raise MixlabError(f"store: {store.root} has no ablation {name!r}; {choices(name, names)}")
    ablation, trials = read(path)
    return ablation, tune.known(ablation, trials, store)


def labels(store: Store) -> dict[str, dict[str, str]]:
    """The labels of all ablations of a store on which they agree; one whose file is damaged has none."""
    found = []
    for name in store.ablations():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            tree = json.loads((store.ablation(name) / FILE).read_text())["ablation"].get("labels", {})
            found.append(
                {str(key): {str(value): str(text) for value, text in own.items()} for key, own in tree.items()}
            )
    return labelling.agreed(found)


def laid_out(ablation: Ablation, words: Sequence[str]) -> Ablation:
    """A resolved ablation, whose report is changed as the words say.  Raises: MixlabError."""
    where, tree = overridden.COMMAND_LINE, overridden.with_report(report_tree(ablation.report), words)
    if stage := of_table(ablation.stages, tree, where):
        shared = {
            axis: own for axis, own in ablation.named.items() if not any(axis in s.named for s in ablation.stages)
        }
        ablation = replace(ablation, base=stage.base, points=stage.points, named={**shared, **stage.named})
    report = read_report(tree, Grid(ablation.points, dict(ablation.base), ablation.named), where)
    check_places(ablation.tune, (), report, ablation.matched, where)
    return replace(ablation, report=replace(report, stage=stage.name if stage else ""))


def as_laid_out(ablation: Ablation, trials: Sequence[GridTrial]) -> list[GridTrial]:
    """The trials, each with whether it is of the stage that the table is of, where the ablation has stages."""
    if not ablation.stages:
        return list(trials)
    return [replace(planned, aside=planned.stage != ablation.report.stage) for planned in trials]


def read(path: Path) -> tuple[Ablation, list[GridTrial]]:
    """Read the file of a resolved ablation.

    Raises: MixlabError: it is not there, or damaged.
    """
    try:
        tree = json.loads(path.read_text())
        fields = {**tree["ablation"], "points": tuple(map(of_json, tree["ablation"]["points"]))}
        fields["base"] = of_json(fields["base"])
        fields["overrides"] = tuple(fields.get("overrides", ()))
        fields["named"] = {axis: tuple(own) for axis, own in fields.get("named", {}).items()}
        stages = {"stages": tuple(map(_stage, fields.get("stages", ())))}
        parts = {"report": _report(fields["report"]), "tune": _tune(fields.get("tune")), **stages}
        return Ablation(**{**fields, **parts}), [from_tree(one) for one in tree["trials"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MixlabError(f"store: {path} is damaged ({error}); run or submit the ablation's YAML again") from error


def _report(fields: dict[str, Any]) -> ReportSpec:
    equivalence = EquivalenceSpec(**fields["equivalence"]) if fields["equivalence"] else None
    several = {name: tuple(fields.get(name, ())) for name in ("rows", "columns", "matched")}
    if fields["metric"] not in metrics.names():
        raise ValueError(f"report.metric: {fields['metric']!r} is not known")
    baseline = of_json(fields["baseline"])
    return ReportSpec(**{**fields, **several, "baseline": baseline, "equivalence": equivalence})


def _stage(fields: dict[str, Any]) -> Stage:
    points, starts = tuple(map(of_json, fields["points"])), tuple(fields["starts"])
    several = {"base": of_json(fields["base"]), "points": points, "starts": starts}
    return Stage(**{**fields, **several, "named": {axis: tuple(own) for axis, own in fields["named"].items()}})


def _tune(fields: dict[str, Any] | None) -> TuneSpec | None:
    if fields is None:
        return None
    over = {name: tuple(of_json({name: one})[name] for one in values) for name, values in fields["over"].items()}
    halving = fields.get("halving")
    stages = Halving(tuple(halving["steps"]), halving["keep"]) if halving else None
    return TuneSpec(**{**fields, "over": over, "seeds": tuple(fields["seeds"]), "halving": stages})
