"""Differences to the baseline as a forest plot."""

import math
from collections.abc import Iterator

from analysis import settings
from analysis.figures import style
from analysis.figures.style import Drawn
from analysis.inference import ALPHA
from analysis.report import Report
from analysis.table.heading import family_text
from analysis.table.wording import (
    baseline_text,
    counted,
    difference_text,
    is_significant,
    p_text,
    points,
    together,
)
from analysis.table.wording import scale as scale_of

MAX_ROWS = 40


def draw(report: Report) -> Iterator[Drawn]:
    with_difference = [label for label in report.labels if not math.isnan(report.rows[label]["difference"])]
    if not with_difference:
        return
    shown, left_out = style.some(with_difference, MAX_ROWS)
    figure, ax = style.new(6.4, 1.2 + 0.28 * len(shown))
    scale, numbers = scale_of(report.ablation), []
    for place, label in enumerate(shown):
        cell = settings.alone(report.rows[label])
        low, high = cell["difference_low"], cell["difference_high"]
        if not math.isnan(low):
            ax.plot([scale * low, scale * high], [place, place], color="black", linewidth=1.2)
        filled = "black" if is_significant(cell) else "white"
        ax.plot(scale * cell["difference"], place, "s", color="black", markerfacecolor=filled, markersize=5)
        is_known = not math.isnan(cell["p_holm"]) and not settings.frameworks_text(report.ablation, cell)
        tested = f", {p_text(cell['p_holm'])}" if is_known else ""
        pairs = counted(cell["pairs"], "pair")
        numbers.append(f"{report.text(label)}: {difference_text(report.ablation, cell)} ({pairs}{tested})")
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(range(len(shown)), [style.plain(report.text(label)) for label in shown])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(f"difference in {report.ablation.report.metric} ({points(report.ablation)})")
    numbers += together(report.ablation, report.table)[:MAX_ROWS]
    caption = (
        f"To {baseline_text(report.ablation)}, with the interval of the test; filled where "
        f"p < {ALPHA:g}{family_text(report.ablation, report.table)}. {'; '.join(numbers)}.{left_out}"
    )
    yield Drawn("differences", "Difference to the baseline", caption, figure)
