"""The trials of each cell of a table, by column: pandas' own selections would take a millisecond a cell."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis import origins
from analysis.labels import Label, keys, labels
from experiments.design.ablation import Ablation
from experiments.results.metrics import MEANS, SECONDS, SPLITS, on_validation

COST = {name: name for name in (*MEANS, "peak_share")} | {"seconds": "seconds.train", "steps": "train.steps"}
NUMBERS = (*COST.values(), *(f"info.num_{split}" for split in SPLITS), *(f"seconds.{what}" for what in SECONDS))
OTHERS = ("id", "seed", "commit", "dirty", *origins.SAME)


@dataclass(frozen=True, eq=False)
class Group:
    """The trials of a cell.

    states: how many are done, failed, running and missing.
    done: columns of those that are done: float64 of NUMBERS and metrics, objects of OTHERS; one that the frame lacks is
    not there.
    """

    states: Counter[str]
    done: "Mapping[str, np.ndarray[Any, Any]]"

    @property
    def n(self) -> int:
        return self.states["done"]

    def numbers(self, name: str) -> "np.ndarray[Any, Any]":
        """A column of numbers of those that are done; all NaN if there is none."""
        return self.done[name] if name in self.done else np.full(self.n, np.nan)

    def by_seed(self, name: str) -> dict[Any, Any]:
        """A column of those that are done, by seed; empty if there is none."""
        return dict(zip(self.done["seed"], self.done[name].tolist(), strict=True)) if name in self.done else {}


def groups_of(ablation: Ablation, frame: pd.DataFrame) -> dict[Label, Group]:
    """The trials of each cell, with the columns that cells, figures and sentences are made from."""
    metric = ablation.report.metric
    numbers = {name: _numbers(frame[name]) for name in (*NUMBERS, metric, on_validation(metric)) if name in frame}
    columns = numbers | {name: frame[name].to_numpy(object) for name in OTHERS if name in frame}
    status = frame["status"].to_numpy(object)
    rows: dict[Label, list[int]] = {} if keys(ablation) else {(): []}
    for row, label in enumerate(labels(ablation, frame)):
        rows.setdefault(label, []).append(row)
    done = {label: [row for row in of_label if status[row] == "done"] for label, of_label in rows.items()}
    return {
        label: Group(Counter(status[of_label]), {name: column[done[label]] for name, column in columns.items()})
        for label, of_label in rows.items()
    }


def _numbers(column: "pd.Series[Any]") -> "np.ndarray[Any, Any]":
    return pd.to_numeric(column).to_numpy(np.float64, na_value=np.nan)
