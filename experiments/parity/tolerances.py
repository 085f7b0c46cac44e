"""How far the two sides may part, by rung and pair of precisions, each with its reason.

A difference is relative to the largest element of its tensor; that of a gradient, to a share of the largest gradient at
least; that of a state that has been trained, to how far it has moved. `seen` is the largest that `make parity` met on a
CPU, over every option of the model and both optimizers, torch 2.13 against jax 0.10.
"""

import math
from dataclasses import dataclass

from backends.models import folds
from backends.specs import ModelSpec

# The unit roundoffs: half the distance from 1 to the next number.
ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-8}
# What parameters and moments are kept in.
KEPT = {"float64": "float64", "float32": "float32", "tf32": "float32", "bfloat16": "float32"}


@dataclass(frozen=True)
class Tolerance:
    """How far two sides may part in a rung, and why so far."""

    limit: float  # largest relative difference that passes
    reason: str
    seen: float | None = None  # largest difference met by `make parity`; None: not measured


EXACT = Tolerance(0.0, "made by the same NumPy code")
ONE_WAY = Tolerance(math.inf, "nothing was compared: neither side has another way")
ROUNDED = "rounded once from the same float64"
SUMS = "sums in another order, through every block"
LATER = "each step's rounding passes through all later ones"
# Of that many normal numbers, the smallest is about the largest divided by their number: it has 14 binary digits fewer.
DIVIDED = "AdamW divides each of 2^14 gradients by its own size: 2^-24 times 2^14, and a few steps of it"
OWN = "the same gradient, computed by two calls"
ARITHMETIC = "elementwise arithmetic on a side's own moments"
BATCHED = "the same sums, batched, over some steps"
AGAIN = "the same operations, fused in another way"
FUSED = "the same operations, fused by a compiler"
OF_RANKS = Tolerance(0.0, "each process adds the same sum to the same state", 0.0)
ONE_ORDER = Tolerance(0.0, "the same microbatches, added in the same order on any number of devices", 0.0)
SAME_BITS = Tolerance(0.0, "the same program, once or step by step", 0.0)
TABLE = {
    "float64": {
        "weights": Tolerance(0.0, ROUNDED, 0.0),
        "batch": Tolerance(1e-15, "one product and one sum a pixel", 5.6e-17),
        "activations": Tolerance(1e-12, SUMS, 1.5e-15),
        "offset": Tolerance(2e-12, "the same, 300 deviations away from zero: 300 times 2^-53, and some sums", 1.0e-12),
        "loss": Tolerance(1e-12, SUMS, 1.9e-16),
        "gradients": Tolerance(1e-11, "the same forwards and backwards", 4.8e-15),
        "norm": Tolerance(1e-12, "one sum of squares", 1.1e-15),
        "step": Tolerance(1e-12, "elementwise arithmetic on the gradient", 2.2e-13),
        "losses": Tolerance(1e-8, LATER, 4.1e-16),
        "trajectory": Tolerance(1e-8, LATER, 2.2e-11),
        "chunk": Tolerance(1e-8, LATER, 3.9e-14),
        "evaluation": Tolerance(1e-12, "one forward pass", 0.0),
        "moments": Tolerance(1e-11, OWN, 9.5e-16),
        "formula": Tolerance(1e-11, ARITHMETIC, 1.4e-16),
        "replicas": Tolerance(1e-9, BATCHED, 4.6e-14),
        "remat": Tolerance(1e-11, AGAIN, 0.0),
        "compile": Tolerance(1e-11, FUSED),
    },
    "float32": {
        "weights": Tolerance(0.0, ROUNDED, 0.0),
        "batch": Tolerance(1e-6, "one product and one sum a pixel", 6.0e-8),
        "activations": Tolerance(1e-5, SUMS, 9.4e-7),
        "loss": Tolerance(1e-5, SUMS, 1.0e-7),
        "gradients": Tolerance(1e-4, "the same forwards and backwards", 4.7e-6),
        "norm": Tolerance(1e-4, "one sum of squares of such gradients", 1.5e-5),
        "step": Tolerance(1e-4, "AdamW divides by the root of the second moment", 6.7e-5),
        "losses": Tolerance(1e-3, LATER, 5.2e-7),
        "trajectory": Tolerance(5e-3, DIVIDED, 3.7e-3),
        "chunk": Tolerance(5e-3, DIVIDED, 1.0e-3),
        "evaluation": Tolerance(1e-4, "one forward pass", 3.6e-9),
        "moments": Tolerance(1e-4, OWN, 1.2e-6),
        "formula": Tolerance(1e-5, ARITHMETIC, 5.1e-8),
        "replicas": Tolerance(1e-3, BATCHED, 2.3e-5),
        "remat": Tolerance(1e-4, AGAIN, 2.9e-7),
        "compile": Tolerance(1e-4, FUSED, 1.3e-6),
    },
}
# ReLU has a kink: a unit whose input is rounded to either side of zero passes its gradient on one side alone, and AdamW
# makes a whole step of that. Losses keep their tolerance.
KINK = Tolerance(0.1, "at ReLU's kink, rounding switches a unit's gradient", 3.0e-3)
HALF_BLOCKS_OUTSIDE = 2  # stem and head
# A norm divides by the deviation, not by the largest element: of thousands of normal numbers that is about 4 of them.
# Roundings are independent, so that those of many half-blocks add up as the root of their number. Seen with 2 blocks in
# bfloat16 on torch: 2.5e-2 of 3.8e-2 in activations, 2.0e-2 of 5.4e-2 in gradients, 1.4e-1 of 2.2e-1 in those of ReLU.
NORM = 4
# Of many more examples the largest rounding, over the smallest deviation, lies farther out. Seen in bfloat16 on torch
# with 128 examples, 1 block and 8 channels: 3.6e-2 of 6.2e-2 in activations, where 8 examples had 2.5e-2.
WIDE = 2
# Least size that a gradient's differences are set against, as a share of the largest gradient of all: one that is small
# beside the others is a sum that cancels, and has fewer digits.
FLOOR = {"float64": 1e-3, "float32": 1e-3, "tf32": 0.1, "bfloat16": 0.1}
# A gradient that is this small beside the largest one is nothing but rounding: that of a key's bias, which the softmax
# takes off, and of a norm's bias in front of pooling, are zero in exact arithmetic. AdamW divides such a gradient by
# its own size, so that each side takes steps of its own, of a share of the rate; seen in float32: 1.3e-4 of the
# largest move of all after 20 steps of a ViT of 16 channels, which is 1.3e-3 of the share below.
IDLE = {"float64": 2.0**-48, "float32": 2.0**-20, "tf32": 2.0**-8, "bfloat16": 2.0**-6}
STILL = 0.1  # the same for how far a tensor has moved: the first gradients behind a head of zeros are nearly nothing


