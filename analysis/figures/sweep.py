"""The metric over a swept field, a line for each setting and framework; and data scale with its power law."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from analysis import inference
from analysis.figures import permutation, style
from analysis.figures.looks import Looks, looks_of
from analysis.figures.panels import Panels, panels
from analysis.figures.style import Drawn, Values
from analysis.labels import Label, field_text, field_words, keys, value_text
from analysis.report import Report
from analysis.settings import FRAMEWORK
from analysis.table.trends import MIN_VALUES, few_points, is_number
from analysis.table.wording import interval_text, level_text, metric, number, unit
from analysis.table.wording import scale as scale_of
from experiments.design.ablation import Ablation
from experiments.spec.fields import short

LOG_RATIO = 8  # of the largest value to the least, from which the axis is logarithmic
MAX_TICKS = 6  # values that all have a tick, where there is room
LETTER = 0.08  # inches of a letter of a tick
MAX_BESIDE = 4  # lines that are moved by as much as two of them would be
MOST_ROWS = 3  # of panels
DATA_SCALE = ("data.fraction", "data.num_examples")


def draw(report: Report) -> Iterator[Drawn]:
    """Draw the metric over each field of numbers with enough values, else over the first field that varies at all."""
    if all(math.isnan(cell["mean"]) for cell in report.rows.values()):
        return
    looks = looks_of(report)
    for name in _swept(report):
        yield _draw(looks, name)


def _draw(looks: Looks, name: str) -> Drawn:
    report, values = looks.report, looks.report.values(name)
    axis = Axis(report.ablation, name, values)
    placed = _panels(looks, name)
    figure, axes = placed.draw()
    shown = Values()
    for row, line in zip(placed.rows, axes, strict=True):
        for panel, ax in zip(row, line, strict=True):
            if panel is not None:
                _lines(placed, panel, ax, axis, shown)
                axis.set(ax)
    words = field_text(report.ablation, name)
    figure.supxlabel(style.plain(words), fontsize=9)
    figure.supylabel(f"{report.ablation.report.metric} ({unit(report.ablation)})", fontsize=9)
    looks.legend(figure, settings=name not in looks.roles.compared)
    left_out = placed.left_out if name in looks.roles.compared else looks.left_out + placed.left_out
    bound = looks.roles.names_text(_bound(looks, name))
    own = f" Each {field_words(report.ablation, name)} has its own {bound}." if bound else ""
    caption = f"Mean over seeds and its {level_text()} interval.{own}{left_out}"
    return Drawn(f"sweep_{file_name(name)}", f"Over {words}", caption, figure, shown.texts)


def file_name(name: str) -> str:
    """The last part of a name as a part of a file's name; that of an axis may be any text."""
    return re.sub(r"[^\w-]+", "_", short(name))


class Axis:
    """The axis of a swept field: of its numbers, or of its values one after another."""

    def __init__(self, ablation: Ablation, name: str, values: Sequence[Any]):
        self.ablation, self.name, self.values = ablation, name, values
        self.is_numeric = all(is_number(value) for value in values)
        self.is_log = self.is_numeric and min(values) > 0 and max(values) / min(values) >= LOG_RATIO

    def place(self, value: Any) -> float:
        return float(value) if self.is_numeric else float(self.values.index(value))

    def beside(self, x: float, place: int, num_lines: int) -> float:
        """The value moved a little, so that the lines of a panel do not hide each other."""
        shift = (place - (num_lines - 1) / 2) / max(num_lines, MAX_BESIDE)
        if self.is_log:
            return x * float(2 ** (0.3 * shift))
        ends = [self.place(value) for value in self.values]
        width = (max(ends) - min(ends)) / max(1, len(ends) - 1) or 1.0
        return x + (0.3 if self.is_numeric else 0.6) * width * shift

    def set(self, ax: Any) -> None:
        if self.is_log:
            ax.set_xscale("log")
            style.plain_ticks(ax.xaxis)
        if not self.is_numeric or len(self.values) <= MAX_TICKS:
            words = [style.wrapped(value_text(self.ablation, self.name, value), 12) for value in self.values]
            ax.set_xticks([self.place(value) for value in self.values], words)
            ax.minorticks_off()
        if not self.is_numeric:
            ax.set_xlim(-0.5, len(self.values) - 0.5)
            longest = max(len(line) for word in words for line in word.split("\n"))
            if longest * len(words) * LETTER > ax.get_position().width * ax.figure.get_figwidth():
                ax.tick_params(axis="x", labelrotation=90)


def _panels(looks: Looks, name: str) -> Panels:
    """Panels of all fields that are neither the axis, nor bound to it, nor the framework, nor told by colour."""
    roles, bound = looks.roles, _bound(looks, name)
    others = [one for one in roles.compared if one != name] if name in roles.compared else []
    beside = [one for one in roles.beside if one != name and one not in bound]
    return panels(looks, [*beside, *others], MOST_ROWS, MOST_ROWS)


def _bound(looks: Looks, name: str) -> list[str]:
    """Fields beside what is compared that have one value at each value of a field, as those that are drawn with it."""
    pairs = {one: {looks.roles.part(label, (name, one)) for label in looks.report.labels} for one in looks.roles.beside}
    num_values = len(looks.report.values(name))
    return [one for one, found in pairs.items() if one != name and len(found) == num_values]


