"""The batch of a step in microbatches: the rows of each, and the order in which their gradients are added.

A batch is cut into V microbatches of neighbouring rows; V is a power of two. The loss of each is divided by V, which is
exact, and their gradients are added in a fixed binary tree, ((0 + 1) + (2 + 3)) + .... Each of D processes takes V / D
neighbouring microbatches, which are a subtree, and the sums of the processes are added in the same tree. So a step has
the same bits on any number of devices, and on one device it is gradient accumulation, with the memory of one part.
"""

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from backends.arrays import Array, State
from backends.plan import StepPlan

ALIGNED = 64  # numbers: each process's share of a flat array is a multiple of it, so that no vector loop has a rest

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """The processes that train one trial together, and the place of this one among them."""

    rank: int = 0
    size: int = 1  # a power of two


ALONE = Group()


def rows_read(batch_size: int, partners: Array | None, num: int, group: Group = ALONE) -> Array:
    """The rows of a step's batch that each microbatch of a process reads: its own, and behind them their partners.

    Args:    partners: int32 (n, b), StepPlan.mixup_partners.    num: of microbatches of the whole batch.
    Returns: int32 (n, num / group.size, r), or (1, ...) without partners; r is b / num, or twice that with partners.
    """
    own: Array = np.arange(batch_size, dtype=np.int32).reshape(group.size, num // group.size, -1)[group.rank]
    if partners is None:
        return own[None]
    return np.concatenate([np.broadcast_to(own, (len(partners), *own.shape)), partners[:, own]], 2)


def split(plan: StepPlan, num: int, group: Group = ALONE) -> list[StepPlan]:
    """The plans of the microbatches that a process takes, in their order; of one microbatch, the plan itself.

    In a part the partners of mixup stand behind its own examples, and `first_rows` tells where it lies in the batch.

    Args: plan: of the whole batch; its pixels are those of the rows that `rows_read` gives, in that order.
          num: of microbatches of the whole batch.
    """
    if num == 1:
        return [plan]
    reads = rows_read(plan.examples.shape[1], plan.mixup_partners, num, group)
    reads = np.broadcast_to(reads, (plan.num_steps, *reads.shape[1:]))
    return [_part(plan, part, i, num) for i, part in enumerate(reads.swapaxes(0, 1))]


def _part(plan: StepPlan, reads: Array, i: int, num: int) -> StepPlan:
    """The plan of the i-th microbatch of a process.  Args: reads: int32 (n, r)."""
    steps, size = np.arange(plan.num_steps)[:, None], plan.examples.shape[1] // num
    own = slice((first := int(reads[0, 0])), first + size)
    by_row = {name: getattr(plan, name) for name in ("examples", "crops", "flips")}
    partners = np.tile(
        np.arange(size, 2 * size, dtype=np.int32), (plan.num_steps, 1)
    )  # written to, as torch warns else
    width = reads.shape[1]
    return replace(
        plan,
        **{name: array[steps, reads] for name, array in by_row.items() if array is not None},
        pixels=None if plan.pixels is None else plan.pixels[:, i * width : (i + 1) * width],
        mixup_partners=None if plan.mixup_partners is None else partners,
        branch_scales=None if plan.branch_scales is None else plan.branch_scales[:, :, own],
        first_rows=np.full(plan.num_steps, first, np.uint32),
    )


def tree_sum(values: Iterable[T], add: Callable[[T, T], T]) -> T:
    """The sum of 2^k values in the tree, of which at most k + 1 are held at a time."""
    held: list[tuple[int, T]] = []  # sums, and of how many values each is
    for value in values:
        size, total = 1, value
        while held and held[-1][0] == size:
            total, size = add(held.pop()[1], total), 2 * size
        held.append((size, total))
    ((_, total),) = held
    return total


def joined(parts: Sequence[State]) -> State:
    """The values of a whole batch's forward pass from those of all microbatches, in their order.

    Args: parts: of each microbatch arrays (b, ...), and as `loss` its share, ().
    """
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != "loss"}
    return values | {"loss": np.asarray(tree_sum((part["loss"] for part in parts), operator.add))}


def own_share(size: int, group: Group) -> slice:
    """The share of a process of a flat array of so many numbers."""
    length = size // group.size
    return slice(group.rank * length, (group.rank + 1) * length)


def padded_size(size: int, num: int) -> int:
    """The length of a flat array of so many numbers that `num` processes share out equally."""
    share = num * ALIGNED
    return -(-size // share) * share
