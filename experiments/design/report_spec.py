"""Layout of an ablation's table: its rows, columns, metric and baseline.

Rows, columns and baseline are fields, or axes of mappings by their names; see names.py for how points hold these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from backends.errors import MixlabError, choices
from experiments.design import grid, names
from experiments.design.asked import asked
from experiments.design.axes import Point
from experiments.results import metrics
from experiments.spec import fields
from experiments.spec.config import RunConfig
from experiments.spec.values import shown, typed

SEED, BACKEND = "seed", "backend"
QUANTITIES = ("parameters", "flops", "steps", "seconds")  # what compared settings may have in common


@dataclass(frozen=True)
class EquivalenceSpec:
    """The settings that should give the same metric, and the margin, in the unit of the record."""

    between: str  # a field that varies
    margin: float


@dataclass(frozen=True)
class ReportSpec:
    """The layout of a table. Fields that vary and are neither rows nor columns must be the seed."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    metric: str = metrics.DEFAULT
    baseline: Mapping[str, Any] = field(default_factory=dict)
    equivalence: EquivalenceSpec | None = None
    matched: tuple[str, ...] = ()  # of QUANTITIES: those that compared settings should have in common
    stage: str = ""  # whose trials the table has, where the ablation has stages


KEYS = ("rows", "columns", "metric", "baseline", "equivalence", "matched", "stage")


@dataclass(frozen=True)
class Grid:
    """The points that a report is of, and what their fields and axes are."""

    points: tuple[Point, ...]
    base: Point
    named: Mapping[str, tuple[str, ...]]  # axes of mappings, with the fields that they set
    overridden: tuple[str, ...] = ()  # what the command line has set: an axis of its own needs no place in the YAML

    @cached_property
    def varying(self) -> tuple[str, ...]:
        return tuple(grid.varying(self.points))

    def values(self, name: str) -> list[Any]:
        """The values of a field or an axis, in order of appearance."""
        return list(dict.fromkeys(asked(name, point, self.base) for point in self.points))

    def is_everywhere(self, axis: str) -> bool:
        return all(axis in point for point in self.points)


def read_report(tree: Any, asked: Grid, where: str) -> ReportSpec:
    """Read the layout from the YAML.

    An axis that the command line has made, and that the YAML gives no place, is a row; a baseline that the command line
    has taken away does not count.

    Raises: MixlabError: a name is no field, a field varies and has no place, or no trial has the baseline.
    """
    where = f"{where}: report"
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise MixlabError(f"{where}: expected a mapping, got {shown(tree)}")
    if unknown := [key for key in tree if key not in KEYS]:
        raise MixlabError(f"{where}: {shown(unknown[0])} is not a key of a report; {choices(unknown[0], KEYS)}")
    baseline = _baseline(tree.get("baseline") or {}, asked, f"{where}: baseline")
    rows, columns = _places(tree, baseline, asked, where)
    metric = metrics.full(tree.get("metric", metrics.DEFAULT))
    if metric not in metrics.names():
        raise MixlabError(
            f"{where}: metric: expected a metric, got {shown(metric)}; {choices(str(metric), metrics.names())}"
        )
    _check_measured(metric, asked, f"{where}: metric")
    equivalence = _equivalence(tree.get("equivalence"), metric, asked, f"{where}: equivalence")
    matched = _matched(tree.get("matched"), f"{where}: matched")
    places = list(map(_told, (*rows, *columns)))
    for name, value in baseline.items():
        told = _told(name)
        if told not in places:
            raise MixlabError(f"{where}: baseline: expected a row or a column, got {told}; {choices(told, places)}")
        values = asked.values(name)
        if value not in values and name in asked.overridden:
            baseline = {}
            break
        if value not in values:
            told_values = choices(fields.text(value), map(fields.text, values))
            raise MixlabError(f"{where}: baseline: no trial has {told} {shown(value)}; {told_values}")
    return ReportSpec(rows, columns, metric, baseline, equivalence, matched)


def as_tree(spec: ReportSpec) -> dict[str, Any]:
    """A layout as YAML would give it."""
    equivalence = spec.equivalence
    between = equivalence and {"between": _told(equivalence.between), "margin": equivalence.margin}
    return {
        "rows": list(map(_told, spec.rows)),
        "columns": list(map(_told, spec.columns)),
        "metric": spec.metric,
        "baseline": {_told(name): value for name, value in spec.baseline.items()},
        "equivalence": between,
        "matched": list(spec.matched),
        **({"stage": spec.stage} if spec.stage else {}),
    }


def _told(key: str) -> str:
    """The name that YAML has for a key of a point."""
    return key.removeprefix(names.AXIS)


