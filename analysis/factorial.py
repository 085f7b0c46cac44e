"""The factors of a grid: the effect of each value, as the mean over all values of the others, and interactions.

The estimates are those of the linear model with the factors and the seeds, which in a complete grid are means of
differences. Their intervals and tests are those of any difference, see settings.py: over seeds and examples, not over
the residuals of the model, since cells that share a seed, or an example, share what it brings.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from analysis import settings
from analysis.labels import Label, field_text, keys, setting_text
from analysis.report import Report
from analysis.settings import FRAMEWORK, Compared, Tested

LEAST_SEEDS = 2
MAX_NAMED = 3  # combinations without a number, in a sentence

Factor = tuple[str, ...]  # a field, or several that vary together, as those that are drawn do
BySeed = Mapping[Label, Mapping[str, Mapping[Any, Any]]]  # by combination, framework and seed


class Effect(NamedTuple):
    """A field's value against its value in the baseline, else against its first."""

    name: str
    value: Any
    base: Any


Contrast = tuple[Effect, Effect]  # how far the effect of one differs between both values of the other


@dataclass(frozen=True, eq=False)
class Grid:
    """The combinations of the factors that vary, each on the same frameworks and seeds."""

    report: Report
    factors: tuple[Factor, ...]
    values: BySeed  # the metric; a combination has for each factor the values of its fields
    trials: BySeed  # ids

    def levels(self, place: int) -> list[Label]:
        """The values of a factor, in the order of the grid."""
        return list(dict.fromkeys(label[place] for label in self.values))

    def effects(self, label: Label) -> dict[int, Effect]:
        """What sets a combination apart from the baseline, by place of its factor; joint factors have no baseline."""
        return {
            place: Effect(self.factors[place][0], label[place][0], base)
            for place, base in self._bases.items()
            if label[place][0] != base
        }

    @cached_property
    def _bases(self) -> dict[int, Any]:
        base = self.report.ablation.report.baseline
        single = {place: factor[0] for place, factor in enumerate(self.factors) if len(factor) == 1}
        return {place: base[name] if name in base else self.levels(place)[0][0] for place, name in single.items()}

    def compared(self, setting: Label, label: Label, other: Label) -> list[Compared]:
        """A combination beside another, on each framework."""
        return [
            Compared(setting, framework, self.values[other][framework], own, math.nan,
                     (self.trials[other][framework], self.trials[label][framework]))
            for framework, own in self.values[label].items()
        ]  # fmt: skip


def varying(report: Report) -> tuple[str, ...]:
    """The fields that may have effects."""
    return tuple(name for name in keys(report.ablation) if name != FRAMEWORK and len(report.values(name)) > 1)


def grid_of(report: Report) -> Grid | str:
    """The grid, restricted to the frameworks and seeds that all combinations have; a reason why there is none."""
    names, fields = keys(report.ablation), varying(report)
    places = {name: names.index(name) for name in fields}
    factors = factors_of(fields, list(dict.fromkeys(tuple(label[places[name]] for name in fields)
                                                    for label in report.groups)))  # fmt: skip
    if len(factors) < 2:
        return f"{' and '.join(field_text(report.ablation, name) for name in fields)} do not vary independently"
    values: dict[Label, dict[str, dict[Any, float]]] = {}
    trials: dict[Label, dict[str, dict[Any, str]]] = {}
    expected: dict[Label, None] = {}
    for label, group in report.groups.items():
        combination = tuple(tuple(label[places[name]] for name in factor) for factor in factors)
        expected[combination] = None
        if not math.isnan(report.rows[label]["mean"]):
            framework = str(label[names.index(FRAMEWORK)]) if FRAMEWORK in names else ""
            values.setdefault(combination, {})[framework] = report.by_seed[label]
            trials.setdefault(combination, {})[framework] = group.by_seed("id")
    if lacking := [one for one in expected if one not in values]:
        named = [_combination_text(report, factors, one) for one in lacking[:MAX_NAMED]]
        more = f", and {len(lacking) - MAX_NAMED} more" if len(lacking) > MAX_NAMED else ""
        return f"of {len(expected)} combinations these have no number: {'; '.join(named)}{more}"
    common = set.intersection(*({(name, seed) for name, one in by.items() for seed in one} for by in values.values()))
    if len({seed for _, seed in common}) < LEAST_SEEDS:
        return f"the {len(expected)} combinations have fewer than {LEAST_SEEDS} seeds in common"
    return Grid(report, factors, _restricted(values, common), _restricted(trials, common))


