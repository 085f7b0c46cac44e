"""Differences to the baseline as a forest plot."""

import math

from analysis.figures import style
from analysis.figures.style import Drawn
from analysis.notes import baseline_text, interval_text, is_accuracy, number, unit
from analysis.report import Report
from analysis.table import p_value

MAX_ROWS = 40


def draw(report: Report) -> Drawn | None:
    known = [label for label in report.labels if not math.isnan(report.rows[label]["difference"])]
    if not known:
        return None
    shown, left_out = style.some(known, MAX_ROWS)
    figure, ax = style.new(6.4, 1.2 + 0.28 * len(shown))
    scale, said = 100 if is_accuracy(report.ablation) else 1, []
    for place, label in enumerate(shown):
        cell = report.rows[label]
        low, high = cell["difference_low"], cell["difference_high"]
        if not math.isnan(low):
            ax.plot([scale * low, scale * high], [place, place], color="black", linewidth=1.2)
        filled = "black" if cell["p_holm"] < 0.05 else "white"
        ax.plot(scale * cell["difference"], place, "s", color="black", markerfacecolor=filled, markersize=5)
        tested = "" if math.isnan(cell["p_holm"]) else f", p = {p_value(cell['p_holm'])}"
        words = f"{number(report.ablation, cell['difference'], '+')} {interval_text(report.ablation, low, high)}"
        said.append(f"{report.text(label)}: {words.strip()} ({int(cell['pairs'])} pairs{tested})")
    floor = report.table["floor"].max()
    if not math.isnan(floor):
        ax.axvspan(-scale * floor, scale * floor, color="black", alpha=0.08, linewidth=0)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(range(len(shown)), [report.text(label) for label in shown])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    points = "points" if is_accuracy(report.ablation) else unit(report.ablation)
    ax.set_xlabel(f"difference in {report.ablation.report.metric} ({points})")
    band = (
        ""
        if math.isnan(floor)
        else f" Grey: ±{number(report.ablation, floor)}, what the number of test examples leaves open."
    )
    caption = (
        f"To {baseline_text(report.ablation)}, with the 95 % interval over pairs of seeds; filled where p < 0.05 "
        f"after Holm's correction.{band} {'; '.join(said)}.{left_out}"
    )
    return Drawn("differences", "Difference to the baseline", caption, figure)