def _places(
    tree: Mapping[str, Any], baseline: Mapping[str, Any], asked: Grid, where: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The rows and the columns; what the YAML leaves out, the fields that vary fill, with the backend in columns.

    Raises: MixlabError: a field that stands twice, or that varies and stands nowhere.
    """
    named = _field_list(tree["rows"], asked, f"{where}: rows") if "rows" in tree else ()
    backend = [name for name in asked.varying if name == BACKEND and name not in named]
    columns = _field_list(tree["columns"], asked, f"{where}: columns") if "columns" in tree else tuple(backend)
    rows = named if "rows" in tree else _usual_rows(columns, baseline, asked)
    rows += tuple(
        name
        for name in asked.varying
        if name in asked.overridden and name not in (*rows, *columns, SEED) and not name.startswith(names.AXIS)
    )
    places = (*rows, *columns)
    if twice := [name for name in places if places.count(name) > 1]:
        told = _told(twice[0])
        raise MixlabError(f"{where}: {told} is named twice; name it once, as a row or as a column")
    left_out = [name for name in asked.varying if not _is_placed(name, places, asked)]
    if left_out:
        whole = [axis for axis, sets in asked.named.items() if left_out[0] in sets and not set(places) & set(sets)]
        told = _told((whole or left_out)[0])
        raise MixlabError(
            f"{where}: {told} varies in the grid and is neither a row nor a column, so that cells would "
            f"average over it; name it in report.rows or report.columns"
        )
    return rows, columns


def _usual_rows(columns: Sequence[str], baseline: Mapping[str, Any], asked: Grid) -> tuple[str, ...]:
    """Everything that varies and is no column, axes of mappings by their names.

    Such an axis has its fields as rows where one of them has a place of its own, or where it sets the seed.
    """
    own = {SEED, BACKEND, *columns, *(name for name in baseline if name not in asked.named)}
    whole = [axis for axis, sets in asked.named.items() if asked.is_everywhere(axis) and not own & set(sets)]
    told = {*columns, SEED, *(name for axis in whole for name in asked.named[axis])}
    return tuple(
        name for name in asked.varying if name not in told and (name in whole or not name.startswith(names.AXIS))
    )


def _is_placed(name: str, places: Sequence[str], asked: Grid) -> bool:
    """Whether no cell can average over a field or an axis: it, or what it varies with, is a row or a column."""
    if name in (*places, SEED) or asked.named.get(name):  # an axis varies with its fields, which are looked at too
        return True
    return any(name in sets for axis, sets in asked.named.items() if axis in places)


def _check_measured(metric: str, asked: Grid, where: str) -> None:
    """Raises: MixlabError: the metric is of a probe that no trial is asked for."""
    shots, of_trials = metrics.shots_of(metric), asked.values("run.probe_shots")
    if shots and not any(shots in RunConfig(probe_shots=one).shots for one in of_trials):
        raise MixlabError(f"{where}: {metric} is measured where it is asked for; set run.probe_shots to {shots}")


def _equivalence(tree: Any, metric: str, asked: Grid, where: str) -> EquivalenceSpec | None:
    if tree is None:
        return None
    keys = ("between", "margin")
    if not isinstance(tree, dict) or "margin" not in tree:
        raise MixlabError(f"{where}: expected a mapping such as {{between: backend, margin: 0.01}}, got {shown(tree)}")
    if unknown := [key for key in tree if key not in keys]:
        raise MixlabError(f"{where}: {shown(unknown[0])} is not a key of it; {choices(unknown[0], keys)}")
    between, margin = tree.get("between", "backend"), tree["margin"]
    if not isinstance(between, str):
        raise MixlabError(f"{where}: between: expected one field, such as backend, got {shown(between)}")
    key = names.check_name(between, asked.named, f"{where}: between")
    if between == SEED:
        raise MixlabError(
            f"{where}: between: expected a row or column, such as backend, got seed, by which trials are paired"
        )
    number = typed(EquivalenceSpec, "margin", margin, f"{where}: margin")
    unit_of = metrics.parse(metric).metric
    if not 0 < number < unit_of.most:
        unit = (
            f"a fraction between 0 and 1 (0.01 is one point of {unit_of.name})"
            if unit_of.most == 1
            else f"{unit_of.unit}, above 0"
        )
        raise MixlabError(f"{where}: margin: expected {unit}, got {shown(margin)}")
    if key in asked.varying:
        return EquivalenceSpec(key, number)
    if key in asked.overridden:
        return None  # the command line has left one of its values
    others = [_told(name) for name in asked.varying if name != SEED]
    raise MixlabError(f"{where}: between: {between} does not vary in the grid; {choices(between, others)}")


def _baseline(tree: Any, asked: Grid, where: str) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise MixlabError(f"{where}: expected a mapping of fields to values, got {shown(tree)}")
    return names.typed(tree, asked.named, where)


def _matched(tree: Any, where: str) -> tuple[str, ...]:
    several = [] if tree is None else tree if isinstance(tree, list) else [tree]
    if unknown := [name for name in several if name not in QUANTITIES]:
        raise MixlabError(f"{where}: {shown(unknown[0])} is not a quantity; {choices(unknown[0], QUANTITIES)}")
    return tuple(dict.fromkeys(map(str, several)))


def _field_list(written: Any, asked: Grid, where: str) -> tuple[str, ...]:
    if not isinstance(written, list):
        raise MixlabError(f"{where}: expected a list of fields, got {shown(written)}")
    for name in written:
        if not isinstance(name, str):
            raise MixlabError(f"{where}: expected the name of a field, got {shown(name)}")
    found = tuple(names.check_name(name, asked.named, where) for name in map(str, written))
    if partial := [name for name in found if name in asked.named and not asked.is_everywhere(name)]:
        told, own = _told(partial[0]), ", ".join(asked.named[partial[0]])
        raise MixlabError(f"{where}: {told} is no axis of each mapping of the grid; name its fields: {own}")
    return found
