"""What shuffling the input costs: nothing, patches and the pixels within them, or all pixels."""

import math

import numpy as np

from analysis.cells import keys
from analysis.figures import style
from analysis.figures.style import Drawn
from analysis.notes import is_accuracy, number, unit
from analysis.report import Report
from experiments.fields import short, text

FIELD, NONE = "data.permutation", "none"


def draw(report: Report) -> Drawn | None:
    kinds = report.values(FIELD)
    if NONE not in kinds or len(kinds) < 2:
        return None
    others = [key for key in keys(report.ablation) if key != FIELD]
    rows: dict[str, dict[str, float]] = {}
    for cell in report.rows.values():
        words = " ".join(f"{short(key)}={text(cell[key])}" for key in others if len(report.values(key)) > 1)
        rows.setdefault(words, {})[cell[FIELD]] = cell["mean"]
    shown, left_out = style.some([words for words, found in rows.items() if not math.isnan(found.get(NONE, math.nan))])
    if not shown:
        return None
    figure, ax = style.new(1.6 + 1.5 * len(shown), 3.4)
    scale, width, said = 100 if is_accuracy(report.ablation) else 1, 0.8 / len(kinds), []
    for place, kind in enumerate(kinds):
        heights = [scale * rows[words].get(kind, math.nan) for words in shown]
        x = np.arange(len(shown)) + (place - (len(kinds) - 1) / 2) * width
        hatch, shade = ("", "///", "xxx")[place % 3], ("#333333", "#AAAAAA", "#FFFFFF")[place % 3]
        bars = ax.bar(x, heights, 0.9 * width, label=kind, color=shade, edgecolor="black", hatch=hatch)
        drops = [rows[words].get(kind, math.nan) - rows[words][NONE] for words in shown]
        if kind != NONE:
            ax.bar_label(
                bars, ["" if math.isnan(drop) else number(report.ablation, drop, "+") for drop in drops], fontsize=8
            )
            said += [
                f"{words + ', ' if words else ''}{kind}: {number(report.ablation, drop, '+')}"
                for words, drop in zip(shown, drops, strict=True)
                if not math.isnan(drop)
            ]
    ax.set_xticks(range(len(shown)), shown)
    ax.grid(axis="x", visible=False)
    ax.set_ylabel(f"{report.ablation.report.metric} ({unit(report.ablation)})")
    figure.legend(loc="outside lower center", ncols=3, title="permutation of the input")
    changes = f"Change against none, in {unit(report.ablation)}: {'; '.join(said)}."
    caption = f"The same permutation for all images. {changes}{left_out}"
    return Drawn("permutation", "Permutation of the input", caption, figure)
