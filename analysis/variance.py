"""The parts of the variance of what is measured on examples at seeds: of the seeds, of the examples, of the rest.

The layout is two-way without replication, with both factors random: a number d[r, i] at seed r on example i is the sum
of a mean, of what the seed and what the example bring, and of a rest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class MeanSquares:
    """Of a table (seeds, examples); 0 where there is but one seed, or one example."""

    seeds: float
    examples: float
    rest: float

    @classmethod
    def of(cls, d: "np.ndarray[Any, Any]") -> "MeanSquares":
        n, num = d.shape
        mean, of_seed, of_example = float(d.mean()), d.mean(1), d.mean(0)
        seeds = num * float(((of_seed - mean) ** 2).sum())  # sums of squares
        examples = n * float(((of_example - mean) ** 2).sum())
        rest = max(float(((d - mean) ** 2).sum()) - seeds - examples, 0.0)
        degrees = max(n - 1, 1), max(num - 1, 1), max((n - 1) * (num - 1), 1)
        return cls(seeds / degrees[0], examples / degrees[1], rest / degrees[2])


@dataclass(frozen=True)
class Parts:
    """Variances of the number of an example at a seed, by what brings them: the number has their sum."""

    seeds: float
    examples: float
    rest: float
    df: int  # of what the seeds bring

    @classmethod
    def of(cls, d: "np.ndarray[Any, Any]") -> "Parts":
        """Unbiased estimates, of which those of a small part may be negative.

        Args: d: (seeds, examples), two seeds or more.
        """
        n, num = d.shape
        squares = MeanSquares.of(d)
        return cls((squares.seeds - squares.rest) / num, (squares.examples - squares.rest) / n, squares.rest, df=n - 1)

    def of_seeds(self, num: int) -> float:
        """The standard deviation over seeds of the mean over so many examples."""
        return math.sqrt(self.seeds + self.rest / num)

    def of_examples(self, num: int) -> float:
        """The standard error that so many examples leave, whatever the number of seeds."""
        return math.sqrt(self.examples / num)


def pooled(estimates: Sequence[Parts]) -> Parts:
    """The parts of several tables, as the same in all; one that comes out negative is 0. Each counts by its `df`."""
    weights = [one.df for one in estimates]
    seeds, examples, rest = np.average([(one.seeds, one.examples, one.rest) for one in estimates], 0, weights)
    return Parts(max(float(seeds), 0.0), max(float(examples), 0.0), float(rest), sum(weights))
