"""What trackers are told of an ablation, whichever they are: a run for each trial, and one for each cell.

The names are those of the tidy frame: `validation.accuracy` of a curve, `last.validation.accuracy` at its end, fields
by their dotted names. The run of a cell is the mean over its trials that are done, as in the table, at each evaluation
that all of them have. A trial that tunes is in the group `tuning` and in no cell; those of
other stages than the table's are left out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

from analysis import records
from analysis.cells import Options, is_mixed
from analysis.export.run import MEAN, TRIAL, TUNING, Asked, Points, Run, Runs, Values
from analysis.frame import label_of, resolved_fields, setting
from analysis.labels import Label, field_text, keys, label_text, setting_text, value_text
from experiments.design import stages
from experiments.design.ablation import Ablation, GridTrial
from experiments.design.report_spec import BACKEND, SEED
from experiments.files import stamp_of
from experiments.results import curves, metrics
from experiments.results.metrics import BEST, COSTS, LEARNING_RATE, SECONDS, SPLITS, STEP, STEP_LOSS, TEST, measured
from experiments.results.states import HALTED, Halt, state
from experiments.results.store import Store
from experiments.spec.fields import text

NUM_TRIALS = "trials"  # of the config of a mean: how many it is over


def read_runs(
    ablation: Ablation,
    trials: Sequence[GridTrial],
    store: Store,
    asked: Asked = Asked(),  # noqa: B008
) -> Runs:
    """The runs of an ablation as the store has it now. Raises: StoreError: a record cannot be read at all."""
    trials = [planned for planned in trials if not planned.aside]
    results = records.results(ablation.name, trials, store)
    source = _Source(ablation, store, asked, _words(ablation), stages.halts(ablation, trials, store))
    of_trials = [_of_trial(source, planned, results[planned.trial.id].values) for planned in trials]
    cells: dict[Label, list[Run]] = {}
    for planned, run in zip(trials, of_trials, strict=True):
        if not planned.tunes:
            cells.setdefault(label_of(planned, ablation), []).append(run)
    means, mixed = [], []
    for label, members in cells.items():
        done = [run for run in members if run.status == "done"]
        commits = {one for run in done for one in str(results[run.id].values.get("commit", "")).split()}
        if is_mixed(sorted(commits), Options(mix_commits=asked.mix_commits)):
            mixed.append(_group(ablation, label))
            done = []
        means.append(_mean(ablation, label, members, done))
    return Runs(ablation.name, ablation.question, tuple(_apart([*means, *of_trials])), tuple(mixed))


def stamp(store: Store, trial_id: str) -> str:
    """A text that changes whenever the record or the curve of a trial is written anew."""
    return f"{store.stamp(trial_id)} {stamp_of(store.folder(trial_id) / curves.FILE)}"


@dataclass(frozen=True)
class _Source:
    """Where runs are read from.

    words: of what tells the trials apart, by field or axis.   halts: where halving has trials stand, by id.
    """

    ablation: Ablation
    store: Store
    asked: Asked
    words: Mapping[str, str]
    halts: Mapping[str, Halt]

    def status(self, trial_id: str, recorded: str) -> str:
        """The status of a trial. Args: recorded: by its record and its owner alone."""
        if trial_id not in self.halts:
            return recorded
        now = state(self.store, trial_id, self.halts[trial_id]).status
        return now if now in HALTED else recorded


def _of_trial(source: _Source, planned: GridTrial, values: Mapping[str, Any]) -> Run:
    """Args: values: of the trial's result."""
    ablation, trial, label = source.ablation, planned.trial, label_of(planned, source.ablation)
    told = {name: value for name, value in planned.settings.items() if name not in planned.implied}
    if not planned.tunes:
        beside = {
            name: value for name, value in told.items() if name in ablation.varying and name not in keys(ablation)
        }
        told = {SEED: trial.seed, **beside}
    status = source.status(trial.id, values["status"])
    is_done = status == "done"
    return Run(
        trial.id,
        TUNING if planned.tunes else TRIAL,
        TUNING if planned.tunes else _group(ablation, label),
        " ".join(setting_text(ablation, name, value) for name, value in told.items()),
        status,
        values["why"] if status == "failed" else "",
        _config(ablation, planned),
        {text: _value(ablation, name, setting(planned, name, ablation)) for name, text in source.words.items()},
        _points(source.store.root, trial.id, stamp(source.store, trial.id), source.asked.with_test),
        dict(_final(values, source.asked.with_test)) if is_done else {},
        trial.model,
        values.get("started"),
        values.get("finished") if is_done else None,
    )


