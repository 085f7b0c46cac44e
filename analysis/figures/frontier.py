"""The metric against what training costs, and the settings that no other one beats."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from analysis import inference
from analysis.figures import style
from analysis.figures.looks import Looks, looks_of
from analysis.figures.style import DIM, Drawn, Values
from analysis.labels import Label
from analysis.report import Report
from analysis.table.wording import metric, number, unit
from analysis.table.wording import scale as scale_of

LOG_RATIO = 8  # of the largest cost to the least, from which the axis is logarithmic
MAX_NAMED = 8  # settings of the frontier
PREFIXES = {"P": 1e15, "T": 1e12, "G": 1e9, "M": 1e6}  # of FLOPs, so that ticks are short


@dataclass(frozen=True)
class _Point:
    """A setting: the means of its cells."""

    words: str
    cost: float
    mean: float


def draw(report: Report) -> Iterator[Drawn]:
    with_cost = [
        label
        for label, cell in report.rows.items()
        if not math.isnan(cell["mean"]) and not math.isnan(cell["training_flops"])
    ]
    if len({report.rows[label]["training_flops"] for label in with_cost}) < 2:
        return
    looks, shown = looks_of(report), Values()
    dearest = max(report.rows[label]["training_flops"] for label in with_cost)
    prefix = next((name for name, size in PREFIXES.items() if dearest >= size), "M")
    points = _points(looks, with_cost, PREFIXES[prefix])
    better = 1 if metric(report.ablation).higher_is_better else -1
    places = inference.frontier([one.cost for one in points], [better * one.mean for one in points])
    front = [points[place] for place in places]
    figure, ax = style.new(4.2, 3.2)
    scale = scale_of(report.ablation)
    ax.step([one.cost for one in front], [scale * one.mean for one in front], where="post", color=DIM, linewidth=1)
    by_look: dict[Label, list[Label]] = {}
    for label in with_cost:
        setting = looks.compared(label) if looks.is_shown(label) else ()
        by_look.setdefault((setting, looks.roles.framework(label)), []).append(label)
    for labels in by_look.values():
        _marks(looks, labels, ax, shown, prefix)
    costs = [one.cost for one in points]
    if max(costs) > LOG_RATIO * min(costs):
        ax.set_xscale("log")
        style.plain_ticks(ax.xaxis)
    ax.set(
        xlabel=f"training {prefix}FLOPs of a trial", ylabel=f"{report.ablation.report.metric} ({unit(report.ablation)})"
    )
    named = style.some(front, MAX_NAMED)
    for place, one in enumerate(named):
        at = {"xytext": (-4, 5), "textcoords": "offset points", "ha": "right"}
        ax.annotate(f"{place + 1}", (one.cost, scale * one.mean), fontsize=9, weight="bold", **at)
    looks.legend(figure, more=[f"{place + 1}: {one.words}" for place, one in enumerate(named)])
    caption = (
        "The cost counts both passes of every training step. Numbered: the settings that no cheaper one beats."
        f"{style.left_out(len(named), len(front), 'numbers')}"
    )
    yield Drawn("frontier", "Result against cost", caption, figure, shown.texts)


def _points(looks: Looks, labels: list[Label], size: float) -> list[_Point]:
    """Settings, their frameworks averaged. Args: size: of the unit of costs."""
    groups: dict[Label, list[Any]] = {}
    for label in labels:
        groups.setdefault(looks.roles.setting(label), []).append(looks.report.rows[label])
    names = (*looks.roles.beside, *looks.roles.compared)
    return [
        _Point(
            looks.roles.phrase(names, setting) or looks.report.ablation.name,
            fmean(float(cell["training_flops"]) for cell in cells) / size,
            fmean(float(cell["mean"]) for cell in cells),
        )
        for setting, cells in groups.items()
    ]


def _marks(looks: Looks, labels: list[Label], ax: Any, shown: Values, prefix: str) -> None:
    """Draw the cells of one setting and framework."""
    ablation, cells = looks.report.ablation, [looks.report.rows[label] for label in labels]
    costs, means = [cell["training_flops"] / PREFIXES[prefix] for cell in cells], [cell["mean"] for cell in cells]
    scaled = [scale_of(ablation) * mean for mean in means]
    (marks,) = ax.plot(costs, scaled, **{**looks.of(labels[0]), "linestyle": ""})
    told = [
        f"{number(ablation, mean)} {unit(ablation)} at {cost:.3g} {prefix}FLOPs"
        for mean, cost in zip(means, costs, strict=True)
    ]
    shown.add(marks, [f"{looks.text(label)}: {one}" for label, one in zip(labels, told, strict=True)])
