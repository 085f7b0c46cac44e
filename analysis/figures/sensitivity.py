"""How much a setting depends on what is tuned: the metric that chooses over each tuned field, a line a setting."""

from collections.abc import Iterator
from typing import Any

from analysis.figures import style
from analysis.figures.style import Drawn
from analysis.figures.sweep import LOG_RATIO
from analysis.labels import field_text
from analysis.report import Report
from analysis.table.trends import is_number
from analysis.tuned import point_text
from experiments.design import tune
from experiments.design.tune import Choice, Tried
from experiments.design.tune_spec import TuneSpec
from experiments.results import metrics
from experiments.spec.fields import short, text


def draw(report: Report) -> Iterator[Drawn]:
    """Draw a figure for each tuned field, from the tuning trials that have ended."""
    if report.ablation.tune is None:
        return
    for name, tried in report.ablation.tune.over.items():
        profiles = [(choice, profile(report.ablation.tune, choice, name)) for choice in report.choices]
        if some := [one for one in profiles if one[1]]:
            yield _draw(report, report.ablation.tune, name, tried, some)


def profile(tuned: TuneSpec, choice: Choice, name: str) -> dict[Any, Tried]:
    """What was best at each value of a field, whatever the other tuned fields are; without values that all diverged."""
    by_value: dict[Any, list[Tried]] = {}
    for one in choice.tried:
        if one.mean is not None:
            by_value.setdefault(one.value[name], []).append(one)
    return {value: tune.best(tuned, by_value[value]) for value in tuned.over[name] if value in by_value}


def _draw(
    report: Report, tuned: TuneSpec, name: str, tried: tuple[Any, ...], profiles: list[tuple[Choice, dict[Any, Tried]]]
) -> Drawn:
    shown, left_out = style.some(profiles)
    figure, ax = style.new()
    metric, is_numeric = metrics.parse(tuned.by).metric, all(map(is_number, tried))
    places = {value: float(value) if is_numeric else float(i) for i, value in enumerate(tried)}
    sentences = []
    for place, (choice, points) in enumerate(shown):
        look, where = style.look(place), point_text(report.ablation, choice.setting.told) or report.ablation.name
        order = sorted(points, key=lambda value: places[value])
        scores = [metric.scale * (points[value].mean or 0.0) for value in order]
        ax.plot([places[value] for value in order], scores, label=style.plain(where), linewidth=1.2, **look)
        chosen = choice.chosen.value[name] if choice.chosen else None
        if choice.chosen is not None:
            ax.plot(
                places[chosen], metric.scale * (choice.chosen.mean or 0.0), "o", color=look["color"],
                markerfacecolor="none", markersize=11,
            )  # fmt: skip
        sentences.append(f"{where}: {_numbers(tuned, points, tried, chosen)}.")
    if is_numeric and min(tried) > 0 and max(tried) / min(tried) >= LOG_RATIO:
        ax.set_xscale("log")
    ax.set_xticks(list(places.values()), [style.plain(text(value)) for value in tried])
    ax.minorticks_off()
    ax.set(xlabel=field_text(report.ablation, name), ylabel=f"{tuned.by} ({metric.unit})")
    style.legend(figure, ax)
    others = ", at the best of the other tuned fields" if len(tuned.over) > 1 else ""
    caption = (
        f"Mean over the seeds that tune, over {field_text(report.ablation, name)}{others}; ringed: the chosen value. "
        f"{' '.join(sentences)}{left_out}"
    )
    return Drawn(f"tuning_{short(name)}", f"Tuned {field_text(report.ablation, name)}", caption, figure)


def _numbers(tuned: TuneSpec, points: dict[Any, Tried], tried: tuple[Any, ...], chosen: Any) -> str:
    """`59.7 at 0.001, 81.2 at 0.01 (chosen), none at 0.1`."""
    metric = metrics.parse(tuned.by).metric
    numbers = [
        f"{metric.text(points[value].mean or 0.0) if value in points else 'none'} at {text(value)}"
        + (" (chosen)" if value == chosen else "")
        for value in tried
    ]
    return ", ".join(numbers)
