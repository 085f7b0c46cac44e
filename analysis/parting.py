"""Where the curves of two trials part: the first evaluation at which a number of theirs is not the same, to the bit."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.results.metrics import LEARNING_RATE, SPLITS, STEP, STEP_LOSS, measured

Point = Mapping[str, Any]
Numbers = dict[
    str, tuple[float | None, float | None]
]  # by name, of both trials; None: there is none, or it is no number


@dataclass(frozen=True)
class Parting:
    """Two curves at the steps that both evaluated.

    steps: these.   same_until: the last of them before a number differs; None: they differ from the first one on.
    first, last: the numbers at the first of them that differs, and at the last; none where all are equal.
    """

    steps: tuple[int, ...]
    same_until: int | None
    apart_at: int | None
    first: Numbers
    last: Numbers


def parting(first: Sequence[Point], second: Sequence[Point]) -> Parting:
    """Compare two curves, as metrics.jsonl has them."""
    sides = [dict(_numbers(curve)) for curve in (first, second)]
    steps = tuple(step for step in sides[0] if step in sides[1])
    both = {step: _both(sides[0][step], sides[1][step]) for step in steps}
    apart = next((place for place, step in enumerate(steps) if any(a != b for a, b in both[step].values())), None)
    if apart is None:
        return Parting(steps, steps[-1] if steps else None, None, {}, {})
    return Parting(steps, steps[apart - 1] if apart else None, steps[apart], both[steps[apart]], both[steps[-1]])


def _numbers(curve: Sequence[Point]) -> Iterator[tuple[int, dict[tuple[str, Any], float | None]]]:
    """The numbers of each evaluation, by step.

    A step loss is the mean since the evaluation before: its name holds that step, so that only means over the same
    steps are compared.
    """
    before = 0
    for point in curve:
        values = {(STEP_LOSS, before): point.get(STEP_LOSS), (LEARNING_RATE, 0): point.get(LEARNING_RATE)}
        for split in SPLITS:
            found = point.get(split) or {}
            values |= {(f"{split} {name}", 0): found.get(name) for name in measured([point])}
        yield point[STEP], values
        before = point[STEP]


def _both(first: Mapping[tuple[str, Any], float | None], second: Mapping[tuple[str, Any], float | None]) -> Numbers:
    return {name: (first[name, of], second[name, of]) for name, of in first if (name, of) in second}
