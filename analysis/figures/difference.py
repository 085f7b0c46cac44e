"""Differences to the baseline as a forest plot: a line for each setting, a small mark for each of its frameworks."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from analysis import settings
from analysis.figures import style
from analysis.figures.looks import Looks, looks_of
from analysis.figures.style import Drawn, Values
from analysis.labels import Label
from analysis.report import Report
from analysis.table.heading import family_text
from analysis.table.wording import baseline_text, difference_text, has_star, p_text, points
from analysis.table.wording import scale as scale_of
from backends.errors import counted

MAX_ROWS = 40
ROW, APART = 0.21, 1.4  # inches of a line; lines between settings, whose words may need more
BELOW = 0.4  # lines by which the marks of frameworks stand below
WIDTH, LETTERS = 4.3, 24  # inches, which a phone shows; of a line of words
SMALL = {"markersize": 3.5, "markeredgewidth": 0.7}


@dataclass(frozen=True, eq=False)
class _Row:
    """A setting, one of its cells, and where it stands."""

    label: Label
    cell: Any  # of settings.rows_of
    place: float


def draw(report: Report) -> Iterator[Drawn]:
    looks = looks_of(report)
    compared = settings.rows_of(report.ablation, report.rows)
    if not compared:
        return
    chosen = _chosen(looks, list(compared))
    words = [looks.roles.phrase(looks.roles.compared, looks.compared(label), baseline=True) for label in chosen]
    words = [style.wrapped(line, LETTERS) for line in words]
    rows, heads = _placed(looks, chosen, compared, [max(APART, 0.8 * line.count("\n") + 0.9) for line in words])
    height = 1.0 + ROW * (rows[-1].place + APART)
    figure, ax = style.new(WIDTH, height)
    shown = Values()
    for row in rows:
        _mark(looks, row, ax, shown)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks([row.place for row in rows], words)
    beside = {"transform": ax.get_yaxis_transform(), "va": "center", "weight": "bold", "fontsize": 8}
    for head, place in heads:
        ax.text(0.01, place, style.plain(head), **beside)
    ax.set_ylim(max(row.place for row in rows) + 0.9, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(f"difference in {report.ablation.report.metric} ({points(report.ablation)})")
    looks.legend(figure, settings=False)
    small = " Small marks: each framework alone." if looks.roles.frameworks else ""
    caption = (
        f"To {baseline_text(report.ablation)}, with the interval of the test; a full mark: distinguishable"
        f"{', which none is called before all trials have ended' if report.table['interim'].any() else ''}"
        f"{family_text(report.ablation, report.rows)}.{small}{style.left_out(len(chosen), len(compared), 'settings')}"
    )
    yield Drawn("differences", "Difference to the baseline", caption, figure, shown.texts)


def _chosen(looks: Looks, labels: list[Label]) -> list[Label]:
    """Settings that the figure has room for, group by group; whole groups where one fits."""
    groups: dict[Label, list[Label]] = {}
    for label in labels:
        groups.setdefault(looks.roles.part(label, looks.roles.beside), []).append(label)
    in_order = [groups[group] for group in looks.roles.groups if group in groups]
    largest = max(map(len, in_order))
    if sum(map(len, in_order)) > MAX_ROWS:
        in_order = style.some(in_order, max(1, MAX_ROWS // (largest + 1)))
    return [label for group in in_order for label in style.some(group, MAX_ROWS)]


def _placed(
    looks: Looks, chosen: list[Label], compared: dict[Label, Any], heights: Sequence[float]
) -> tuple[list[_Row], list[tuple[str, float]]]:
    """Rows of settings, and the heads of their groups, from above. Args: heights: of the rows, in lines."""
    rows, heads, place, last = [], [], 0.0, None
    for label, height in zip(chosen, heights, strict=True):
        group = looks.roles.part(label, looks.roles.beside)
        if group and group != last:
            heads.append((looks.roles.phrase(looks.roles.beside, group), place))
            place += 1.0
        rows.append(_Row(label, compared[label], place + (height - APART) / 2))
        place, last = place + height, group
    return rows, heads


def _mark(looks: Looks, row: _Row, ax: Any, shown: Values) -> None:
    """The difference of a setting with its interval, and below it those of its frameworks."""
    ablation, cell, scale = looks.report.ablation, row.cell, scale_of(looks.report.ablation)
    look = {**looks.of_setting(row.label), "linestyle": "", "markersize": 6}
    if not math.isnan(cell["difference_low"]):
        ends = [scale * cell[f"difference_{end}"] for end in ("low", "high")]
        ax.plot(ends, [row.place] * 2, color=look["color"], linewidth=1.4)
    full = {} if has_star(cell) else {"markerfacecolor": "white"}
    (mark,) = ax.plot([scale * cell["difference"]], [row.place], **{**look, **full})
    together = settings.frameworks_text(ablation, cell)
    words = ", ".join(filter(None, (_words(looks, row.label), f"mean of {together}" if together else "")))
    told = filter(None, (difference_text(ablation, cell), p_text(cell["p_holm"]), counted(int(cell["pairs"]), "pair")))
    shown.add(mark, [f"{words}: {', '.join(told)}"])
    for label in looks.roles.cells_of(row.label) if together else ():
        own = settings.alone(looks.report.rows[label])
        if not math.isnan(own["difference"]):
            small = {**looks.of(label), "linestyle": "", **SMALL}
            (mark,) = ax.plot([scale * own["difference"]], [row.place + BELOW], **small)
            shown.add(mark, [f"{looks.text(label)}: {difference_text(ablation, own)}"])


def _words(looks: Looks, label: Label) -> str:
    names = (*looks.roles.compared, *looks.roles.beside)
    return looks.roles.phrase(names, looks.roles.part(label, names))
