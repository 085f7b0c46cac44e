"""A run of a tracker: what all of them are told of a trial, or of a cell, in one form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from backends.specs import ModelSpec
from experiments.results.states import PRUNED

TRIAL, MEAN, TUNING = "trial", "mean", "tuning"  # kinds of runs; the last two are words of names too
ENDED = ("done", "failed", PRUNED)
FINAL = "final/"  # before the names of final numbers, where a tracker makes one group of such names
T = TypeVar("T")
Values = Mapping[str, float]
Points = tuple[tuple[int, Values], ...]  # step, and what was measured there


@dataclass(frozen=True)
class Run:
    """One run of a tracker.

    id: of the trial; of a mean, of its cell.   group: the cell in words, or `tuning`.   name: within its group.
    status: done, running, failed, missing, paused or pruned; of a mean: done if all trials of its cell are, else
    running.
    config: the resolved fields; of a mean, those that all of its trials share.   asked: of what varies, in words.
    final: numbers of the whole run, at `step`; empty before it is done.
    """

    id: str
    kind: str
    group: str
    name: str
    status: str
    why: str
    config: Mapping[str, Any]
    asked: Mapping[str, Any]
    points: Points
    final: Values
    model: ModelSpec
    started: float | None = None  # seconds since 1970, of the record
    finished: float | None = None

    @property
    def title(self) -> str:
        """Its name where there are no groups."""
        return f"{self.group} {self.name}"

    @property
    def has_ended(self) -> bool:
        """Whether nothing is to come of it."""
        return self.status in ENDED

    @property
    def step(self) -> int:
        """The step of its last evaluation."""
        return self.points[-1][0] if self.points else 0

    @property
    def digest(self) -> str:
        """A text that is another one if anything of the run is."""
        told = {one.name: getattr(self, one.name) for one in fields(self)}
        text = json.dumps(told, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Runs:
    """The runs of an ablation.   mixed: cells that have no mean, since their trials are of several commits."""

    ablation: str
    question: str
    runs: tuple[Run, ...]
    mixed: tuple[str, ...] = ()

    @property
    def of_trials(self) -> list[Run]:
        return [run for run in self.runs if run.kind != MEAN]

    @property
    def finals(self) -> list[str]:
        """Names of the final numbers, in order."""
        return list(dict.fromkeys(name for run in self.runs for name in run.final))


@dataclass(frozen=True)
class Asked:
    """What is exported of trials: the numbers of the test split, and means over several commits, or not."""

    with_test: bool = False
    mix_commits: bool = False


def batches(several: Sequence[T], most: int) -> Iterator[list[T]]:
    """The same in order, so many at a time."""
    for begin in range(0, len(several), most):
        yield list(several[begin : begin + most])
