"""Marginal effects: of each value of one field of the table, as the mean over all values of the other fields.

The estimates are those of the linear model with the fields and the seeds as factors, which in a complete grid are means
of differences. Their interval and test are those of any difference: over seeds, not over the residuals of the model,
since cells that share a seed share what it brings. The model tests whether fields interact.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from analysis import settings
from analysis.inference import ALPHA
from analysis.labels import Label, field_text, keys, setting_text, value_text
from analysis.report import Report
from analysis.settings import FRAMEWORK, Compared, Tested
from analysis.table.tested import number_text, verdict_text
from analysis.table.wording import interval_and_level_text, number, p_text, points

LEAST_SEEDS = 2
MAX_NAMED = 3  # combinations without a number, in a sentence


@dataclass(frozen=True, eq=False)
class Grid:
    """The combinations of the fields that vary, each on the same frameworks and seeds."""

    report: Report
    fields: tuple[str, ...]
    values: Mapping[Label, Mapping[str, Mapping[Any, float]]]  # the metric by combination, framework and seed
    trials: Mapping[Label, Mapping[str, Mapping[Any, str]]]  # ids

    def with_value(self, place: int, value: Any) -> list[Label]:
        return [label for label in self.values if label[place] == value]

    def value(self, label: Label, seed: Any) -> float:
        """The mean over the frameworks."""
        return fmean(by_seed[seed] for by_seed in self.values[label].values() if seed in by_seed)

    def seeds(self) -> list[Any]:
        return list(dict.fromkeys(seed for one in next(iter(self.values.values())).values() for seed in one))


def sentences(report: Report) -> list[str]:
    """Lines on the marginal effects; why there are none, where several fields vary; nothing where they do not."""
    fields = tuple(name for name in keys(report.ablation) if name != FRAMEWORK and len(report.values(name)) > 1)
    if len(fields) < 2 or not (report.table["n"] > 0).any():
        return []
    grid = _grid(report, fields)
    if isinstance(grid, str):
        return [f"There are no marginal effects: {grid}."]
    effects = [_sentence(grid, *name, one) for name, one in marginal_effects(grid).items()]
    return [*effects, *_interactions(grid)]


def _grid(report: Report, fields: Sequence[str]) -> Grid | str:
    """The grid, restricted to the frameworks and seeds that all combinations have; a reason why there is none."""
    names = keys(report.ablation)
    places = [names.index(name) for name in fields]
    values: dict[Label, dict[str, dict[Any, float]]] = {}
    trials: dict[Label, dict[str, dict[Any, str]]] = {}
    for label, group in report.groups.items():
        if not math.isnan(report.rows[label]["mean"]):
            short = tuple(label[place] for place in places)
            framework = str(label[names.index(FRAMEWORK)]) if FRAMEWORK in names else ""
            values.setdefault(short, {})[framework] = report.by_seed[label]
            trials.setdefault(short, {})[framework] = group.by_seed("id")
    expected = list(itertools.product(*(report.values(name) for name in fields)))
    if lacking := [one for one in expected if one not in values]:
        named = [_setting_text(report, fields, one) for one in lacking[:MAX_NAMED]]
        more = f", and {len(lacking) - MAX_NAMED} more" if len(lacking) > MAX_NAMED else ""
        return f"of {len(expected)} combinations these have no number: {'; '.join(named)}{more}"
    common = set.intersection(*({(name, seed) for name, one in by.items() for seed in one} for by in values.values()))
    if len({seed for _, seed in common}) < LEAST_SEEDS:
        return f"the {len(expected)} combinations have fewer than {LEAST_SEEDS} seeds in common"
    return Grid(report, tuple(fields), _restricted(values, common), _restricted(trials, common))


def _restricted(by_label: Mapping[Label, Mapping[str, Mapping[Any, Any]]], common: set[tuple[str, Any]]) -> Any:
    return {
        label: {
            framework: kept
            for framework, one in by_framework.items()
            if (kept := {seed: value for seed, value in one.items() if (framework, seed) in common})
        }
        for label, by_framework in by_label.items()
    }


def marginal_effects(grid: Grid) -> dict[tuple[str, Any, Any], Tested]:
    """The test of each value of each field against the baseline's, else the first, by field and both values.

    Holm's correction is for all of them.
    """
    report, compared = grid.report, []
    for place, name in enumerate(grid.fields):
        values = report.values(name)
        base = report.ablation.report.baseline.get(name, values[0])
        for value in values:
            for label in grid.with_value(place, value) if value != base else ():
                other = (*label[:place], base, *label[place + 1 :])
                compared += [
                    Compared((name, value, base), framework, grid.values[other][framework], own, math.nan,
                             (grid.trials[other][framework], grid.trials[label][framework]))
                    for framework, own in grid.values[label].items()
                ]  # fmt: skip
    found: Any = settings.tests(compared, report.read)
    return dict(found)


def _sentence(grid: Grid, name: str, value: Any, base: Any, one: Tested) -> str:
    """`token_mixing=untied over tied: +0.20 points [-0.41, 0.83], n = 3 seeds, not distinguishable; mean over ...`."""
    ablation, found = grid.report.ablation, one.paired
    others = ", ".join(f"{field_text(ablation, field)}" for field in grid.fields if field != name)
    interval = interval_and_level_text(ablation, found.low, found.high, found.level)
    shown = f"{number(ablation, found.difference, '+', 1)} {points(ablation)} {interval}".rstrip()
    words = f"{setting_text(ablation, name, value)} over {value_text(ablation, name, base)}"
    return f"{words}: {shown}, {number_text(one)}, {verdict_text(one)}; mean over {others}"


def _interactions(grid: Grid) -> Iterator[str]:
    """A line for each pair of fields that interact, and one where none do."""
    found = interactions(grid)
    ablation = grid.report.ablation
    together = {pair: p for pair, p in found.items() if p < ALPHA}
    for (first, second), p in together.items():
        names = f"{field_text(ablation, first)} and {field_text(ablation, second)}"
        yield (
            f"{names} interact ({p_text(p)}): the effect of one depends on the other, so that its mean over the other "
            f"may be true of no cell; look at the cells"
        )
    if found and not together:
        least = min(found.values())
        yield f"no interaction of the fields is shown ({'least ' if len(found) > 1 else ''}{p_text(least)})"


def interactions(grid: Grid) -> dict[tuple[str, str], float]:
    """The p of each pair of fields, by F tests in the linear model with seeds as blocks; none without a residual.

    In a complete grid the sums of squares are those of means, and do not depend on the order of the terms. The model's
    own matrix, as statsmodels.stats.anova.anova_lm needs it, has a column for each two values: seconds for 1,000 cells.
    """
    from scipy import stats

    values = [grid.report.values(name) for name in grid.fields]
    y = np.array([[grid.value(label, seed) for seed in grid.seeds()] for label in itertools.product(*values)])
    rest = y.reshape(*map(len, values), -1) - y.mean()
    pairs = list(itertools.combinations(range(len(values)), 2))
    squares, freedom = {}, {}
    for term in (*((axis,) for axis in range(rest.ndim)), *pairs):
        effect = rest.mean(tuple(axis for axis in range(rest.ndim) if axis not in term), keepdims=True)
        squares[term] = float((effect**2).sum()) * rest.size / effect.size
        freedom[term] = math.prod(rest.shape[axis] - 1 for axis in term)
        rest = rest - effect
    left, squares_left = rest.size - 1 - sum(freedom.values()), float((rest**2).sum())
    if left < 1 or squares_left <= 1e-20:
        return {}
    return {
        (grid.fields[a], grid.fields[b]): float(
            stats.f.sf(squares[a, b] / freedom[a, b] / (squares_left / left), freedom[a, b], left)
        )
        for a, b in pairs
    }


def _setting_text(report: Report, fields: Sequence[str], values: Label) -> str:
    named = zip(fields, values, strict=True)
    return " ".join(setting_text(report.ablation, name, value) for name, value in named)
