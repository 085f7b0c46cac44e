"""An evaluation shared out among the processes of a group, by whole batches: each example counts once.

A batch goes through one device as it is, so that what is said of it does not depend on the number of devices. Each
answer names its examples, and is held to those that are due: a batch that comes twice is none that has come.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends.arrays import Array
from backends.contract import PREDICT_BATCH, Predictions, Program
from backends.microbatches import Group
from experiments.running.failures import Failure, GroupLost
from experiments.running.meeting import named
from experiments.training.feed import batches


@dataclass(frozen=True, eq=False)
class Said:
    """What a program says of the examples of a batch."""

    examples: Array  # int32 (PREDICT_BATCH,)
    outputs: Sequence[Predictions]  # of each replica


def of_batches(indices: Array) -> list[Array]:
    """The examples of each batch of an evaluation; the last batch is filled up."""
    return [np.resize(indices[i : i + PREDICT_BATCH], PREDICT_BATCH) for i in range(0, len(indices), PREDICT_BATCH)]


def share(indices: Array, group: Group) -> Array:
    """The examples of the batches that a process evaluates: each group.size-th batch, from its rank on."""
    own = of_batches(indices)[group.rank :: group.size]
    return np.concatenate(own) if own else indices[:0]


def said(
    program: Program,
    images: Any,
    indices: Array,
    group: Group,
    num_threads: int = 1,
    idle: Callable[[], None] = lambda: None,
) -> Iterator[Said]:
    """What a process's program says of its share, batch by batch; see evaluate.predictor."""
    own = share(indices, group)
    for i, pixels in enumerate(batches(images, own, PREDICT_BATCH, num_threads, idle)):
        yield Said(own[i * PREDICT_BATCH : (i + 1) * PREDICT_BATCH], program.predict(pixels))


def in_order(
    indices: Array, hear: Sequence[Callable[[], Any]], names: Sequence[str]
) -> Iterator[Sequence[Predictions]]:
    """What all processes say, in the order of the examples.

    Args:   hear: of each process, by rank, what gives its next answer: Said, Failure, or None: it says no more.
            names: of the processes.
    Raises: GroupLost: a process failed, or spoke of other examples than those that are due.
    """
    for i, examples in enumerate(of_batches(indices)):
        answer, who = hear[i % len(hear)](), names[i % len(hear)]
        if isinstance(answer, Failure):
            raise GroupLost(named(answer, who))
        if answer is None or not np.array_equal(answer.examples, examples):
            first = i * PREDICT_BATCH
            last = min(first + PREDICT_BATCH, len(indices)) - 1
            found = "none" if answer is None else "those of other examples"
            where = f"expected the predictions of examples {first} to {last} of an evaluation, got {found}"
            raise GroupLost(named(Failure("error", where), who))
        yield answer.outputs
