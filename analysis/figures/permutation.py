"""A figure of what shuffling the input costs: of nothing, of patches and the pixels within them, of all pixels."""

import math
from collections.abc import Iterator
from typing import Any

from analysis import inference
from analysis.figures import style
from analysis.figures.looks import Looks, looks_of
from analysis.figures.style import DIM, Drawn
from analysis.inference import Paired
from analysis.labels import Label, field_text, keys, value_text
from analysis.report import Report
from analysis.table.wording import interval_text, number, points, unit
from analysis.table.wording import scale as scale_of
from backends.errors import counted

FIELD, NONE = "data.permutation", "none"
HATCHES = ("", "///", "xxx")
LETTERS = 16  # of a line below the bars


def draw(report: Report) -> Iterator[Drawn]:
    kinds = report.values(FIELD)
    if NONE not in kinds or len(kinds) < 2:
        return
    looks = looks_of(report)
    rows: dict[Label, dict[str, Label]] = {}
    others = [name for name in keys(report.ablation) if name != FIELD]
    for label, cell in report.rows.items():
        if not math.isnan(cell["mean"]):
            rows.setdefault(looks.roles.part(label, others), {})[cell[FIELD]] = label
    with_none = {rest: by_kind for rest, by_kind in rows.items() if NONE in by_kind}
    if not with_none:
        return
    shown = style.some(list(with_none))
    words = [looks.text(with_none[rest][NONE], [FIELD]) if len(rows) > 1 else "" for rest in shown]
    figure, ax = style.new(max(2.8, 1.6 + 1.2 * len(shown)), 3.2)
    for place in range(len(kinds)):
        _bars(looks, [with_none[rest] for rest in shown], ax, (place, kinds))
    ax.set_xticks(range(len(shown)), [style.wrapped(line, LETTERS) for line in words])
    ax.grid(axis="x", visible=False)
    ax.set_ylabel(f"{report.ablation.report.metric} ({unit(report.ablation)})")
    handles, names = ax.get_legend_handles_labels()
    style.draw_legend(figure, handles, names, style.plain(field_text(report.ablation, FIELD)))
    changes = "; ".join(_changes(report, [with_none[rest] for rest in shown], words))
    told = f" Change against none over pairs of seeds: {changes}." if changes else ""
    left_out = style.left_out(len(shown), len(with_none), "groups of bars")
    caption = f"All images have the same permutation.{told}{left_out}"
    yield Drawn("permutation", "Permutation of the input", caption, figure)


def _bars(looks: Looks, rows: list[dict[str, Label]], ax: Any, of: tuple[int, list[str]]) -> None:
    """Draw the bars of one kind of permutation, with its change written above them."""
    place, kinds = of
    report, kind, width = looks.report, kinds[place], 0.8 / len(kinds)
    heights = [scale_of(report.ablation) * report.rows[row[kind]]["mean"] if kind in row else 0.0 for row in rows]
    x = [i + (place - (len(kinds) - 1) / 2) * width for i in range(len(rows))]
    has_colours = looks.roles.compared == (FIELD,)
    colours = [looks.of(row[kind])["color"] if has_colours and kind in row else DIM for row in rows]
    look = {"color": colours, "edgecolor": "white", "hatch": HATCHES[place % 3]}
    words = style.plain(value_text(report.ablation, FIELD, kind))
    bars = ax.bar(x, heights, 0.9 * width, label=words, **look)
    if kind != NONE:
        drops = [_drop(report, row.get(NONE), row.get(kind)) for row in rows]
        numbers = ["" if drop is None else number(report.ablation, drop.difference, "+") for drop in drops]
        ax.bar_label(bars, numbers, fontsize=8, padding=2)


def _changes(report: Report, rows: list[dict[str, Label]], words: list[str]) -> Iterator[str]:
    for kind in report.values(FIELD):
        for row, where in zip(rows, words, strict=True):
            drop = _drop(report, row.get(NONE), row.get(kind)) if kind != NONE else None
            if drop is not None:
                permuted = value_text(report.ablation, FIELD, kind)
                yield f"{where + ', ' if where else ''}{permuted}: {_words(report, drop)}"


def _drop(report: Report, none: Label | None, permuted: Label | None) -> Paired | None:
    """The change from the input in order to the permuted one, over the seeds that both have; None without any."""
    if none is None or permuted is None:
        return None
    drop = inference.paired(report.by_seed[none], report.by_seed[permuted])
    return None if math.isnan(drop.difference) else drop


def _words(report: Report, drop: Paired) -> str:
    interval = interval_text(report.ablation, drop.low, drop.high)
    shown = f"{number(report.ablation, drop.difference, '+')} {points(report.ablation)} {interval}".rstrip()
    return f"{shown} ({counted(drop.n, 'pair')})"
