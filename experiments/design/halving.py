"""Successive halving of what is tuned: at given steps, the values that are worse on validation are trained no further.

    halving: {steps: [100, 300], keep: 1/2}

At each of these steps the values of a setting that are still there are ordered by the metric that chooses, as it is at
the evaluation of exactly this step (`best`: the best one up to it), and this share of them, rounded up, goes on. What
diverged, and what of equal values goes on, is as for the choice itself, which is made among those that are trained to
their end. A trial that waits or is pruned is the same trial as ever, paused: a run without halving goes on with it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from backends.errors import MixlabError, choices
from experiments.spec.values import shown, typed

KEYS = ("steps", "keep")


@dataclass(frozen=True)
class Halving:
    """When values are pruned, and how many stay."""

    steps: tuple[int, ...]
    keep: str  # a fraction: 0.1 is no binary number, and what is rounded up must not be a little more than whole

    def num_kept(self, num_values: int) -> int:
        """How many of so many values go on."""
        return math.ceil(Fraction(self.keep) * num_values)

    def numbers(self, num_values: int) -> list[int]:
        """How many values are trained in each stage, the last of which is the rest of the training."""
        numbers = [num_values]
        for _ in self.steps:
            numbers.append(self.num_kept(numbers[-1]))
        return numbers

    def steps_to_come(self, num_values: int, num_steps: int, first: int = 0) -> float:
        """The mean, over so many values that are in a stage, of the steps that each is trained to.

        Args: num_steps: of the whole training.    first: the stage that they are in, from 0.
        """
        ends, number, before, mean = (*self.steps[first:], num_steps), num_values, 0, 0.0
        for end in ends:
            mean += (end - before) * number / num_values
            number, before = self.num_kept(number), end
        return mean


@dataclass(frozen=True)
class _Written:
    """The key as it is written."""

    steps: list[int]
    keep: str


def read_halving(tree: Any, where: str) -> Halving | None:
    """Read the key of `tune`; None: there is none.

    Raises: MixlabError: a key is unknown, the steps do not increase, the share is out of range.
    """
    if tree is None:
        return None
    if not isinstance(tree, dict) or not set(KEYS) <= {*tree}:
        raise MixlabError(f"{where}: expected a mapping such as {{steps: [100, 300], keep: 1/2}}, got {shown(tree)}")
    if unknown := [key for key in tree if key not in KEYS]:
        raise MixlabError(f"{where}: {shown(unknown[0])} is not a key of it; {choices(unknown[0], KEYS)}")
    return Halving(_steps(tree["steps"], f"{where}: steps"), _share(tree["keep"], f"{where}: keep"))


def _steps(value: Any, where: str) -> tuple[int, ...]:
    steps: list[int] = typed(_Written, "steps", value, where)
    if not steps or steps[0] < 1 or steps != sorted(set(steps)):
        raise MixlabError(f"{where}: expected steps above 0, each after the one before, got {shown(value)}")
    return tuple(steps)


def _share(value: Any, where: str) -> str:
    try:
        share = Fraction(typed(_Written, "keep", value, where))
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share < 1:
        raise MixlabError(f"{where}: expected a fraction such as 1/2, or a number, between 0 and 1, got {shown(value)}")
    return str(share)


def stages_text(halving: Halving, num_values: int) -> str:
    """`4 values to step 100, 2 to step 300, 1 to the end`."""
    ends: Sequence[str] = (*(f"step {step}" for step in halving.steps), "the end")
    told = [f"{number} to {end}" for number, end in zip(halving.numbers(num_values), ends, strict=True)]
    return ", ".join([told[0].replace(" to", " values to", 1), *told[1:]])
