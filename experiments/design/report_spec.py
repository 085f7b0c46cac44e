"""Layout of an ablation's table: its rows, columns, metric and baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backends.errors import MixlabError, choices
from experiments.design import grid
from experiments.design.axes import Point
from experiments.results import metrics
from experiments.spec import fields
from experiments.spec.config import TrialConfig
from experiments.spec.values import shown, typed


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


def read_report(tree: Any, base: Point, points: Sequence[Point], overridden: Sequence[str], where: str) -> ReportSpec:
    """Read the layout from the YAML.

    An axis that the command line has made, and that the YAML gives no place, is a row; a baseline that the command line
    has taken away does not count.

    Raises: MixlabError: a name is no field, a field varies and has no place, or no trial has the baseline.
    """
    where = f"{where}: report"
    tree = {} if tree is None else tree
    keys = ("rows", "columns", "metric", "baseline", "equivalence")
    if not isinstance(tree, dict):
        raise MixlabError(f"{where}: expected a mapping, got {shown(tree)}")
    if unknown := [key for key in tree if key not in keys]:
        raise MixlabError(f"{where}: {shown(unknown[0])} is not a key of a report; {choices(unknown[0], keys)}")
    varying = list(grid.varying(points))
    rows, columns = _places(tree, varying, overridden, where)
    metric = tree.get("metric", metrics.DEFAULT)
    if metric not in metrics.names():
        raise MixlabError(
            f"{where}: metric: expected a metric, got {shown(metric)}; {choices(str(metric), metrics.names())}"
        )
    equivalence = _equivalence(tree.get("equivalence"), metric, f"{where}: equivalence")
    if equivalence and equivalence.between in overridden and equivalence.between not in varying:
        equivalence = None  # the command line has left one of its values
    elif equivalence and equivalence.between not in varying:
        raise MixlabError(
            f"{where}: equivalence: between: {equivalence.between} does not vary in the grid; "
            f"{choices(equivalence.between, [name for name in varying if name != 'seed'])}"
        )
    baseline = _baseline(tree.get("baseline") or {}, (*rows, *columns), f"{where}: baseline")
    for name, value in baseline.items():
        values = list(dict.fromkeys(point.get(name, default(name, base)) for point in points))
        if value not in values and name in overridden:
            return ReportSpec(rows, columns, metric, {}, equivalence)
        if value not in values:
            raise MixlabError(
                f"{where}: baseline: no trial has {name} {shown(value)}; {choices(value, map(str, values))}"
            )
    return ReportSpec(rows, columns, metric, baseline, equivalence)


def _places(
    tree: Mapping[str, Any], varying: Sequence[str], overridden: Sequence[str], where: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The rows and the columns; what the YAML leaves out, the fields that vary fill, with the backend in columns.

    Raises: MixlabError: a field that stands twice, or that varies and stands nowhere.
    """
    named = _field_list(tree["rows"], f"{where}: rows") if "rows" in tree else ()
    backend = [name for name in varying if name == "backend" and name not in named]
    columns = _field_list(tree.get("columns", backend), f"{where}: columns")
    rows = named if "rows" in tree else tuple(name for name in varying if name != "seed" and name not in columns)
    rows += tuple(name for name in varying if name in overridden and name not in (*rows, *columns, "seed"))
    places = (*rows, *columns)
    if twice := [name for name in places if places.count(name) > 1]:
        raise MixlabError(f"{where}: {twice[0]} is named twice; name it once, as a row or as a column")
    left_out = [name for name in varying if name not in (*places, "seed")]
    if left_out:
        raise MixlabError(
            f"{where}: {left_out[0]} varies in the grid and is neither a row nor a column, so that cells would "
            f"average over it; name it in report.rows or report.columns"
        )
    return rows, columns


def default(name: str, base: Mapping[str, Any]) -> Any:
    """The value of a field that the grid does not set: the base's, else the default."""
    return base.get(name, fields.get_field(TrialConfig(), name))


def _equivalence(tree: Any, metric: str, where: str) -> EquivalenceSpec | None:
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
    fields.check_name(between, f"{where}: between")
    if between == "seed":
        raise MixlabError(
            f"{where}: between: expected a row or column, such as backend, got seed, by which trials are paired"
        )
    number = typed(EquivalenceSpec, "margin", margin, f"{where}: margin")
    asked = metrics.parse(metric).metric
    if not 0 < number < asked.most:
        unit = (
            f"a fraction between 0 and 1 (0.01 is one point of {asked.name})"
            if asked.most == 1
            else f"{asked.unit}, above 0"
        )
        raise MixlabError(f"{where}: margin: expected {unit}, got {shown(margin)}")
    return EquivalenceSpec(between, number)


def _baseline(tree: Any, places: Sequence[str], where: str) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise MixlabError(f"{where}: expected a mapping of fields to values, got {shown(tree)}")
    baseline = fields.flatten(tree, where)
    if outside := [name for name in baseline if name not in places]:
        raise MixlabError(f"{where}: expected a row or a column, got {outside[0]}; {choices(outside[0], places)}")
    return fields.typed(baseline, where)


def _field_list(names: Any, where: str) -> tuple[str, ...]:
    if not isinstance(names, list):
        raise MixlabError(f"{where}: expected a list of fields, got {shown(names)}")
    for name in names:
        if not isinstance(name, str):
            raise MixlabError(f"{where}: expected the name of a field, got {shown(name)}")
        fields.check_name(name, where)
    return tuple(map(str, names))
