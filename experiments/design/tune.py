"""Tuning: the trials that it takes, the choice from their records, and the trials of the table at what is chosen.

All of it follows from the ablation and the store (see choice.py), so that whoever looks finds the same.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from backends.errors import MixlabError
from experiments.data import Purpose
from experiments.design import choice as choices
from experiments.design import stages, starts
from experiments.design import trials as resolving
from experiments.design.ablation import Ablation, GridTrial
from experiments.design.axes import Point
from experiments.design.choice import ByPoint, Choice, Setting, combinations, key, tuning_points
from experiments.design.report_spec import BACKEND, SEED
from experiments.design.tune_spec import TuneSpec
from experiments.results.store import Store
from experiments.spec.resolve import resolve


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

    Args:   cache, purpose: of trials.trials.
    Raises: MixlabError: as trials.trials, of every value that is tried; a data set has no validation examples; a
            step of halving is no evaluation of a trial.
    """
    if ablation.tune is None:
        return resolving.trials(ablation, cache, purpose, store)
    told = [config.train.init_from for _, config in resolving.configs(ablation)]
    for text in (*told, *ablation.tune.over.get(starts.FIELD, ())):
        if starts.follows_seed(text):
            raise MixlabError(
                f"{ablation.where}: {starts.FIELD}: {text} is the trial of the same seed, and tune has seeds of its "
                f"own; name one, such as seed=0 in its brackets"
            )
    _check_table(ablation, ablation.tune, cache, purpose, store)
    points = [point for setting in settings(ablation) for point in tuning_points(ablation.tune, setting)]
    resolved = resolving.resolved_points(replace(ablation, points=tuple(points)), cache, purpose, store)
    tuning = [replace(planned, tunes=True) for planned in resolved]
    if unseen := next((planned for planned in tuning if not planned.trial.info.num_validation), None):
        raise MixlabError(
            f"{ablation.where}: tune: ({unseen.label}) has no validation examples to choose by; raise "
            f"data.validation_fraction"
        )
    stages.check(ablation.tune, tuning, ablation.where)
    return known(ablation, tuning, store)


def _check_table(ablation: Ablation, tune: TuneSpec, cache: Path, purpose: Purpose, store: Store) -> None:
    """Check the table's trials at the values that are tried, before anything is trained.

    Raises: MixlabError: as trials.trials; two of them are the same whatever is chosen.
    """
    for value in combinations(tune):
        at_value = replace(ablation, points=tuple(_at(ablation.points, value)))
        found = resolving.resolved_points(at_value, cache, purpose, store)
        if len({planned.trial.id for planned in found}) == len(ablation.points):
            return
    resolving.trials(at_value, cache, purpose, store)


def known(ablation: Ablation, trials: Sequence[GridTrial], store: Store) -> list[GridTrial]:
    """The tuning trials, and of the table's trials those whose value is chosen by now.

    Where tuning is by halving, each tuning trial says how far it is trained for now.

    Args: trials: with all that tune, as `trials` gives them or the archive holds them; the others are made anew.
    """
    if ablation.tune is None:
        return list(trials)
    tuning = [planned for planned in trials if planned.tunes]
    by_point, found = tuning_by_point(ablation, tuning), choose(ablation, tuning, store)
    chosen = ((one.setting, one.chosen.value) for one in found if one.chosen)
    made = (table_at(ablation, setting, value, by_point) for setting, value in chosen)
    return [*stages.staged(ablation.tune, tuning, found, by_point), *itertools.chain.from_iterable(made)]


def num_waiting(ablation: Ablation, trials: Sequence[GridTrial]) -> int:
    """How many trials of the table are not among these, since their value is not chosen."""
    return len(ablation.points) - sum(planned.in_table for planned in trials)


def choose(ablation: Ablation, trials: Sequence[GridTrial], store: Store) -> list[Choice]:
    """What is known of the choice for each setting. Args: trials: with all that tune."""
    if ablation.tune is None:
        return []
    by_point = tuning_by_point(ablation, trials)
    return [choices.choose(ablation.tune, setting, by_point, store) for setting in settings(ablation)]


def expected_steps(ablation: Ablation, trials: Sequence[GridTrial], store: Store) -> dict[str, float]:
    """The steps that tuning trials are trained to where tuning is by halving, by id; of a stage that is open the mean.

    Args: trials: with all that tune.
    """
    if ablation.tune is None or ablation.tune.halving is None:
        return {}
    return stages.expected_steps(ablation.tune, choose(ablation, trials, store), tuning_by_point(ablation, trials))


def table_at(ablation: Ablation, setting: Setting, value: Point, tuning: ByPoint) -> Iterator[GridTrial]:
    """The table's trials of a setting.

    Their data, the weights that they begin from, and the width that is matched, are those of its tuning trials.
    """
    assert ablation.tune is not None
    first = choices.trials_of(ablation.tune, setting, value, tuning)[0]
    width = {name: first.settings[name] for name in ablation.matched.values() if name in first.settings}
    points = tuple(point | width for point in _at(setting.members, value))
    for point, config in resolving.configs(replace(ablation, points=points)):
        drawn = replace(config, train=replace(config.train, init_from=None))
        trial = resolve(drawn, first.trial.info, ablation.where)
        train = replace(trial.train, init_from=first.trial.train.init_from)
        begun = replace(trial, train=train, start_file=first.trial.start_file)
        yield GridTrial(begun, point, ablation.implied(point))


def _at(points: Sequence[Point], value: Point) -> Iterator[Point]:
    """The points at a value of the tuned fields, which stands before the seed."""
    for point in points:
        seed = {SEED: point[SEED]} if SEED in point else {}
        yield {**{name: one for name, one in point.items() if name != SEED}, **value, **seed}


def tuning_by_point(ablation: Ablation, trials: Sequence[GridTrial]) -> ByPoint:
    """Trials that tune by what the grid and the tuned values set, without a width that is solved."""
    solved = set(ablation.matched.values())
    tuning = (planned for planned in trials if planned.tunes)
    return {
        key({name: one for name, one in planned.settings.items() if name not in solved}): planned for planned in tuning
    }
