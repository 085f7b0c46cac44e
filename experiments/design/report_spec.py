"""How the table of an ablation is laid out: its rows, columns, metric and baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backends.errors import MixlabError, choices
from experiments.design import grid
from experiments.design.grid import Point
from experiments.results import metrics
from experiments.spec import fields
from experiments.spec.config import TrialConfig
from experiments.spec.values import shown, typed


@dataclass(frozen=True)
class EquivalenceSpec:
    """Which settings should give the same metric, and within what margin, in the unit of the record."""

    between: str  # a field that varies
    margin: float


@dataclass(frozen=True)
class ReportSpec:
    """How the table is laid out. Fields that vary and are neither rows nor columns must be the seed."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    metric: str = metrics.DEFAULT
    baseline: Mapping[str, Any] = field(default_factory=dict)
    equivalence: EquivalenceSpec | None = None


def read_report(given: Any, base: Point, points: Sequence[Point], overridden: Sequence[str], where: str) -> ReportSpec:
    """The layout as the YAML says.

    An axis that the command line has made, and that has no place in it, is a row; a baseline that it has taken away is
    none.

    Raises: MixlabError: what is named is no field, varies and has no place, or is a baseline that no trial has.
    """
    where = f"{where}: report"
    given = {} if given is None else given
    keys = ("rows", "columns", "metric", "baseline", "equivalence")
    if not isinstance(given, dict):
        raise MixlabError(f"{where}: {shown(given)} came where a mapping is allowed")
    if unknown := [key for key in given if key not in keys]:
        raise MixlabError(f"{where}: {shown(unknown[0])} is not a key of a report; {choices(unknown[0], keys)}")
    varying = list(grid.varying(points))
    rows, columns = _places(given, varying, overridden, where)
    metric = given.get("metric", metrics.DEFAULT)
    if metric not in metrics.names():
        raise MixlabError(f"{where}: metric: {shown(metric)} is not known; {choices(str(metric), metrics.names())}")
    equivalence = _equivalence(given.get("equivalence"), metric, f"{where}: equivalence")
    if equivalence and equivalence.between in overridden and equivalence.between not in varying:
        equivalence = None  # the command line has left one of its values
    elif equivalence and equivalence.between not in varying:
        raise MixlabError(
            f"{where}: equivalence: between: {equivalence.between} does not vary in the grid; "
            f"{choices(equivalence.between, [name for name in varying if name != 'seed'])}"
        )
    baseline = _baseline(given.get("baseline") or {}, (*rows, *columns), f"{where}: baseline")
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
    given: Mapping[str, Any], varying: Sequence[str], overridden: Sequence[str], where: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The rows and the columns; what the YAML leaves out is made of the fields that vary, the backend in columns.

    Raises: MixlabError: a field that stands twice, or that varies and stands nowhere.
    """
    named = _field_list(given["rows"], f"{where}: rows") if "rows" in given else ()
    backend = [name for name in varying if name == "backend" and name not in named]
    columns = _field_list(given.get("columns", backend), f"{where}: columns")
    rows = named if "rows" in given else tuple(name for name in varying if name != "seed" and name not in columns)
    rows += tuple(name for name in varying if name in overridden and name not in (*rows, *columns, "seed"))
    places = (*rows, *columns)
    if twice := [name for name in places if places.count(name) > 1]:
        raise MixlabError(f"{where}: {twice[0]} is named twice; a field is a row or a column, once")
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


def _equivalence(given: Any, metric: str, where: str) -> EquivalenceSpec | None:
    if given is None:
        return None
    keys = ("between", "margin")
    if not isinstance(given, dict) or "margin" not in given:
        raise MixlabError(
            f"{where}: {shown(given)} came where a mapping is allowed, such as {{between: backend, margin: 0.01}}"
        )
    if unknown := [key for key in given if key not in keys]:
        raise MixlabError(f"{where}: {shown(unknown[0])} is not a key of it; {choices(unknown[0], keys)}")
    between, margin = given.get("between", "backend"), given["margin"]
    if not isinstance(between, str):
        raise MixlabError(f"{where}: between: {shown(between)} came where one field is allowed, such as backend")
    fields.check_name(between, f"{where}: between")
    if between == "seed":
        raise MixlabError(f"{where}: between: seeds are what is paired; name a row or column, such as backend")
    number = typed(EquivalenceSpec, "margin", margin, f"{where}: margin")
    asked = metrics.parse(metric).metric
    if not 0 < number < asked.most:
        unit = (
            f"a fraction between 0 and 1: 0.01 is one point of {asked.name}"
            if asked.most == 1
            else f"{asked.unit}, above 0"
        )
        raise MixlabError(f"{where}: margin: {shown(margin)} came; allowed: {unit}")
    return EquivalenceSpec(between, number)


def _baseline(given: Any, places: Sequence[str], where: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise MixlabError(f"{where}: {shown(given)} came where a mapping of fields to values is allowed")
    baseline = fields.flatten(given, where)
    if outside := [name for name in baseline if name not in places]:
        raise MixlabError(f"{where}: {outside[0]} is neither a row nor a column; {choices(outside[0], places)}")
    return fields.typed(baseline, where)


def _field_list(given: Any, where: str) -> tuple[str, ...]:
    if not isinstance(given, list):
        raise MixlabError(f"{where}: {shown(given)} came where a list of fields is allowed")
    for name in given:
        if not isinstance(name, str):
            raise MixlabError(f"{where}: {shown(name)} came where the name of a field is allowed")
        fields.check_name(name, where)
    return tuple(map(str, given))
