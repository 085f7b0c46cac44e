"""A test that two settings are equal within a margin."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.inference import NAN, ROUNDING, in_common


@dataclass(frozen=True)
class Equivalence:
    """A test that two settings are equal within a margin, over pairs such as equal seeds."""

    n: int  # pairs
    largest: float = NAN  # of the absolute differences of the pairs
    p: float = NAN  # small: the mean difference lies within (-margin, margin)
    kind: str = ""  # where all differences are the same: same (none), within or differ, which p of 0 and 1 say too


def equivalence(first: Mapping[Any, float], second: Mapping[Any, float], margin: float) -> Equivalence:
    """Test equivalence by two one-sided t-tests over the keys that both have.

    With fewer than two of them, or a NaN among them, p is NaN. Where all differences are the same there is nothing to
    estimate: p is 0 inside the margin and 1 outside. Where all but a few are 0 p means little: see the largest.

    Source: statsmodels.stats.weightstats.ttost_paired (Schuirmann 1987).
    """
    from statsmodels.stats.weightstats import ttost_paired

    a, b = in_common(first, second)
    if len(a) < 2 or not np.isfinite(a - b).all():
        return Equivalence(len(a))
    largest = float(np.abs(a - b).max())
    if np.ptp(a - b) <= ROUNDING:
        apart = abs(float(a[0] - b[0]))
        kind = "same" if apart <= ROUNDING else "within" if apart < margin else "differ"
        return Equivalence(len(a), largest, 1.0 if kind == "differ" else 0.0, kind)
    return Equivalence(len(a), largest, float(ttost_paired(a, b, -margin, margin)[0]))