def factors_of(fields: Sequence[str], combinations: Sequence[Label]) -> tuple[Factor, ...]:
    """The finest factors whose product the combinations are: fields that are not crossed with each other are one.

    Such are the fields that are drawn: sample i is one value of each.
    """
    together = {place: {place} for place in range(len(fields))}
    for a, b in itertools.combinations(range(len(fields)), 2):
        if _count(combinations, (a, b)) < _count(combinations, (a,)) * _count(combinations, (b,)):
            joined = together[a] | together[b]
            together |= dict.fromkeys(joined, joined)
    groups = list(dict.fromkeys(tuple(sorted(group)) for group in together.values()))
    if math.prod(_count(combinations, group) for group in groups) > len(combinations):
        groups = [tuple(range(len(fields)))]
    return tuple(tuple(fields[place] for place in group) for group in groups)


def _count(combinations: Sequence[Label], places: Sequence[int]) -> int:
    return len({tuple(one[place] for place in places) for one in combinations})


def _restricted(by_label: BySeed, common: set[tuple[str, Any]]) -> BySeed:
    return {
        label: {
            framework: kept
            for framework, one in by_framework.items()
            if (kept := {seed: value for seed, value in one.items() if (framework, seed) in common})
        }
        for label, by_framework in by_label.items()
    }


def marginal_effects(grid: Grid) -> dict[Effect, Tested]:
    """The test of each effect, as the mean over the other factors, with Holm's correction for all effects."""
    compared = []
    for label in grid.values:
        for place, effect in grid.effects(label).items():
            compared += grid.compared(effect, label, _at_base(label, {place: effect}))
    found: Any = settings.tests(compared, grid.report.read)
    order = {name: place for place, factor in enumerate(grid.factors) for name in factor}
    return dict(sorted(found.items(), key=lambda one: order[one[0].name]))


def interactions(grid: Grid) -> dict[Contrast, Tested]:
    """The test of each contrast of two fields, as the mean over the other factors, with Holm's correction for all.

    A contrast is a difference of differences: what both fields do together, less what each does by itself.
    """
    compared: list[Compared] = []
    for label in grid.values:
        for (a, first), (b, second) in itertools.combinations(grid.effects(label).items(), 2):
            contrast = (first, second)
            both, only_a, only_b = ({a: first, b: second}, {b: second}, {a: first})
            compared += grid.compared(contrast, label, _at_base(label, only_a))
            compared += grid.compared(contrast, _at_base(label, both), _at_base(label, only_b))
    found: Any = settings.tests(compared, grid.report.read)
    return {contrast: _twice(one) for contrast, one in found.items()}


def _at_base(label: Label, effects: Mapping[int, Effect]) -> Label:
    """The combination without these effects."""
    return tuple((effects[place].base,) if place in effects else own for place, own in enumerate(label))


def _twice(one: Tested) -> Tested:
    """A contrast from the mean of its two differences, which is half of it."""
    half = one.paired
    numbers = {name: 2 * getattr(half, name) for name in ("difference", "low", "high", "error")}
    return replace(one, paired=replace(half, **numbers))


def _combination_text(report: Report, factors: Sequence[Factor], values: Label) -> str:
    named = [pair for factor, own in zip(factors, values, strict=True) for pair in zip(factor, own, strict=True)]
    return " ".join(setting_text(report.ablation, name, value) for name, value in named)
