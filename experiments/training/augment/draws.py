"""The random numbers of host augmentations: uniforms of a step for each row of its batch, and what is made of them."""

import math
from collections.abc import Mapping

from backends.arrays import Array
from experiments import streams

Draws = Mapping[str, Array]  # of one step, float64 (b, k) in [0, 1) by purpose


def of_step(seed: int, step: int, batch_size: int, sizes: Mapping[str, int]) -> Draws:
    """The draws of a step: they depend on (seed, purpose, step, row) and on nothing else.

    Args: sizes: how many numbers each image takes, by purpose.
    """
    return {name: streams.uniforms(seed, name, step, 1, (batch_size, size))[0] for name, size in sizes.items()}


def between(low: float, high: float, u: float) -> float:
    """A number from low to high."""
    return low + (high - low) * u


def log_between(low: float, high: float, u: float) -> float:
    """A number from low to high whose logarithm is uniform."""
    return math.exp(between(math.log(low), math.log(high), u))


def whole(num: int, u: float) -> int:
    """A whole number in [0, num), 0 where there is none."""
    return int(num * u)
