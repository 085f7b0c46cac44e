"""The trials and cells that one ablation's report is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from analysis import records, tuned
from analysis.cells import Options, cells
from analysis.frame import trials_frame
from analysis.groups import Group, groups_of
from analysis.labels import Label, Rows, keys, label_text, labels, rows
from analysis.predictions import Reader, nothing, reader
from analysis.records import Result
from backends.errors import MixlabError
from experiments.design import tune
from experiments.design.ablation import Ablation, GridTrial
from experiments.design.choice import Choice, num_stuck
from experiments.results.metrics import curve_columns
from experiments.results.store import Store


@dataclass(frozen=True, eq=False)
class Report:
    """An ablation, its trials, and its cells."""

    ablation: Ablation
    store: Store
    options: Options
    results: Mapping[str, Result]  # by id
    frame: pd.DataFrame  # of frame.load
    table: pd.DataFrame  # of cells.cells
    choices: Sequence[Choice] = ()  # of what is tuned, by setting
    read: Reader = nothing  # the examples that a trial has right
    trials: Sequence[GridTrial] = ()  # those that tune too

    @property
    def num_coming(self) -> int:
        """How many trials the table waits for: their value is not chosen, and will be when others have ended."""
        waiting = len(self.ablation.points) - len(self.frame) if self.ablation.tune else 0
        return waiting - num_stuck(self.choices)

    @cached_property
    def groups(self) -> dict[Label, Group]:
        return groups_of(self.ablation, self.frame)

    @cached_property
    def by_seed(self) -> dict[Label, dict[Any, float]]:
        """The metric of the trials of each cell that are done, by seed."""
        return {label: group.by_seed(self.ablation.report.metric) for label, group in self.groups.items()}

    @cached_property
    def rows(self) -> Rows:
        """The cells by the values of their fields."""
        return rows(self.ablation, self.table)

    @cached_property
    def labels(self) -> list[Label]:
        return labels(self.ablation, self.table)

    def text(self, label: Label) -> str:
        return label_text(self.ablation, label) or self.ablation.name

    def values(self, name: str) -> list[Any]:
        """The values of one of the table's fields, in order of appearance; none if the table lacks the field."""
        return list(dict.fromkeys(self.table[name])) if name in keys(self.ablation) else []

    def curve(self, label: Label, column: str) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
        """Steps, and a row of the column for each seed, of trials that were evaluated at the same steps."""
        curves = [curve for key in self.groups[label].done["id"] if len(curve := self.results[key].curve)]
        if not curves:
            return np.empty(0), np.empty((0, 0))
        curves = [curve for curve in curves if np.array_equal(curve[:, 0], curves[0][:, 0])]
        columns = curve_columns()
        return curves[0][:, 0], np.array([curve[:, columns.index(column)] for curve in curves])


class NoTable(MixlabError):
    """The error that a table has no trials: what is tuned is chosen for no setting. `waits`: trials that tune go on."""

    def __init__(self, sentence: str, waits: bool):
        super().__init__(sentence)
        self.waits = waits


def make_report(
    ablation: Ablation,
    trials: Sequence[GridTrial],
    store: Store,
    options: Options = Options(),  # noqa: B008
) -> Report:
    """Read the trials of an ablation and make their cells.

    Raises: StoreError: the store cannot be read.    NoTable.
    """
    if all(planned.tunes for planned in trials):
        raise _no_table(ablation, tune.choose(ablation, trials, store))
    trial_results = records.results(ablation.name, trials, store)
    frame = trials_frame(ablation, trials, store, trial_results)
    read = reader(store, ablation.report.metric)
    table = cells(ablation, frame, options, read)
    choices = tune.choose(ablation, trials, store)
    made = Report(ablation, store, options, trial_results, frame, table, choices, read, trials)
    table["interim"] += made.num_coming
    return made


def _no_table(ablation: Ablation, choices: Sequence[Choice]) -> NoTable:
    waits = any(choice.num_open or choice.chosen for choice in choices)  # chosen: since the trials were listed
    told = "; ".join(tuned.choice_text(ablation, choice) for choice in choices[:2])
    again = "; run or submit it, or wait" if waits else ""  # else the reasons say what helps
    return NoTable(f"{ablation.where}: the table has no trials{' yet' * waits}: {told}{again}", waits)