def _lines(placed: Panels, panel: Label, ax: Any, axis: Axis, shown: Values) -> None:
    """Draw the lines of a panel. A line over the compared field has no colour of its own, its marks have theirs."""
    looks, report = placed.looks, placed.looks.report
    is_compared = axis.name in looks.roles.compared
    by_line: dict[Label, list[Label]] = {}
    for label in placed.cells(panel):
        if is_compared or looks.is_shown(label):
            line = (looks.roles.framework(label), () if is_compared else looks.compared(label))
            by_line.setdefault(line, []).append(label)
    for place, labels in enumerate(by_line.values()):
        ordered = sorted(labels, key=lambda label: axis.place(report.rows[label][axis.name]))
        cells = [report.rows[label] for label in ordered]
        x = [axis.beside(axis.place(cell[axis.name]), place, len(by_line)) for cell in cells]
        y = [scale_of(report.ablation) * cell["mean"] for cell in cells]
        look = looks.plain(ordered[0]) if is_compared else {**looks.of(ordered[0]), "marker": ""}
        if axis.is_numeric:
            ax.plot(x, y, linewidth=1.1, **look)
        _marks(looks, ordered, ax, (x, y), shown)


def _marks(looks: Looks, labels: Sequence[Label], ax: Any, places: tuple[Sequence[float], ...], shown: Values) -> None:
    """The means of cells with their intervals; those of one look at once."""
    report, x, y = looks.report, *places
    scale = scale_of(report.ablation)
    groups: dict[Label | None, list[int]] = {}
    for i, label in enumerate(labels):
        groups.setdefault(looks.compared(label) if looks.is_shown(label) else None, []).append(i)
    for chosen in groups.values():
        look = looks.of(labels[chosen[0]])
        cells = [report.rows[labels[i]] for i in chosen]
        low, high = ([scale * cell[end] for cell in cells] for end in ("low", "high"))
        ax.vlines([x[i] for i in chosen], low, high, color=look["color"], linewidth=0.8, alpha=0.7)
        (marks,) = ax.plot([x[i] for i in chosen], [y[i] for i in chosen], **{**look, "linestyle": ""})
        shown.add(marks, [_value(looks, labels[i]) for i in chosen])


def _value(looks: Looks, label: Label) -> str:
    ablation, cell = looks.report.ablation, looks.report.rows[label]
    interval = interval_text(ablation, cell["low"], cell["high"])
    value = f"{number(ablation, cell['mean'])} {unit(ablation)} {interval}".rstrip()
    return f"{looks.text(label)}: {value}, n = {int(cell['n'])}"


def draw_data_scale(report: Report) -> Iterator[Drawn]:
    """Error over the number of training examples, both on log axes, with the fitted power law."""
    name = next((name for name in DATA_SCALE if len(report.values(name)) > 1), None)
    if name is None or not metric(report.ablation).is_share:
        return
    looks = looks_of(report)
    placed, shown, laws = _panels(looks, name), Values(), []
    figure, axes = placed.draw(sharex=True)
    for row, line in zip(placed.rows, axes, strict=True):
        for panel, ax in zip(row, line, strict=True):
            if panel is not None:
                laws += list(_laws(placed, panel, ax, name, shown))
                ax.set(xscale="log", yscale="log")
                style.plain_ticks(ax.xaxis)
                style.plain_ticks(ax.yaxis)
    if not laws:
        return
    figure.supxlabel("training examples N", fontsize=9)
    figure.supylabel("error (%)", fontsize=9)
    looks.legend(figure, settings=name not in looks.roles.compared)
    caption = (
        f"Power laws by least squares, with the {level_text()} interval of the exponent. "
        f"{' '.join(laws)}{looks.left_out}{placed.left_out}"
    )
    yield Drawn("data_scale", "Data scale", caption, figure, shown.texts)


def _laws(placed: Panels, panel: Label, ax: Any, name: str, shown: Values) -> Iterator[str]:
    """Draw the errors and laws of a panel; a sentence on each law."""
    looks, report = placed.looks, placed.looks.report
    is_compared = name in looks.roles.compared
    others = [one for one in keys(report.ablation) if one != name]
    by_line: dict[Label, list[Label]] = {}
    for label in placed.cells(panel):
        if is_compared or looks.is_shown(label):
            by_line.setdefault(looks.roles.part(label, others), []).append(label)
    for labels in by_line.values():
        sizes = [float(report.groups[label].numbers("info.num_train")[0]) for label in labels]
        errors = [1 - float(report.rows[label]["mean"]) for label in labels]
        law = inference.power_law(sizes, errors)
        if law is None:
            continue
        look = {**looks.plain(labels[0]), "marker": "o"} if is_compared else looks.of(labels[0])
        (marks,) = ax.plot(sizes, [100 * error for error in errors], **{**look, "linestyle": ""})
        shown.add(
            marks,
            [
                f"{looks.text(label)}: error {100 * error:.1f} %, N = {size:,.0f}"
                for label, size, error in zip(labels, sizes, errors, strict=True)
            ],
        )
        ends = np.array([min(sizes), max(sizes)])
        ax.plot(ends, 100 * math.exp(law.intercept) * ends**law.slope, **{**look, "marker": "", "linewidth": 1.1})
        interval = "" if math.isnan(law.low) else f" [{law.low:.3f}, {law.high:.3f}]"
        words = looks.text(labels[0], [name]) if len(others) else ""
        is_named = words and words != report.ablation.name
        yield f"{words + ': ' if is_named else ''}error ∝ N^{law.slope:.3f}{interval}, {law.n} sizes{few_points(law)}."


def _swept(report: Report) -> list[str]:
    varying = [name for name in keys(report.ablation) if len(report.values(name)) > 1]
    numeric = [name for name in varying if all(is_number(value) for value in report.values(name))]
    words = [name for name in varying if name != FRAMEWORK] or varying
    if words == [permutation.FIELD] and permutation.NONE in report.values(permutation.FIELD):
        return []  # it has a figure of its own
    return [name for name in numeric if len(report.values(name)) >= MIN_VALUES] or [*numeric, *words][:1]
