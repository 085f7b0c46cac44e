"""What a grid can show: its compared settings, their seeds, and the standard deviation of a difference over seeds."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from analysis import settings
from analysis.frame import setting
from analysis.labels import Label, baseline_of, keys
from analysis.planning.known import Known, trial_of
from analysis.run_sets import key_of, value
from analysis.settings import FRAMEWORK, BySeed

NOT_SETTINGS = ("seed", FRAMEWORK)  # of the fields of a trial: a setting is trained at several seeds, by frameworks
Sides = Mapping[Label, list[tuple[BySeed, BySeed]]]  # setting -> of each framework the baseline, and the setting


@dataclass(frozen=True)
class Spread:
    """The standard deviation over seeds of the difference of two settings, in the unit of records, and its origin."""

    sd: float
    df: int = 0  # of a sum of squares over the store's records; 0: it was told
    of_pairs: bool = False  # of differences at equal seeds; else of single settings, times the root of 2


@dataclass(frozen=True)
class Compared:
    """The comparisons of a table: how many settings are held against a baseline, over how many seeds."""

    num_settings: int
    least_seeds: int
    most_seeds: int


def compared(known: Known) -> Compared:
    """The comparisons that the grid has when all of its trials are done."""
    counts = [len(settings.averaged(sides)[0]) for sides in _sides(known, done=False).values()]
    return Compared(len(counts), min(counts, default=0), max(counts, default=0))


def told(sd: float) -> Spread:
    """The spread of a difference, from the standard deviation over seeds of the metric of one setting.

    The seeds of two settings are taken as unrelated, as they mostly are: the variances add up.
    """
    return Spread(math.sqrt(2) * sd)


def from_store(known: Known) -> Spread | None:
    """The spread that the store's records show; None without two seeds of anything that is like the grid.

    First from the grid's own pairs of a setting and its baseline at equal seeds, their frameworks averaged. Else from
    records on the same data with the same model, of whatever ablation, that differ in their seed alone.
    """
    differences = [settings.averaged(sides) for sides in _sides(known, done=True).values()]
    pairs = _pooled([after[seed] - before[seed] for seed in before] for before, after in differences)
    if pairs is not None:
        return Spread(pairs[0], pairs[1], of_pairs=True)
    single = _pooled(by_seed.values() for by_seed in _alike(known))
    return None if single is None else Spread(math.sqrt(2) * single[0], single[1])


def _pooled(groups: Iterable[Iterable[float]]) -> tuple[float, int] | None:
    """The standard deviation within groups, and its degrees of freedom; None without a group of two."""
    squares, df = 0.0, 0
    for group in map(list, groups):
        mean = math.fsum(group) / max(1, len(group))
        squares += math.fsum((x - mean) ** 2 for x in group)
        df += max(0, len(group) - 1)
    return (math.sqrt(squares / df), df) if df else None


def _sides(known: Known, done: bool) -> Sides:
    """Both sides of each compared setting by seed: of the trials that are done the metric, else of all a zero."""
    ablation = known.ablation
    names, by_label = keys(ablation), dict[Label, dict[Any, float]]()
    for planned in known.trials:
        label = tuple(setting(planned, name, ablation) for name in names)
        record = known.own.get(planned.trial.id)
        metric = value(record, ablation.report.metric) if record else math.nan
        by_seed = by_label.setdefault(label, {})
        if not done or math.isfinite(metric):
            by_seed[planned.trial.seed] = metric if done else 0.0
    sides: dict[Label, list[tuple[BySeed, BySeed]]] = {}
    for label, by_seed in by_label.items():
        other = baseline_of(ablation, label)
        if other is not None and other != label and other in by_label:
            sides.setdefault(settings.setting_of(names, label, other), []).append((by_label[other], by_seed))
    return sides


def _alike(known: Known) -> list[dict[Any, float]]:
    """The metric by seed of each setting on the grid's data with one of its models; frameworks are averaged."""
    wanted = {(planned.trial.info.content, planned.trial.model) for planned in known.trials}
    found: dict[Any, dict[int, list[float]]] = {}
    for record in known.all.values():
        trial, metric = trial_of(record), value(record, known.ablation.report.metric)
        if trial and math.isfinite(metric) and (trial.info.content, trial.model) in wanted:
            same = tuple((name, str(part)) for name, part in key_of(record) if name not in NOT_SETTINGS)
            found.setdefault(same, {}).setdefault(trial.seed, []).append(metric)
    return [{seed: math.fsum(values) / len(values) for seed, values in one.items()} for one in found.values()]
