"""A figure of one backend against another: a point for each pair of trials that differ in the backend alone."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.figures import style
from analysis.figures.looks import Looks, looks_of
from analysis.figures.style import DIM, Drawn, Values
from analysis.labels import Label, keys, value_text
from analysis.report import Report
from analysis.settings import FRAMEWORK
from analysis.table.wording import number, unit
from analysis.table.wording import points as points_of
from analysis.table.wording import scale as scale_of

MAX_POINTS = 1000


@dataclass(frozen=True)
class _Pair:
    """Two trials of the same settings and seed, by the cell of the first."""

    label: Label
    seed: Any
    first: float
    second: float


def draw(report: Report) -> Iterator[Drawn]:
    backends = report.values(FRAMEWORK)
    if len(backends) < 2:
        return
    first, second = backends[:2]
    pairs = _pairs(report, first, second)
    if not pairs:
        return
    looks, values, scale = looks_of(report), Values(), scale_of(report.ablation)
    names = tuple(value_text(report.ablation, FRAMEWORK, name) for name in (first, second))
    figure, ax = style.new(3.7, 3.6)
    drawn = pairs[:: math.ceil(len(pairs) / MAX_POINTS)]
    ends = [scale * pick(pick(one.first, one.second) for one in drawn) for pick in (min, max)]
    ax.plot(ends, ends, color=DIM, linewidth=1)
    by_setting: dict[Label, list[_Pair]] = {}
    for one in drawn:
        by_setting.setdefault(looks.compared(one.label), []).append(one)
    for together in by_setting.values():
        _marks(looks, together, ax, names, values)
    limits = [ends[0] - 0.04 * (ends[1] - ends[0]), ends[1] + 0.04 * (ends[1] - ends[0])]
    limits = limits if limits[0] < limits[1] else [limits[0] - 1, limits[1] + 1]
    metric = f"{report.ablation.report.metric} ({unit(report.ablation)})"
    x, y = (style.plain(f"{name}: {metric}") for name in names)
    ax.set(xlabel=x, ylabel=y, xlim=limits, ylim=limits, box_aspect=1)
    looks.legend(figure, settings=FRAMEWORK not in looks.roles.compared, frameworks=False)
    caption = _caption(report, pairs, len(drawn))
    yield Drawn("frameworks", f"{names[1]} against {names[0]}", caption, figure, values.texts)


def _pairs(report: Report, first: Any, second: Any) -> list[_Pair]:
    place = keys(report.ablation).index(FRAMEWORK)
    pairs = []
    for label, a in report.by_seed.items():
        other = (*label[:place], second, *label[place + 1 :])
        if label[place] == first and other in report.by_seed and _have_means(report, label, other):
            b = report.by_seed[other]
            pairs += [_Pair(label, seed, a[seed], b[seed]) for seed in a if seed in b]
    return [one for one in pairs if math.isfinite(one.first) and math.isfinite(one.second)]


def _marks(looks: Looks, pairs: list[_Pair], ax: Any, names: Sequence[str], values: Values) -> None:
    """Draw the pairs of one setting."""
    report, label = looks.report, pairs[0].label
    look = looks.of(label) if FRAMEWORK not in looks.roles.compared else {"color": DIM, "marker": "."}
    scale = scale_of(report.ablation)
    places = [[scale * one.first for one in pairs], [scale * one.second for one in pairs]]
    (marks,) = ax.plot(*places, **{**look, "linestyle": "", "alpha": 0.75})
    values.add(marks, [_words(looks, one, names) for one in pairs])


def _words(looks: Looks, pair: _Pair, names: Sequence[str]) -> str:
    roles, ablation = looks.roles, looks.report.ablation
    fields = [name for name in (*roles.compared, *roles.beside) if name != FRAMEWORK]
    where = ", ".join(filter(None, (roles.phrase(fields, roles.part(pair.label, fields)), f"seed {pair.seed}")))
    told = ", ".join(
        f"{name} {number(ablation, value)}" for name, value in zip(names, (pair.first, pair.second), strict=True)
    )
    return f"{where}: {told} {unit(ablation)}"


def _caption(report: Report, pairs: list[_Pair], num_drawn: int) -> str:
    apart = np.array([one.second - one.first for one in pairs])
    largest = number(report.ablation, float(np.abs(apart).max()), more=2)
    mean = number(report.ablation, float(apart.mean()), "+", 2)
    some = "" if num_drawn == len(pairs) else f", of which {num_drawn} are drawn"
    return (
        f"{len(pairs)} pairs of the same settings and seed{some}: {int((apart == 0).sum())} are equal, the largest "
        f"difference is {largest} {points_of(report.ablation)}, the mean difference {mean}."
    )


def _have_means(report: Report, *labels: Label) -> bool:
    """Tell whether the table has a mean for each of these cells: what it refuses to average is not compared either."""
    return not any(math.isnan(report.rows[label]["mean"]) for label in labels)
