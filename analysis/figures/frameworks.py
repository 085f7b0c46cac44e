"""A figure of one backend against another: a point for each pair of trials that differ in the backend alone."""

import math
from collections.abc import Iterator

import numpy as np

from analysis.cells import by_seed
from analysis.figures import style
from analysis.figures.style import Drawn
from analysis.labels import Label, keys, value_text
from analysis.report import Report
from analysis.table.wording import number, unit
from analysis.table.wording import points as points_of
from analysis.table.wording import scale as scale_of

MAX_POINTS = 2000


def draw(report: Report) -> Iterator[Drawn]:
    backends = report.values("backend")
    if len(backends) < 2:
        return
    first, second = backends[:2]
    place = keys(report.ablation).index("backend")
    pairs = []
    for label, group in report.groups.items():
        other = (*label[:place], second, *label[place + 1 :])
        if label[place] == first and other in report.groups and _have_means(report, label, other):
            a, b = by_seed(report.ablation, group), by_seed(report.ablation, report.groups[other])
            pairs += [(a[seed], b[seed]) for seed in a if seed in b]
    points = np.array([pair for pair in pairs if all(map(math.isfinite, pair))])
    if not len(points):
        return
    apart = np.abs(points[:, 1] - points[:, 0])
    figure, ax = style.new(4.2, 4.0)
    scale = scale_of(report.ablation)
    shown = scale * points[:: math.ceil(len(points) / MAX_POINTS)]
    ends = [shown.min(), shown.max()]
    ax.plot(ends, ends, color="#888888", linewidth=1, label="identity")
    ax.plot(shown[:, 0], shown[:, 1], "o", color="black", markersize=4, alpha=0.6, label="pairs of trials")
    names = [value_text(report.ablation, "backend", one) for one in (first, second)]
    metric = f"{report.ablation.report.metric} ({unit(report.ablation)})"
    ax.set(xlabel=style.plain(f"{names[0]}: {metric}"), ylabel=style.plain(f"{names[1]}: {metric}"), aspect="equal")
    style.legend(figure, ax)
    largest = number(report.ablation, float(apart.max()), more=2)
    mean = number(report.ablation, float((points[:, 1] - points[:, 0]).mean()), "+", 2)
    caption = (
        f"{len(points)} pairs of the same settings and seed, of which {len(shown)} are drawn: "
        f"{int((apart == 0).sum())} are equal, the largest difference is {largest} {points_of(report.ablation)}, "
        f"the mean difference {mean}."
    )
    yield Drawn("frameworks", f"{names[1]} against {names[0]}", caption, figure)


def _have_means(report: Report, *labels: Label) -> bool:
    """Tell whether the table has a mean for each of these cells: what it refuses to average is not compared either."""
    return not any(math.isnan(report.rows[label]["mean"]) for label in labels)
