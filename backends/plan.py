"""The plan of some optimizer steps: all that two frameworks could else do differently by chance."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from backends.arrays import Array


@dataclass(frozen=True, eq=False)
class StepPlan:
    """The arrays that describe n optimizer steps of b examples. None: that part is off.

    A backend rounds what is float64 here once, to the type that it keeps parameters in.

    learning_rate       float64 (n,)
    moment_corrections  float64 (n, 2)    1 / (1 - b1^t), 1 / (1 - b2^t)
    examples            int32 (n, b)      indices into the data set
    pixels              uint8 (k, b, h, w, c)   the examples' images, where the data set holds none; k >= n, and what is
                                      beyond n is not looked at, so that one number of steps is compiled
    crops               int32 (n, b, 2)   shift of rows and columns in pixels; what comes from outside is black
    flips               bool (n, b)       mirror left and right, before the crop
    mixup_partners      int32 (n, b)      position in the batch of the example that is mixed in
    mixup_weights       float64 (n,)      weight of the example itself
    cutmix_boxes        int32 (n, 4)      first and last row and column, the last ones not in it, that come from the
                                      partner; an empty box: none
    target_weights      float64 (n,)      weight of the example's own target; None: mixup_weights
    branch_scales       float64 (n, branches, b)   factor of each residual branch, in the order of folds.branches
    dropout_keys        uint32 (n,)       key of the dropout hash, see dropout.py
    dropout_rate        float             probability of zeroing an element
    first_rows          uint32 (n,)       place in the whole batch of the first example, where this is a part of it; see
                                      microbatches.py. Partners then stand behind the examples that have them
    """

    first_step: int  # steps done before this plan
    learning_rate: Array
    moment_corrections: Array
    examples: Array
    pixels: Array | None = None
    crops: Array | None = None
    flips: Array | None = None
    mixup_partners: Array | None = None
    mixup_weights: Array | None = None
    cutmix_boxes: Array | None = None
    target_weights: Array | None = None
    branch_scales: Array | None = None
    dropout_keys: Array | None = None
    dropout_rate: float | None = None
    first_rows: Array | None = None

    @property
    def num_steps(self) -> int:
        return len(self.learning_rate)

    def arrays(self) -> dict[str, Array]:
        """The per-step arrays that are on, by field name; the leading axis of each is the step."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, np.ndarray)}


def stacked_arrays(plans: Sequence[StepPlan]) -> dict[str, Array]:
    """The arrays of several plans by field name, (steps, replicas, ...); of one plan without a copy."""
    named = [plan.arrays() for plan in plans]
    if len(named) == 1:
        return {name: array[:, None] for name, array in named[0].items()}
    return {name: np.stack([one[name] for one in named], 1) for name in named[0]}
