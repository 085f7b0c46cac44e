"""Tuning: the trials that it takes, the choice from their records, and the trials of the table at what is chosen.

All of it follows from the ablation and the store: a record of a done trial never changes, and a divergence repeats, so
a choice, once it can be made, is made alike by whoever looks. Nothing else is kept.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from backends.errors import MixlabError
from experiments.data import Purpose
from experiments.design import ablation as ablations
from experiments.design.ablation import Ablation, GridTrial
from experiments.design.axes import Point
from experiments.design.report_spec import BACKEND, SEED
from experiments.design.tune_spec import TuneSpec
from experiments.results import metrics
from experiments.results.record import is_final
from experiments.results.store import Store
from experiments.spec import fields
from experiments.spec.resolve import resolve

Key = frozenset[tuple[str, Any]]
OTHERS = "; give others under tune: over, such as lower ones"  # where running again does not help
ByPoint = Mapping["Key", GridTrial]  # the trials that tune


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


@dataclass(frozen=True)
class Tried:
    """A value of the tuned fields, and what the seeds of a setting say of it."""

    value: Point
    scores: tuple[float | None, ...]  # a seed each; None: it diverged

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
    num_open: int  # trials that have neither ended nor failed
    chosen: Tried | None
    why: str = ""  # there is no choice, although no trial is open

    @property
    def why_not(self) -> str:
        """Why no value is chosen, in words."""
        return (
            f"no value is chosen: {self.why}"
            if self.why
            else f"no value is chosen yet: {self.num_open} tuning "
            + ("trial has not ended" if self.num_open == 1 else "trials have not ended")
        )


def combinations(tune: TuneSpec) -> list[Point]:
    """The values that are tried: the product of the lists, the first field slowest."""
    return [dict(zip(tune.over, values, strict=True)) for values in itertools.product(*tune.over.values())]


def settings(ablation: Ablation) -> list[Setting]:
    """What is tuned as one, in the order of the grid."""
    members: dict[Any, list[Point]] = {}
    for point in ablation.points:
        members.setdefault(key(setting_of(ablation, point)), []).append(point)
    return [
        Setting(setting_of(ablation, group[0]), tuple(group), ablation.implied(group[0])) for group in members.values()
    ]


def setting_of(ablation: Ablation, point: Point) -> Point:
    """The part of a point, or of a trial's settings, that is its setting's."""
    assert ablation.tune is not None
    without = {SEED, *ablation.tune.over, *ablation.matched.values(), *(() if ablation.tune.each else (BACKEND,))}
    return {name: value for name, value in point.items() if name not in without}


def trials(ablation: Ablation, cache: Path, store: Store, purpose: Purpose = Purpose.PLANNING) -> list[GridTrial]:
    """The trials of an ablation that are known by now: see `known`. Without `tune`, all of the grid.

    Args:   cache, purpose: of ablation.trials.
    Raises: MixlabError: as ablation.trials, of every value that is tried; a data set has no validation examples.
    """
    if ablation.tune is None:
        return ablations.trials(ablation, cache, purpose)
    _check_table(ablation, ablation.tune, cache, purpose)
    points = [point for setting in settings(ablation) for point in _tuning_points(ablation.tune, setting)]
    resolved = ablations.resolved_points(replace(ablation, points=tuple(points)), cache, purpose)
    tuning = [replace(planned, tunes=True) for planned in resolved]
    if unseen := next((planned for planned in tuning if not planned.trial.info.num_validation), None):
        raise MixlabError(
            f"{ablation.where}: tune: ({unseen.label}) has no validation examples to choose by; raise "
            f"data.validation_fraction"
        )
    return known(ablation, tuning, store)


def _check_table(ablation: Ablation, tune: TuneSpec, cache: Path, purpose: Purpose) -> None:
    """Check the table's trials at the values that are tried, before anything is trained.

    Raises: MixlabError: as ablation.trials; two of them are the same whatever is chosen.
    """
    for value in combinations(tune):
        at_value = replace(ablation, points=tuple(_at(ablation.points, value)))
        if len({planned.trial.id for planned in ablations.resolved_points(at_value, cache, purpose)}) == len(
            ablation.points
        ):
            return
    ablations.trials(at_value, cache, purpose)


def known(ablation: Ablation, trials: Sequence[GridTrial], store: Store) -> list[GridTrial]:
    """The tuning trials, and of the table's trials those whose value is chosen by now.

    Args: trials: with all that tune, as `trials` gives them or the archive holds them; the others are made anew.
    """
    if ablation.tune is None:
        return list(trials)
    tuning = [planned for planned in trials if planned.tunes]
    by_point = tuning_by_point(ablation, tuning)
    chosen = ((one.setting, one.chosen.value) for one in choose(ablation, tuning, store) if one.chosen)
    return [*tuning, *itertools.chain.from_iterable(table_at(ablation, *one, by_point) for one in chosen)]


def num_waiting(ablation: Ablation, trials: Sequence[GridTrial]) -> int:
    """How many trials of the table are not among these, since their value is not chosen."""
    return len(ablation.points) - sum(not planned.tunes for planned in trials)


def num_stuck(choices: Sequence[Choice]) -> int:
    """How many trials of the table have no value although all that tune have ended: they diverged, or one failed."""
    return sum(len(one.setting.members) for one in choices if one.chosen is None and not one.num_open)


def choose(ablation: Ablation, trials: Sequence[GridTrial], store: Store) -> list[Choice]:
    """What is known of the choice for each setting. Args: trials: with all that tune."""
    if ablation.tune is None:
        return []
    by_point = tuning_by_point(ablation, trials)
    return [_choice(ablation.tune, setting, by_point, store) for setting in settings(ablation)]


def _choice(tune: TuneSpec, setting: Setting, trials: ByPoint, store: Store) -> Choice:
    tried, num_open, why = [], 0, ""
    for value in combinations(tune):
        points = [tuning_point(setting, value, seed) for seed in tune.seeds]
        ended = [_score(trials[key(point)], tune.by, store) for point in points]
        num_open += sum(one is None for one in ended)
        why = why or next((one for one in ended if isinstance(one, str)), "")
        if all(isinstance(one, tuple) for one in ended):
            tried.append(Tried(value, tuple(one[0] for one in ended if isinstance(one, tuple))))
    if num_open or why:
        return Choice(setting, tuple(tried), num_open, None, "" if num_open else why)
    if all(one.mean is None for one in tried):
        return Choice(setting, tuple(tried), 0, None, f"all {len(tried)} values diverged{OTHERS}")
    return Choice(setting, tuple(tried), 0, best(tune, tried))


def best(tune: TuneSpec, tried: Sequence[Tried]) -> Tried:
    """The value of the fewest failures, and of these of the best mean; of equal ones the first in the list."""
    sign = -1 if metrics.parse(tune.by).metric.higher_is_better else 1
    return min(
        (one for one in tried if one.mean is not None), key=lambda one: (one.num_failed, sign * (one.mean or 0.0))
    )


def _score(planned: GridTrial, by: str, store: Store) -> tuple[float | None] | str | None:
    """What a tuning trial says: a number, or None where it diverged; a text: why not; None: it has not ended.

    A failure that another run may mend says nothing of the value: a choice that counted it would change with the run.
    """
    record = store.sound_record(planned.trial.id)
    if record is None:
        return None
    if record["status"] != "done":
        sentence = f"its tuning trial {planned.trial.id} failed ({record['reason']}); run or submit it again"
        return (None,) if is_final(record) else sentence
    when, split, metric = metrics.parse(by)
    number = (record["metrics"][when][split] or {}).get(metric.name)
    return f"the record of its tuning trial {planned.trial.id} has no {by}" if number is None else (float(number),)


def _tuning_points(tune: TuneSpec, setting: Setting) -> Iterator[Point]:
    for value in combinations(tune):
        yield from (tuning_point(setting, value, seed) for seed in tune.seeds)


def tuning_point(setting: Setting, value: Point, seed: int) -> Point:
    """The point of a tuning trial, on the first framework that its setting has in the grid."""
    first = setting.members[0]
    backend = {BACKEND: first[BACKEND]} if BACKEND in first else {}
    return {**setting.point, **value, **backend, SEED: seed}


def table_at(ablation: Ablation, setting: Setting, value: Point, tuning: ByPoint) -> Iterator[GridTrial]:
    """The table's trials of a setting. Their data, and the width that is matched, are those of its tuning trials."""
    assert ablation.tune is not None
    first = tuning[key(tuning_point(setting, value, ablation.tune.seeds[0]))]
    width = {name: first.settings[name] for name in ablation.matched.values() if name in first.settings}
    points = tuple(point | width for point in _at(setting.members, value))
    for point, config in ablations.configs(replace(ablation, points=points)):
        yield GridTrial(resolve(config, first.trial.info, ablation.where), point, ablation.implied(point))


def _at(points: Sequence[Point], value: Point) -> Iterator[Point]:
    """The points at a value of the tuned fields, which stands before the seed."""
    for point in points:
        seed = {SEED: point[SEED]} if SEED in point else {}
        yield {**{name: one for name, one in point.items() if name != SEED}, **value, **seed}


def key(point: Mapping[str, Any]) -> Key:
    """What is equal for points that are, in whatever order they give their fields."""
    return frozenset(point.items())


def tuning_by_point(ablation: Ablation, trials: Sequence[GridTrial]) -> ByPoint:
    """Trials that tune by what the grid and the tuned values set, without a width that is solved."""
    solved = set(ablation.matched.values())
    tuning = (planned for planned in trials if planned.tunes)
    return {
        key({name: one for name, one in planned.settings.items() if name not in solved}): planned for planned in tuning
    }
