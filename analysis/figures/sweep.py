"""The metric over a swept field, a line for each setting of the others; and data scale with its power law."""

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from analysis import inference
from analysis.figures import style
from analysis.figures.style import Drawn
from analysis.labels import field_text, keys, value_text
from analysis.report import Report
from analysis.table.trends import MIN_VALUES, few_points, is_number, lines
from analysis.table.wording import level_text, metric, number, unit
from analysis.table.wording import scale as scale_of
from experiments.spec.fields import short

LOG_RATIO = 8  # of the largest value to the least, from which the axis is logarithmic
MAX_BESIDE = 4  # lines that are moved by as much as two of them would be
DATA_SCALE = ("data.fraction", "data.num_examples")


def draw(report: Report) -> Iterator[Drawn]:
    """Draw the metric over each field of numbers with enough values, else over the first field that varies at all."""
    for name in _swept(report):
        if (drawn := _draw(report, name)) is not None:
            yield drawn


def _draw(report: Report, name: str) -> Drawn | None:
    shown, left_out = style.some(list(lines(report, name)))
    if not shown:
        return None
    figure, ax = style.new()
    values, scale = report.values(name), scale_of(report.ablation)
    is_numeric = all(is_number(value) for value in values)
    is_log = is_numeric and min(values) > 0 and max(values) / min(values) >= LOG_RATIO
    series_texts = []
    for place, (rest, cells) in enumerate(shown):
        x = [float(cell[name]) if is_numeric else values.index(cell[name]) for cell in cells]
        y = np.array([cell["mean"] for cell in cells])
        low, high = (np.array([cell[end] for cell in cells]) for end in ("low", "high"))
        error = np.clip(np.nan_to_num(np.array([y - low, high - y])), 0, None)
        ax.errorbar(
            _beside(x, place, len(shown), is_log),
            scale * y,
            scale * error,
            label=rest or None,
            capsize=2,
            linewidth=1.2,
            **style.look(place),
        )
        series_texts.append(_sentence(report, name, rest, cells, x if is_numeric else []))
    if is_log:
        ax.set_xscale("log", base=2)
    if not is_numeric or len(values) <= 6:
        words = [style.plain(value_text(report.ablation, name, value)) for value in values]
        ax.set_xticks([float(value) for value in values] if is_numeric else range(len(values)), words)
        ax.minorticks_off()
    ax.set(
        xlabel=style.plain(field_text(report.ablation, name)),
        ylabel=f"{report.ablation.report.metric} ({unit(report.ablation)})",
    )
    style.legend(figure, ax)
    caption = f"Mean and {level_text()} interval over seeds. {' '.join(series_texts)}{left_out}"
    return Drawn(f"sweep_{file_name(name)}", f"Over {field_text(report.ablation, name)}", caption, figure)


def file_name(name: str) -> str:
    """The last part of a name as a part of a file's name; that of an axis may be any text."""
    return re.sub(r"[^\w-]+", "_", short(name))


def draw_data_scale(report: Report) -> Iterator[Drawn]:
    """Error over the number of training examples, both on log axes, with the fitted power law."""
    name = next((name for name in DATA_SCALE if len(report.values(name)) > 1), None)
    if name is None or not metric(report.ablation).is_share:
        return
    shown, left_out = style.some(list(lines(report, name)))
    figure, ax = style.new()
    laws, is_any = [], False
    for place, (rest, cells) in enumerate(shown):
        groups = [report.groups[tuple(cell[key] for key in keys(report.ablation))] for cell in cells]
        points = [
            (float(group["info.num_train"].iloc[0]), 1 - cell["mean"])
            for cell, group in zip(cells, groups, strict=True)
            if not math.isnan(cell["mean"])
        ]
        law = inference.power_law([size for size, _ in points], [error for _, error in points])
        if law is None:
            continue
        look, is_any = style.look(place), True
        sizes = np.array(sorted(size for size, _ in points))
        ax.plot([size for size, _ in points], [100 * error for _, error in points], **{**look, "linestyle": ""})
        fitted = 100 * math.exp(law.intercept) * sizes**law.slope
        ax.plot(sizes, fitted, label=rest or None, **{**look, "marker": ""})
        interval = "" if math.isnan(law.low) else f" [{law.low:.3f}, {law.high:.3f}]"
        laws.append(
            f"{rest + ': ' if rest else ''}error ∝ N^{law.slope:.3f}{interval}, {law.n} sizes{few_points(law)}."
        )
    if not is_any:
        style.close(figure)
        return
    ax.set(xscale="log", yscale="log", xlabel="training examples N", ylabel="error (%)")
    style.legend(figure, ax)
    caption = (
        "Error over training examples on log axes, with a power law by least squares and the "
        f"{level_text()} interval of its "
        f"exponent. {' '.join(laws)}{left_out}"
    )
    yield Drawn("data_scale", "Data scale", caption, figure)


def _swept(report: Report) -> list[str]:
    varying = [name for name in keys(report.ablation) if len(report.values(name)) > 1]
    numeric = [name for name in varying if all(is_number(value) for value in report.values(name))]
    return [name for name in numeric if len(report.values(name)) >= MIN_VALUES] or [*numeric, *varying][:1]


def _beside(x: list[float], place: int, num_lines: int, is_log: bool) -> list[float]:
    """The values moved a little, so that the lines of a figure do not hide each other."""
    shift = (place - (num_lines - 1) / 2) / max(num_lines, MAX_BESIDE)
    if is_log:
        return [value * 2 ** (0.3 * shift) for value in x]
    width = (max(x) - min(x)) / max(1, len(x) - 1)
    return [value + 0.3 * width * shift for value in x]


def _sentence(report: Report, name: str, rest: str, cells: list[Any], x: list[float]) -> str:
    values = ", ".join(
        f"{number(report.ablation, cell['mean'])} at {value_text(report.ablation, name, cell[name])}" for cell in cells
    )
    line = inference.trend(x, [cell["mean"] for cell in cells]) if len(cells) >= MIN_VALUES and x else None
    ranks = "" if line is None or math.isnan(line.spearman) else f" (rank correlation {line.spearman:+.2f})"
    return f"{rest + ': ' if rest else ''}{values}{ranks}."
