"""Learning curves: the mean over seeds and the band from the least to the most, train and test."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from analysis.figures import style
from analysis.figures.looks import Looks, looks_of
from analysis.figures.panels import panels
from analysis.figures.style import Drawn, Values
from analysis.labels import Label
from analysis.report import Report
from analysis.table.wording import metric, number, unit
from analysis.table.wording import scale as scale_of
from experiments.results.metrics import STEP

PARTS = ("train", "test")
MOST_ROWS = 2  # of panels, each with a row of its own for every part
MARKS = 5  # on a curve


def draw(report: Report) -> Iterator[Drawn]:
    looks = looks_of(report)
    placed, shown = panels(looks, looks.roles.beside, MOST_ROWS, 1), Values()
    with_curve = {
        label
        for row in placed.rows
        for values in row
        for label in (placed.cells(values) if values is not None else ())
        if looks.is_shown(label) and len(report.curve(label, STEP)[0]) > 1
    }
    if not with_curve:
        return
    is_beside = not placed.names  # then train and test stand beside each other
    figure, axes = _side_by_side() if is_beside else placed.draw(len(PARTS))
    value = metric(report.ablation).name
    for row, line in enumerate(axes):
        for column, ax in enumerate(line):
            values = () if is_beside else placed.rows[row // len(PARTS)][column]
            part = PARTS[column if is_beside else row % len(PARTS)]
            if values is not None:
                for label in placed.cells(values):
                    if label in with_curve:
                        _curve(looks, label, ax, f"{part}.{value}", shown)
            if column == 0 or is_beside:
                ax.set_ylabel(f"{part} {value} ({unit(report.ablation)})")
    figure.supxlabel("step", fontsize=9)
    looks.legend(figure)
    pooled = ", all frameworks of a setting" if looks.roles.frameworks else ""
    caption = (
        f"Lines are means over seeds{pooled}, bands reach from the least to the most.{looks.left_out}{placed.left_out}"
    )
    yield Drawn("learning_curves", "Learning curves", caption, figure, shown.texts)


def _side_by_side() -> tuple[Any, list[list[Any]]]:
    figure, axes = style.new(6.2, 2.9, ncols=2, sharey=True, squeeze=False)
    return figure, [list(axes[0])]


def _curve(looks: Looks, label: Label, ax: Any, column: str, shown: Values) -> None:
    report = looks.report
    steps, values = report.curve(label, column)
    if np.isnan(values).all():
        return
    scale, look = scale_of(report.ablation), looks.of(label)
    mean = values.mean(0)
    marked = [i for i in range(len(steps) - 1, -1, -max(1, len(steps) // MARKS)) if np.isfinite(mean[i])]
    ax.plot(steps, scale * mean, linewidth=1.1, **{**look, "marker": ""})
    ax.fill_between(steps, scale * values.min(0), scale * values.max(0), color=look["color"], alpha=0.12, linewidth=0)
    (marks,) = ax.plot(steps[marked], scale * mean[marked], **{**look, "linestyle": "", "markersize": 3.5})
    told = [f"{column} {number(report.ablation, mean[i])} {unit(report.ablation)}, n = {len(values)}" for i in marked]
    shown.add(marks, [f"{looks.text(label)}, step {steps[i]:,.0f}: {one}" for i, one in zip(marked, told, strict=True)])
