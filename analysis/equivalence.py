"""Statistical parity: whether two settings, such as two backends, give the same metric within a margin."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def equivalence(first: Mapping[Any, float], second: Mapping[Any, float], margin: float) -> tuple[float, int]:
    """p-value of the two one-sided t-tests over pairs, and the number of pairs.

    A small p says that the mean difference lies within (-margin, margin). Pairs are the keys, such as seeds, that both
    have; with fewer than two of them, or a NaN among them, p is NaN. Where all differences are the same there is
    nothing to estimate: p is 0 inside the margin and 1 outside.

    Source: statsmodels.stats.weightstats.ttost_paired (Schuirmann 1987).
    """
    from statsmodels.stats.weightstats import ttost_paired

    keys = [key for key in first if key in second]
    a, b = (np.array([side[key] for key in keys], np.float64) for side in (first, second))
    if len(keys) < 2 or not np.isfinite(a - b).all():
        return math.nan, len(keys)
    if np.ptp(a - b) == 0:
        return (0.0 if abs(a[0] - b[0]) < margin else 1.0), len(keys)
    return float(ttost_paired(a, b, -margin, margin)[0]), len(keys)
