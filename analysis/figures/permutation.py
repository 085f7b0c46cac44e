"""A figure of what shuffling the input costs: of nothing, of patches and the pixels within them, of all pixels."""

import math
from collections.abc import Iterator

import numpy as np

from analysis import inference
from analysis.cells import by_seed
from analysis.figures import style
from analysis.figures.style import Drawn
from analysis.inference import Paired
from analysis.labels import Label, keys, setting_text, value_text
from analysis.report import Report
from analysis.table.wording import counted, interval_text, number, points, unit
from analysis.table.wording import scale as scale_of

FIELD, NONE = "data.permutation", "none"


def draw(report: Report) -> Iterator[Drawn]:
    kinds = report.values(FIELD)
    if NONE not in kinds or len(kinds) < 2:
        return
    others = [key for key in keys(report.ablation) if key != FIELD]
    rows: dict[str, dict[str, Label]] = {}
    for label, cell in report.rows.items():
        words = " ".join(setting_text(report.ablation, key, cell[key]) for key in others if len(report.values(key)) > 1)
        if not math.isnan(cell["mean"]):
            rows.setdefault(words, {})[cell[FIELD]] = label
    shown, left_out = style.some([words for words, by_kind in rows.items() if NONE in by_kind])
    if not shown:
        return
    figure, ax = style.new(1.6 + 1.5 * len(shown), 3.4)
    scale, width, drop_texts = scale_of(report.ablation), 0.8 / len(kinds), []
    for place, kind in enumerate(kinds):
        heights = [scale * report.rows[rows[words][kind]]["mean"] if kind in rows[words] else 0.0 for words in shown]
        x = np.arange(len(shown)) + (place - (len(kinds) - 1) / 2) * width
        hatch, shade = ("", "///", "xxx")[place % 3], ("#333333", "#AAAAAA", "#FFFFFF")[place % 3]
        bars = ax.bar(
            x,
            heights,
            0.9 * width,
            label=value_text(report.ablation, FIELD, kind),
            color=shade,
            edgecolor="black",
            hatch=hatch,
        )
        drops = [_drop(report, rows[words].get(NONE), rows[words].get(kind)) for words in shown]
        if kind != NONE:
            numbers = ["" if drop is None else number(report.ablation, drop.difference, "+") for drop in drops]
            ax.bar_label(bars, numbers, fontsize=8, padding=2)
            drop_texts += [
                f"{words + ', ' if words else ''}{value_text(report.ablation, FIELD, kind)}: {_words(report, drop)}"
                for words, drop in zip(shown, drops, strict=True)
                if drop is not None
            ]
    ax.set_xticks(range(len(shown)), map(style.plain, shown))
    ax.grid(axis="x", visible=False)
    ax.set_ylabel(f"{report.ablation.report.metric} ({unit(report.ablation)})")
    figure.legend(loc="outside lower center", ncols=3, title="permutation of the input")
    changes = f"Change against none over pairs of seeds: {'; '.join(drop_texts)}." if drop_texts else ""
    caption = f"All images have the same permutation. {changes}{left_out}"
    yield Drawn("permutation", "Permutation of the input", caption, figure)


def _drop(report: Report, none: Label | None, permuted: Label | None) -> Paired | None:
    """The change from the input in order to the permuted one, over the seeds that both have; None without any."""
    if none is None or permuted is None:
        return None
    first, second = (by_seed(report.ablation, report.groups[label]) for label in (none, permuted))
    drop = inference.paired(first, second)
    return None if math.isnan(drop.difference) else drop


def _words(report: Report, drop: Paired) -> str:
    interval = interval_text(report.ablation, drop.low, drop.high)
    shown = f"{number(report.ablation, drop.difference, '+')} {points(report.ablation)} {interval}".rstrip()
    return f"{shown} ({counted(drop.n, 'pair')})"
