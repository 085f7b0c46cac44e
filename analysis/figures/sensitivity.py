"""How much a setting depends on what is tuned: the metric that chooses over each tuned field, a line a setting."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.figures import style
from analysis.figures.looks import Looks, looks_of
from analysis.figures.panels import panels
from analysis.figures.style import Drawn, Values
from analysis.figures.sweep import MOST_ROWS, Axis, file_name
from analysis.labels import Label, field_text, keys, setting_text, value_text
from analysis.report import Report
from analysis.tuned import folded_text, point_text
from experiments.design.asked import asked
from experiments.design.choice import Choice, Tried, best
from experiments.design.tune_spec import TuneSpec
from experiments.results import metrics

PRUNED = {"marker": "x", "linestyle": ""}  # at the step that it came to, which no line joins to whole trainings
RING = {"marker": "o", "linestyle": "", "markerfacecolor": "none", "markersize": 11}  # around what was chosen


@dataclass(frozen=True, eq=False)
class _Line:
    """A setting over a tuned field."""

    choice: Choice
    label: Label  # the first of its cells
    points: dict[Any, Tried]  # trained to their end
    pruned: dict[Any, Tried]


def draw(report: Report) -> Iterator[Drawn]:
    """Draw a figure for each tuned field, from the tuning trials that have ended."""
    tuned = report.ablation.tune
    if tuned is None:
        return
    looks = looks_of(report)
    for name in tuned.over:
        lines = [_line(report, tuned, one, name) for one in report.choices]
        if lines := [line for line in lines if line.points or line.pruned]:
            yield _draw(looks, tuned, name, lines)


def _label(report: Report, choice: Choice) -> Label:
    """The first cell of a setting, which the table lacks where nothing is chosen."""
    point = choice.setting.members[0]
    return tuple(asked(name, point, report.ablation.base) for name in keys(report.ablation))


def _line(report: Report, tuned: TuneSpec, choice: Choice, name: str) -> _Line:
    whole, pruned = profile(tuned, choice.tried, name), dict[Any, Tried]()
    for step in sorted({one.step or 0 for one in choice.pruned}):  # what came furthest stands for a value
        pruned |= profile(tuned, [one for one in choice.pruned if one.step == step], name)
    return _Line(
        choice,
        _label(report, choice),
        whole,
        {value: one for value, one in pruned.items() if value not in whole},
    )


def profile(tuned: TuneSpec, tried: Sequence[Tried], name: str) -> dict[Any, Tried]:
    """What was best at each value of a field, whatever the other tuned fields are; without values that all diverged."""
    by_value: dict[Any, list[Tried]] = {}
    for one in tried:
        if one.mean is not None:
            by_value.setdefault(one.value[name], []).append(one)
    return {value: best(tuned, by_value[value]) for value in tuned.over[name] if value in by_value}


def _draw(looks: Looks, tuned: TuneSpec, name: str, lines: Sequence[_Line]) -> Drawn:
    ablation, axis, shown = looks.report.ablation, Axis(looks.report.ablation, name, tuned.over[name]), Values()
    placed = panels(looks, looks.roles.beside, MOST_ROWS, MOST_ROWS)
    by_panel, drawn = _by_panel(looks, placed.names, lines), []
    figure, axes = placed.draw()
    for row, line_of_axes in zip(placed.rows, axes, strict=True):
        for panel, ax in zip(row, line_of_axes, strict=True):
            if panel is not None:
                axis.set(ax)
                for line in by_panel.get(panel, []):
                    _mark(looks, line, ax, axis, shown)
                    drawn.append(line)
    metric, words = metrics.parse(tuned.by).metric, field_text(ablation, name)
    figure.supxlabel(style.plain(words), fontsize=9)
    figure.supylabel(f"{tuned.by} ({metric.unit})", fontsize=9)
    looks.legend(figure)
    others = ", at the best of the other tuned fields" if len(tuned.over) > 1 else ""
    folded = folded_text(ablation, [line.choice for line in drawn])
    each = (f"{_words(looks, line)}: {_numbers(looks, line, name)}." for line in drawn)
    numbers = f"{folded}." if folded else " ".join(each)
    left_out = f" The figure shows {len(drawn)} of {len(lines)} settings." if len(drawn) < len(lines) else ""
    crossed = "; crossed: pruned, as it was at that step" if any(line.pruned for line in drawn) else ""
    marks = f"ringed: the chosen value{crossed}"
    caption = f"Mean over the seeds that tune, over {words}{others}; {marks}. {numbers}{left_out}"
    return Drawn(f"tuning_{file_name(name)}", f"Tuned {words}", caption, figure, shown.texts)


def _by_panel(looks: Looks, names: Sequence[str], lines: Sequence[_Line]) -> dict[Label, list[_Line]]:
    """Lines that can be told apart, by panel: a setting that the table still lacks may have no look of its own."""
    roles, found = looks.roles, dict[tuple[Any, ...], _Line]()
    for line in sorted(lines, key=lambda line: line.label not in looks.report.rows):
        framework = roles.framework(line.label)
        if looks.is_shown(line.label) and framework in (*roles.frameworks, ""):
            found.setdefault((roles.part(line.label, names), looks.compared(line.label), framework), line)
    by_panel: dict[Label, list[_Line]] = {}
    for (panel, *_), line in found.items():
        by_panel.setdefault(panel, []).append(line)
    return by_panel


def _mark(looks: Looks, line: _Line, ax: Any, axis: Axis, shown: Values) -> None:
    """Draw the line of a setting, with a ring around what was chosen, and crosses for what was pruned."""
    ablation, look = looks.report.ablation, looks.of(line.label)
    assert ablation.tune is not None
    metric = metrics.parse(ablation.tune.by).metric
    for points, more in ((line.points, {"linewidth": 1.1}), (line.pruned, PRUNED)):
        if not points:
            continue
        order = sorted(points, key=axis.place)
        means = [points[value].mean or 0.0 for value in order]
        places = list(map(axis.place, order))
        (marks,) = ax.plot(places, [metric.scale * mean for mean in means], **{**look, **more})
        at = [setting_text(ablation, axis.name, value) for value in order]
        told = [f"{metric.text(mean)} {metric.unit}{_pruned(points[x])}" for x, mean in zip(order, means, strict=True)]
        shown.add(marks, [f"{_words(looks, line)}, {where}: {one}" for where, one in zip(at, told, strict=True)])
    if chosen := line.choice.chosen:
        ring = {**RING, "color": look["color"]}
        ax.plot([axis.place(chosen.value[axis.name])], [metric.scale * (chosen.mean or 0.0)], **ring)


def _pruned(one: Tried) -> str:
    return f" (pruned at step {one.step})" if one.step else ""


def _words(looks: Looks, line: _Line) -> str:
    ablation = looks.report.ablation
    return point_text(ablation, line.choice.setting.told) or ablation.name


def _numbers(looks: Looks, line: _Line, name: str) -> str:
    """`59.7 at 0.001, 81.2 at 0.01 (chosen), none at 0.1`."""
    ablation = looks.report.ablation
    assert ablation.tune is not None
    metric, chosen = metrics.parse(ablation.tune.by).metric, line.choice.chosen
    points = {**line.points, **line.pruned}
    means = {value: metric.text(one.mean or 0.0) for value, one in points.items()}
    numbers = [
        f"{means.get(value, 'none')} at {value_text(ablation, name, value)}"
        + (" (chosen)" if chosen and value == chosen.value[name] else "")
        + (_pruned(points[value]) if value in points else "")
        for value in ablation.tune.over[name]
    ]
    return ", ".join(numbers)
