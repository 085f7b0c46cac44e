"""Trends of an ablation's metric over what is swept, and over the parameters and FLOPs that it brings."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from analysis import inference
from analysis.inference import Trend
from analysis.labels import Label, field_words, keys
from analysis.report import Report
from analysis.roles import roles_of
from analysis.table.wording import interval_text, number, points

MIN_VALUES = 3  # of a field, for a trend
COSTS = {"parameters": "parameters", "training_flops": "training FLOPs"}


@dataclass(frozen=True)
class Over:
    """A trend of the cells' means over the binary logarithm of a number: its slope is what a doubling brings."""

    what: str
    rest: str  # the settings of the other fields, in words; empty for all cells
    trend: Trend


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def swept(report: Report) -> list[str]:
    """The fields of positive numbers, such as depth, that have values enough for a trend."""
    return [
        name
        for name in keys(report.ablation)
        if len(values := report.values(name)) >= MIN_VALUES and all(is_number(value) and value > 0 for value in values)
    ]


def lines(report: Report, name: str) -> Iterator[tuple[str, list[Any]]]:
    """The settings of the other fields in words, and the cells that have them and a mean, in order of `name`."""
    others = [key for key in keys(report.ablation) if key != name]
    by_rest: dict[Label, list[Any]] = {}
    for cell in report.rows.values():
        if not math.isnan(cell["mean"]):
            by_rest.setdefault(tuple(cell[key] for key in others), []).append(cell)
    values, roles = report.values(name), roles_of(report)
    varying = [key for key in others if len(report.values(key)) > 1]
    for label, cells in by_rest.items():
        values_of = dict(zip(others, label, strict=True))
        order = sorted(cells, key=lambda cell: cell[name] if is_number(cell[name]) else values.index(cell[name]))
        yield ", ".join(roles.words(key, values_of[key], whole=True) for key in varying), order


def trends(report: Report) -> Iterator[Over]:
    """Trends over each swept field, for each setting of the others; and over what the field costs.

    The cells of a trend differ in the swept field alone: those of several settings would show their difference too.
    """
    for name in swept(report):
        for rest, cells in lines(report, name):
            swept_field = field_words(report.ablation, name)
            columns = {name: swept_field} | {cost: f"{what} by {swept_field}" for cost, what in COSTS.items()}
            for column, what in columns.items():
                if trend := _trend(cells, column):
                    yield Over(what, rest, trend)


def _trend(cells: list[Any], name: str) -> Trend | None:
    with_cost = [cell for cell in cells if cell[name] > 0]  # neither NaN nor zero
    if len({cell[name] for cell in with_cost}) < MIN_VALUES:
        return None
    return inference.trend([math.log2(cell[name]) for cell in with_cost], [cell["mean"] for cell in with_cost])


def few_points(trend: Trend) -> str:
    """The warning that three points leave the interval of a slope one degree of freedom; empty for more points."""
    return f" (one degree of freedom: ±{inference.t_factor(1):.1f} standard errors)" if trend.n == 3 else ""


def sentences(report: Report) -> list[str]:
    """`number of blocks (jax): +1.2 points a doubling [0.3, 2.1], rank correlation +0.90, 4 cells`."""
    texts = []
    for one in trends(report):
        where = f"{one.what} ({one.rest})" if one.rest else one.what
        interval = interval_text(report.ablation, one.trend.low, one.trend.high)
        slope = (
            f"{number(report.ablation, one.trend.slope, '+')} {points(report.ablation)} a doubling {interval}".rstrip()
        )
        ranks = "" if math.isnan(one.trend.spearman) else f", rank correlation {one.trend.spearman:+.2f}"
        texts.append(f"{where}: {slope}{ranks}, {one.trend.n} cells{few_points(one.trend)}")
    return texts
