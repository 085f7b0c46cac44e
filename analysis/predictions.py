"""Which examples the compared trials have right, for the metric of a table; each trial's file is read once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from experiments.results import metrics, predictions
from experiments.results.store import Store


@dataclass(frozen=True, eq=False)
class Right:
    """The examples of a split that a trial has right."""

    bits: "np.ndarray[Any, Any]"  # uint8, eight examples each: 10,000 trials of 10,000 examples take 12.5 MB
    num: int
    examples: str  # equal for two trials exactly if their examples are the same, in the same order

    def each(self) -> "np.ndarray[Any, Any]":
        """0 or 1 for each example, int8 (num,)."""
        return np.unpackbits(self.bits, count=self.num).view(np.int8)


Reader = Callable[[str], Right | None]  # by the id of a trial; None: it has no predictions


def nothing(trial: str) -> Right | None:
    """The reader of trials without predictions, such as those of a tidy.csv."""
    return None


def has_predictions(metric: str) -> bool:
    """Tell whether trials keep which examples they have right for a metric. Args: metric: of metrics.names."""
    _, split, asked = metrics.parse(metric)
    return asked is metrics.ACCURACY and split in predictions.KEPT_SPLITS


def reader(store: Store, metric: str) -> Reader:
    """The reader of a store. Args: metric: of metrics.names; what is no share of right examples has no predictions."""
    if not has_predictions(metric):
        return nothing
    when, split, _ = metrics.parse(metric)

    @cache
    def read(trial: str) -> Right | None:
        found = predictions.read(store.folder(trial), when, split)
        return None if found is None else Right(np.packbits(found.correct), len(found.correct), found.examples)

    return read