def _group(ablation: Ablation, label: Label) -> str:
    return label_text(ablation, label) or ablation.name


def _config(ablation: Ablation, planned: GridTrial) -> dict[str, Any]:
    """The resolved fields by dotted name, lists in words, and the names of settings by axis."""
    axes = {name: value for name, value in planned.settings.items() if name in ablation.named}
    resolved = resolved_fields(planned.trial)
    return {name: text(value) if isinstance(value, tuple) else value for name, value in resolved.items()} | axes


def _words(ablation: Ablation) -> dict[str, str]:
    """What tells the trials of an ablation apart: fields and axes with their words, no two of which are the same."""
    implied = {name for own in ablation.named.values() for name in own}
    varying = [name for name in ablation.axes if name in ablation.varying and name not in implied]
    tuned = ablation.tune.over if ablation.tune else ()
    texts = {name: field_text(ablation, name) for name in (*keys(ablation), *varying, *tuned, BACKEND, SEED)}
    count = Counter(texts.values())
    return {name: text if count[text] == 1 else name for name, text in texts.items()}


def _value(ablation: Ablation, name: str, value: Any) -> Any:
    """A value that has no label as it is, if it is a number; else its words."""
    is_number = isinstance(value, (bool, int, float)) and not ablation.labels.get(name)
    return value if is_number else value_text(ablation, name, value)


def _final(values: Mapping[str, Any], with_test: bool) -> Iterator[tuple[str, float]]:
    """The numbers that a done trial ends with, by column of the tidy frame."""
    of_points = [name for name in metrics.names() if with_test or metrics.parse(name).split != TEST]
    for name in (*of_points, f"{BEST}.{STEP}", *COSTS, *(f"seconds.{what}" for what in SECONDS)):
        if (value := values.get(name)) is not None and isfinite(value):
            yield name, float(value)


@lru_cache(maxsize=100_000)
def _points(root: Path, trial_id: str, stamp: str, with_test: bool) -> Points:
    """The curve of a trial by now, whole. Args: stamp: of `stamp`."""
    del stamp  # with another one the curve is read anew
    store = Store(root)
    curve = curves.points(store, trial_id, store.sound_record(trial_id, with_curve=True))
    return tuple((int(point[STEP]), dict(_measured(point, with_test))) for point in curve)


def _measured(point: Mapping[str, Any], with_test: bool) -> Iterator[tuple[str, float]]:
    splits = [split for split in SPLITS if with_test or split != TEST]
    named = {name: point.get(name) for name in (STEP_LOSS, LEARNING_RATE)}
    names = measured([point])
    named |= {f"{split}.{metric}": (point.get(split) or {}).get(metric) for split in splits for metric in names}
    yield from ((name, float(value)) for name, value in named.items() if value is not None and isfinite(value))


def _mean(ablation: Ablation, label: Label, planned: Sequence[Run], done: Sequence[Run]) -> Run:
    """The run of a cell. Args: planned: all trials of the cell.    done: those that it is the mean of."""
    first = planned[0]
    config = {name: value for name, value in first.config.items() if all(run.config[name] == value for run in planned)}
    asked = {name: value for name, value in first.asked.items() if all(run.asked[name] == value for run in planned)}
    return Run(
        hashlib.sha256(f"{ablation.name} {label}".encode()).hexdigest()[:12],
        MEAN,
        _group(ablation, label),
        MEAN,
        "done" if len(done) == len(planned) else "running",
        "",
        {**config, NUM_TRIALS: len(done)},
        asked,
        _mean_points(done),
        _mean_values([run.final for run in done]),
        first.model,
        min((run.started for run in done if run.started is not None), default=None),
        max((run.finished for run in done if run.finished is not None), default=None),
    )


def _mean_points(done: Sequence[Run]) -> Points:
    curves = [dict(run.points) for run in done]
    steps = [step for step in (curves[0] if curves else ()) if all(step in curve for curve in curves)]
    return tuple((step, _mean_values([curve[step] for curve in curves])) for step in steps)


def _mean_values(several: Sequence[Values]) -> dict[str, float]:
    """The means of the numbers that all have."""
    names = [name for name in (several[0] if several else ()) if all(name in one for one in several)]
    return {name: fmean(one[name] for one in several) for name in names}


def _apart(runs: Sequence[Run]) -> Iterator[Run]:
    """The runs under names that no two of them share."""
    count = Counter(run.title for run in runs)
    for run in runs:
        yield run if count[run.title] == 1 else replace(run, name=f"{run.name} {run.id}")
