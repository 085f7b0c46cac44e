"""The trials of a store that tell how far settings scatter: pairs of settings at equal seeds, and settings alone."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from statistics import fmean
from typing import Any

import numpy as np

from analysis import settings
from analysis.frame import label_of
from analysis.labels import Label, baseline_of, keys
from analysis.planning.known import Known, trial_of
from analysis.predictions import Reader
from analysis.run_sets import key_of, value
from analysis.settings import FRAMEWORK, Compared
from experiments.spec.trial import as_tree

NOT_SETTINGS = ("seed", FRAMEWORK)  # of the fields of a trial: a setting is trained at several seeds, by frameworks
Fields = frozenset[tuple[str, str]]  # of a trial without those, with their values as text
BySeed = dict[int, tuple[str, float]]  # id and metric of the trial with this seed


@dataclass(frozen=True)
class Done:
    """A done trial on the grid's data with one of its models."""

    id: str
    seed: int
    framework: str
    fields: Fields
    metric: float


@dataclass(frozen=True)
class Sample:
    """What is the same but for its seed: the metric of a setting, or its difference to another at equal seeds."""

    numbers: list[float]  # a seed each, the mean over frameworks
    trials: list[str]
    by_example: "Callable[[], np.ndarray[Any, Any] | None]"  # (seeds, examples); None: see settings.by_example

    @classmethod
    def of_pairs(cls, group: Sequence[Compared], read: Reader) -> "Sample":
        """Args: group: a setting and its baseline, of each framework."""
        first, second = settings.averaged([(cell.baseline, cell.own) for cell in group])
        ids = [side[seed] for cell in group for side in cell.trials for seed in side if seed in first]
        return cls([second[seed] - first[seed] for seed in first], ids, partial(settings.by_example, group, read))

    @classmethod
    def of_one(cls, by_seed: Sequence[Sequence[Done]], read: Reader) -> "Sample":
        """Args: by_seed: the trials of a setting, of each seed those of each framework."""
        ids = [[one.id for one in frameworks] for frameworks in by_seed]
        numbers = [fmean(one.metric for one in frameworks) for frameworks in by_seed]
        return cls(numbers, [key for frameworks in ids for key in frameworks], partial(_right, ids, read))


def _right(ids: Sequence[Sequence[str]], read: Reader) -> "np.ndarray[Any, Any] | None":
    """How often each example is right at each seed, of its frameworks."""
    found = [[read(key) for key in frameworks] for frameworks in ids]
    kept = [[one for one in frameworks if one is not None] for frameworks in found]
    if kept != found or len({one.examples for frameworks in kept for one in frameworks}) != 1:
        return None
    return np.array([np.mean([one.each() for one in frameworks], 0) for frameworks in kept])


@dataclass(frozen=True)
class Samples:
    """What the store holds of a grid and of its like, by one metric."""

    known: Known
    metric: str
    read: Reader

    def own(self) -> list[Sample]:
        """The grid's own comparisons, of trials that are done."""
        values = {key: value(record, self.metric) for key, record in self.known.own.items()}
        return [Sample.of_pairs(group, self.read) for group in cells(self.known, values).values()]

    def of_others(self) -> list[Sample]:
        """The grid's comparisons in other trainings: the same data and models, whatever else both sides share."""
        groups: list[list[Compared]] = []
        for baseline, own in _apart(self.known):
            first, second = self._by_rest(baseline), self._by_rest(own)
            for rest in (rest for rest in first if rest in second):
                both = [(first[rest][one], second[rest][one]) for one in first[rest] if one in second[rest]]
                groups.append([_cell((), *pair) for pair in both])
        return [Sample.of_pairs(group, self.read) for group in groups if group]

    def alone(self) -> list[Sample]:
        """The settings of such trainings."""
        found: dict[Fields, dict[int, list[Done]]] = {}
        for one in self._done:
            found.setdefault(one.fields, {}).setdefault(one.seed, []).append(one)
        return [Sample.of_one(list(by_seed.values()), self.read) for by_seed in found.values()]

    def _by_rest(self, side: Fields) -> dict[Fields, dict[str, BySeed]]:
        """The trials that have these fields: by their other ones, by framework, by seed."""
        found: dict[Fields, dict[str, BySeed]] = {}
        for one in self._done:
            if side <= one.fields:
                by_seed = found.setdefault(one.fields - side, {}).setdefault(one.framework, {})
                by_seed[one.seed] = one.id, one.metric
        return found

    @cached_property
    def _done(self) -> list[Done]:
        wanted = {(planned.trial.info.content, planned.trial.model) for planned in self.known.table}
        found = []
        for key, record in self.known.all.items():
            trial, metric = trial_of(record), value(record, self.metric)
            if trial and math.isfinite(metric) and (trial.info.content, trial.model) in wanted:
                found.append(Done(key, trial.seed, trial.backend, _fields(record), metric))
        return found


def cells(known: Known, values: Mapping[str, float]) -> dict[Label, list[Compared]]:
    """The comparisons of the table, by setting, one a framework. Args: values: by id, of the trials that count."""
    ablation = known.ablation
    names, by_label = keys(ablation), dict[Label, BySeed]()
    for planned in known.table:
        number = values.get(planned.trial.id, math.nan)
        if math.isfinite(number):
            by_label.setdefault(label_of(planned, ablation), {})[planned.trial.seed] = planned.trial.id, number
    found: dict[Label, list[Compared]] = {}
    for label, own in by_label.items():
        other = baseline_of(ablation, label)
        if other is not None and other != label and other in by_label:
            name = settings.setting_of(names, label, other)
            found.setdefault(name, []).append(_cell(name, by_label[other], own))
    return found


def _cell(name: Label, baseline: BySeed, own: BySeed) -> Compared:
    sides = baseline, own
    first, second = ({seed: number for seed, (_, number) in side.items()} for side in sides)
    ids = tuple({seed: key for seed, (key, _) in side.items()} for side in sides)
    return Compared(name, "", first, second, math.nan, (ids[0], ids[1]))


def _apart(known: Known) -> Iterator[tuple[Fields, Fields]]:
    """The fields in which a baseline and a compared setting differ, with the values of each; no two are the same."""
    trials = {planned.trial.id: planned.trial for planned in known.table}
    told = set()
    for group in cells(known, dict.fromkeys(trials, 0.0)).values():
        ids = (next(iter(side.values())) for side in group[0].trials)
        baseline, own = (_fields({"spec": as_tree(trials[key])}) for key in ids)
        sides = baseline - own, own - baseline
        if sides not in told:
            told.add(sides)
            yield sides


def _fields(record: Mapping[str, Any]) -> Fields:
    return frozenset((name, str(part)) for name, part in key_of(dict(record)) if name not in NOT_SETTINGS)