# A gradient in tf32 or bfloat16 may be summed in another order by another call; seen on a CPU: see float32.
COARSE_MOMENTS = Tolerance(1e-2, OWN)


def tolerance(rung: str, precisions: tuple[str, ...], model: ModelSpec) -> Tolerance:
    """The tolerance of a rung for a pair of precisions, which is that of the coarser one."""
    coarser, wide = coarsest(precisions), WIDE if rung.startswith("wide ") else 1
    rung = rung.removeprefix("wide ")
    if rung == "long call":
        return SAME_BITS
    if rung == "ranks":
        return OF_RANKS
    if coarser == "float32" and rung in ("trajectory", "chunk", "replicas") and folds.has_kink(model):
        return KINK
    if coarser in TABLE:
        listed = TABLE[coarser][rung]
        # Between two precisions nothing is equal: what both round once differs by the roundings.
        return listed if len(set(precisions)) == 1 or listed.limit else Tolerance(2 * ROUNDOFF[coarser], ROUNDED)
    unit, depth = ROUNDOFF[coarser], len(folds.branches(model)) + HALF_BLOCKS_OUTSIDE
    if rung in ("weights", "batch"):
        return Tolerance(2 * ROUNDOFF["float32"], "kept in float32 by both")
    power = f"unit roundoff 2^{math.log2(unit):.0f}"
    if rung == "formula":
        return TABLE[KEPT[coarser]][rung]
    if rung == "moments":
        return COARSE_MOMENTS
    if rung in ("activations", "loss", "evaluation"):
        limit = wide * NORM * unit * math.sqrt(depth)
        return Tolerance(limit, f"{power}, root of {depth} half-blocks, {wide * NORM} for the norms")
    if rung in ("gradients", "norm", "step", "replicas", "remat", "compile"):
        kink, words = (NORM, f", {NORM} for ReLU's kink") if folds.has_kink(model) else (1, "")
        limit = wide * kink * NORM * unit * math.sqrt(2 * depth)
        return Tolerance(limit, f"{power}, root of {2 * depth} half-blocks, {wide * NORM} for the norms{words}")
    return Tolerance(math.inf, "trajectories part; compare accuracies over seeds")


def coarsest(precisions: tuple[str, ...]) -> str:
    """The precision with the largest unit roundoff."""
    return max(precisions, key=ROUNDOFF.__getitem__)
