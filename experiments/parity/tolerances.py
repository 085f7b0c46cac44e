"""How far the two sides may part, by rung and pair of precisions, each with its reason.

A difference is relative to the largest element of its tensor. `seen` is the largest that was met with any option of the
model and either optimizer when the table was written.
"""

import math
from dataclasses import dataclass

from backends.contract import ModelSpec

# The unit roundoffs: half the distance from 1 to the next number.
ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-8}


@dataclass(frozen=True)
class Tolerance:
    limit: float  # largest relative difference that passes
    reason: str


EXACT = Tolerance(0.0, "made by the same NumPy code")
ROUNDED = "rounded once from the same float64"
SUMS = "sums in another order, through every block"
LATER = "each step's rounding passes through all later ones"
TABLE = {
    "float64": {
        "weights": Tolerance(0.0, ROUNDED),
        "batch": Tolerance(1e-15, "one product and one sum a pixel"),
        "activations": Tolerance(1e-12, SUMS),
        "offset": Tolerance(1e-12, "the same, 300 away from zero"),
        "loss": Tolerance(1e-12, SUMS),
        "gradients": Tolerance(1e-11, "the same forwards and backwards"),
        "norm": Tolerance(1e-12, "one sum of squares"),
        "step": Tolerance(1e-12, "elementwise arithmetic on the gradient"),
        "losses": Tolerance(1e-8, LATER),
        "trajectory": Tolerance(1e-8, LATER),
        "evaluation": Tolerance(1e-12, "one forward pass"),
    },
    "float32": {
        "weights": Tolerance(0.0, ROUNDED),
        "batch": Tolerance(1e-6, "one product and one sum a pixel"),
        "activations": Tolerance(1e-5, SUMS),
        "loss": Tolerance(1e-5, SUMS),
        "gradients": Tolerance(1e-4, "the same forwards and backwards"),
        "norm": Tolerance(1e-4, "one sum of squares of such gradients"),
        "step": Tolerance(1e-4, "AdamW divides by the root of the second moment"),
        "losses": Tolerance(1e-3, LATER),
        "trajectory": Tolerance(1e-3, LATER),
        "evaluation": Tolerance(1e-4, "one forward pass"),
    },
}
HALF_BLOCKS_OUTSIDE = 2  # stem and head
# A norm divides by the deviation, not by the largest element: of thousands of normal numbers that is about 4 of them.
NORM = 4
# Least size that a gradient's differences are set against, as a share of the largest gradient of all: one that is small
# beside the others is a sum that cancels, and has fewer digits.
FLOOR = {"float64": 1e-3, "float32": 1e-3, "tf32": 0.1, "bfloat16": 0.1}


def tolerance(rung: str, precisions: tuple[str, ...], model: ModelSpec) -> Tolerance:
    """Of a rung, for a pair of precisions: that of the coarser one."""
    coarser = coarsest(precisions)
    if coarser in TABLE:
        found = TABLE[coarser][rung]
        return found if len(set(precisions)) == 1 or found.limit else Tolerance(2 * ROUNDOFF[coarser], ROUNDED)
    unit, depth = ROUNDOFF[coarser], 2 * model.num_blocks + HALF_BLOCKS_OUTSIDE
    if rung in ("weights", "batch"):
        return Tolerance(2 * ROUNDOFF["float32"], "kept in float32 by both")
    power = f"unit roundoff 2^{math.log2(unit):.0f}"
    if rung in ("activations", "loss", "evaluation"):
        return Tolerance(NORM * unit * depth, f"{power}, {depth} half-blocks, {NORM} for the norms")
    if rung in ("gradients", "norm", "step"):
        return Tolerance(2 * NORM * unit * depth, f"{power}, {depth} half-blocks both ways, {NORM} for the norms")
    return Tolerance(math.inf, "trajectories part; compare accuracies over seeds")


def coarsest(precisions: tuple[str, ...]) -> str:
    return max(precisions, key=ROUNDOFF.__getitem__)
