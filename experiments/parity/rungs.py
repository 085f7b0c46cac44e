"""A rung's verdict, and how two tensors, or two states of many, are compared for it."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from backends.arrays import Array, State
from experiments.parity.tolerances import FLOOR, KEPT, ROUNDOFF, STILL, Tolerance

NOT_FINITE = "is not finite"
Place = Callable[[str], str]  # of a tensor's name: what to say where it is the first to differ


@dataclass(frozen=True)
class Difference:
    """The largest difference of one tensor.

    relative: to the size that the rung sets it against.   fault: why no number can be given; "": one is.
    """

    name: str
    index: tuple[int, ...]
    absolute: float
    relative: float
    fault: str = ""


@dataclass
class Rung:
    """One rung's verdict. `place` says where the sides part, where they do."""

    name: str
    tolerance: Tolerance
    largest: Difference | None = None
    place: str = ""
    by_name: dict[str, float] = field(default_factory=dict)  # tensor or step -> relative difference

    @property
    def passed(self) -> bool:
        """Whether no difference was beyond the tolerance."""
        return not self.place

    def fill(
        self, a: State, b: State, names: Iterable[str], place: Place, scales: Mapping[str, float] | None = None
    ) -> "Rung":
        """Compare the tensors of these names; `scales` holds what each one's differences are set against."""
        for name in names:
            difference = compare(name, a[name], b[name], scales[name] if scales else None)
            self.note(difference, name, partial(place, name))
        return self

    def note(self, difference: Difference, key: str, place: "str | Callable[[], str]") -> None:
        """Keep a difference; the first one beyond the tolerance is the place."""
        self.by_name[key] = difference.relative
        if self.largest is None or difference.relative > self.largest.relative:
            self.largest = difference
        if self.place or difference.relative <= self.tolerance.limit < math.inf:
            return
        if difference.fault:
            self.place = f"{difference.name} {difference.fault}{f' at {key}' if key != difference.name else ''}"
        elif difference.relative > self.tolerance.limit:
            self.place = place if isinstance(place, str) else place()


def compare(name: str, a: Array, b: Array, scale: float | None = None) -> Difference:
    """The largest difference of two tensors; infinite where a number of either is not finite, or the shapes differ.

    Args: scale: what it is set against; None: the largest element of both.
    """
    if a.shape != b.shape:
        return Difference(name, (), math.inf, math.inf, f"has the shape {a.shape} against {b.shape}")
    if a.size == 0:
        return Difference(name, (), 0.0, 0.0)
    with np.errstate(invalid="ignore"):
        distance = np.abs(np.subtract(a, b, dtype=np.result_type(a, b, np.float32)))
    index = tuple(int(i) for i in np.unravel_index(np.argmax(distance), distance.shape))  # the first NaN, if any
    absolute = float(distance[index])
    if not math.isfinite(absolute):
        return Difference(name, index, math.inf, math.inf, NOT_FINITE)
    if absolute == 0:
        return Difference(name, index, 0.0, 0.0)
    against = max(size(a), size(b)) if scale is None else scale
    return Difference(name, index, absolute, absolute / against if against else math.inf)


def size(array: Array) -> float:
    """The largest element, without its sign."""
    return float(np.abs(array).max(initial=0.0))


def gradient_scales(sides: tuple[State, State], names: Iterable[str], precisions: Sequence[str]) -> dict[str, float]:
    """Sizes that differences of gradients are set against: each one's own, at least a share of the largest of all."""
    first, second = ({name: size(side[name]) for name in names} for side in sides)
    floor = max(FLOOR[precision] for precision in precisions) * max(first.values(), default=0.0)
    return {name: max(first[name], second[name], floor) for name in first}


def moves(
    sides: tuple[State, State],
    before: State,
    precisions: Sequence[str],
    limit: float,
    steps: int = 1,
    idle: Collection[str] = (),
) -> dict[str, float]:
    """Sizes that differences of a state are set against: how far each tensor has moved, and its rounding.

    Each step rounds anew, so that the roundings of many add up as the root of their number. A tensor that has moved
    little beside the others of its group is set against a share of the most that one has; one that rounding alone
    moves, by steps that AdamW makes as large as others, against the whole.

    Args:   limit: the tolerance; rounding is divided by it, so that it passes.    steps: from `before` to both sides.
            idle: parameters whose gradient is rounding alone; see tolerances.IDLE. The share is then all that one has.
    """
    moved = {name: max(size(side[name] - before[name]) for side in sides) for name in sides[0]}
    most: dict[str, float] = {}
    for name, move in moved.items():
        group = name.partition("/")[0]
        most[group] = max(most.get(group, 0.0), move)
    kept = 2 * math.sqrt(steps) * max(ROUNDOFF[KEPT[precision]] for precision in precisions) / limit
    shares = {name: 1.0 if name.partition("/")[2] in idle else STILL for name in moved}
    return {
        name: max(move, shares[name] * most[name.partition("/")[0]]) + kept * size(sides[0][name])
        for name, move in moved.items()
    }
