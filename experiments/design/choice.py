"""The choice of a value for a setting, from what the store has of its tuning trials.

It follows from records and curves alone: a record of a done trial never changes, a divergence repeats, and an
evaluation of a trial gives the same number whenever it is made, on one kind of device. So a choice, and what a stage
of halving prunes, is made alike by whoever looks, and nothing of it is kept.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from experiments.design.ablation import GridTrial
from experiments.design.axes import Point
from experiments.design.report_spec import BACKEND, SEED
from experiments.design.tune_spec import TuneSpec
from experiments.results import curves, metrics
from experiments.results.record import is_final
from experiments.results.store import Store
from experiments.spec import fields

Key = frozenset[tuple[str, Any]]
ByPoint = Mapping["Key", GridTrial]  # the trials that tune
OTHERS = "; give others under tune: over, such as lower ones"  # where running again does not help


@dataclass(frozen=True)
class Setting:
    """What is tuned as one."""

    point: Point  # of the grid, without its seed and, unless each framework is tuned, its backend
    members: tuple[Point, ...]  # the points of the grid that it stands for
    implied: tuple[str, ...] = ()  # fields that the name of an axis stands for

    @property
    def told(self) -> Point:
        """What names it; empty where the grid varies nothing else."""
        return {name: value for name, value in self.point.items() if name not in self.implied}

    @property
    def label(self) -> str:
        return " ".join(f"{fields.short(name)}={fields.text(value)}" for name, value in self.told.items())

    def tuning_point(self, value: Point, seed: int) -> Point:
        """The point of a tuning trial, on the first framework that the setting has in the grid."""
        first = self.members[0]
        backend = {BACKEND: first[BACKEND]} if BACKEND in first else {}
        return {**self.point, **value, **backend, SEED: seed}


@dataclass(frozen=True)
class Tried:
    """A value of the tuned fields, and what the seeds of a setting say of it."""

    value: Point
    scores: tuple[float | None, ...]  # a seed each; None: it diverged
    step: int | None = None  # of the evaluations that pruned it; None: it was trained to its end

    @property
    def num_failed(self) -> int:
        return self.scores.count(None)

    @property
    def mean(self) -> float | None:
        """Over the seeds that have ended well; None: none has."""
        ended = [score for score in self.scores if score is not None]
        return fmean(ended) if ended else None


@dataclass(frozen=True)
class Choice:
    """What is known of the choice for a setting."""

    setting: Setting
    tried: tuple[Tried, ...]  # of the values whose trials have all ended
    num_open: int  # trials that have neither ended nor failed, nor come to the step of their stage
    chosen: Tried | None
    why: str = ""  # there is no choice, although no trial is open
    is_lost: bool = False  # there never will be one: all values diverged
    going: tuple[Point, ...] = ()  # the values of the stage that is open, or of the last one
    step: int | None = None  # to which these are trained; None: to their end
    pruned: tuple[Tried, ...] = ()  # in order of their steps

    @property
    def why_not(self) -> str:
        """Why no value is chosen, in words."""
        if self.why:
            return f"no value is chosen: {self.why}"
        trials, have = ("trial", "has") if self.num_open == 1 else ("trials", "have")
        what = f"reached step {self.step}" if self.step else "ended"
        return f"no value is chosen yet: {self.num_open} tuning {trials} {have} not {what}"


def num_stuck(choices: Sequence[Choice]) -> int:
    """How many trials of the table have no value although all that tune have ended: they diverged, or one failed."""
    return sum(len(one.setting.members) for one in choices if one.chosen is None and not one.num_open)


def combinations(tune: TuneSpec) -> list[Point]:
    """The values that are tried: the product of the lists, the first field slowest."""
    return [dict(zip(tune.over, values, strict=True)) for values in itertools.product(*tune.over.values())]


def key(point: Mapping[str, Any]) -> Key:
    """What is equal for points that are, in whatever order they give their fields."""
    return frozenset(point.items())


def tuning_points(tune: TuneSpec, setting: Setting) -> Iterator[Point]:
    for value in combinations(tune):
        yield from (setting.tuning_point(value, seed) for seed in tune.seeds)


def trials_of(tune: TuneSpec, setting: Setting, value: Point, trials: ByPoint) -> list[GridTrial]:
    """The tuning trials of a value, a seed each."""
    return [trials[key(setting.tuning_point(value, seed))] for seed in tune.seeds]


def choose(tune: TuneSpec, setting: Setting, trials: ByPoint, store: Store) -> Choice:
    """What is known of the choice for a setting: stage after stage where tuning is by halving."""
    known = Choice(setting, (), 0, None, going=tuple(combinations(tune)))
    for step in tune.halving.steps if tune.halving else ():
        known, tried = _stage(tune, replace(known, step=step), trials, store)
        if known.num_open or known.why:
            return known
        ahead = _ahead(tune, tried)
        behind = tuple(replace(one, step=step) for one in tried if one not in ahead)
        going = tuple(one.value for one in ahead)
        known = replace(known, going=going, pruned=(*known.pruned, *behind))
    known, tried = _stage(tune, replace(known, step=None), trials, store)
    chosen = None if known.num_open or known.why else best(tune, tried)
    return replace(known, tried=tuple(tried), chosen=chosen)


def _stage(tune: TuneSpec, known: Choice, trials: ByPoint, store: Store) -> tuple[Choice, list[Tried]]:
    """What is known with the stage that is asked for, and those of its values whose trials have all come to its end."""
    tried, num_open, why = [], 0, ""
    for value in known.going:
        ended = [_score(one, tune.by, known.step, store) for one in trials_of(tune, known.setting, value, trials)]
        num_open += sum(one is None for one in ended)
        why = why or next((one for one in ended if isinstance(one, str)), "")
        if all(isinstance(one, tuple) for one in ended):
            tried.append(Tried(value, tuple(one[0] for one in ended if isinstance(one, tuple))))
    is_lost = not num_open and not why and all(one.mean is None for one in tried)
    if is_lost:
        left = f"all {len(tried)} values" if len(tried) > 1 else "the value"
        which = f" that {'are' if len(tried) > 1 else 'is'} left" if known.pruned else ""
        why = f"{left}{which} diverged{OTHERS}"
    return replace(known, num_open=num_open, why="" if num_open else why, is_lost=is_lost), tried


def _ahead(tune: TuneSpec, tried: Sequence[Tried]) -> list[Tried]:
    """The values that go on from a stage, in order of the list."""
    assert tune.halving is not None
    order = _ordered(tune, tried)[: tune.halving.num_kept(len(tried))]
    return [one for one in tried if one in order]


def best(tune: TuneSpec, tried: Sequence[Tried]) -> Tried:
    """The value of the fewest failures, and of these of the best mean; of equal ones the first in the list."""
    return _ordered(tune, tried)[0]


def _ordered(tune: TuneSpec, tried: Sequence[Tried]) -> list[Tried]:
    """The values from the best one on, without those that diverged with all seeds."""
    sign = -1 if metrics.parse(tune.by).metric.higher_is_better else 1
    ended = [one for one in tried if one.mean is not None]
    return sorted(ended, key=lambda one: (one.num_failed, sign * (one.mean or 0.0)))


def _score(planned: GridTrial, by: str, step: int | None, store: Store) -> tuple[float | None] | str | None:
    """What a tuning trial says: a number, or None where it diverged; a text: why not; None: it has not come so far.

    A failure that another run may mend says nothing of the value: a choice that counted it would change with the run.

    Args: step: of the evaluation that is asked; None: the end.
    """
    trial_id, (when, split, metric) = planned.trial.id, metrics.parse(by)
    record = store.sound_record(trial_id, with_curve=step is not None)
    point = curves.at(curves.points(store, trial_id, record), when, step) if step else None
    if point is None and record is not None and record["status"] != "done":
        sentence = f"its tuning trial {trial_id} failed ({record['reason']}); run or submit it again"
        return (None,) if is_final(record) else sentence
    if point is None and record is not None:
        point = {} if step else record["metrics"][when] or {}
    if point is None:
        return None
    number = (point.get(split) or {}).get(metric.name)
    where = f" at step {step}" if step else ""
    return f"the record of its tuning trial {trial_id} has no {by}{where}" if number is None else (float(number),)
