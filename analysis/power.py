"""What n seeds can show: power of the two-sided test of a mean difference, and what follows from it.

The model is that of the tests in inference.py. A setting differs from its baseline by one number at each seed (its
frameworks averaged); those differences scatter with standard deviation `sd`, so that the mean of n of them has the
standard error sd / sqrt(n) and n - 1 degrees of freedom. Where the test examples count as a sample too, their part of
the error stays whatever the number of seeds; they are so many that it counts as known; see `Error.of`.

A difference is shown if its interval of the asked level leaves out zero. `level` is 0.95 for one difference, and
1 - 0.05 / m (`first_step`) for the smallest p of m, which Holm's procedure tests first.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from analysis.inference import ALPHA

NAN = math.nan
POWER = 0.8  # how often a difference is to be shown, where nothing else is asked
NODES = 400  # of the integral over what the estimate of a variance may be
MOST_SEEDS = 1_000_000  # beyond which `seeds_for` gives up


@dataclass(frozen=True)
class Error:
    """The standard error of a mean difference, and its degrees of freedom; NaN and 0 from fewer than two seeds."""

    se: float
    df: float  # of the part that the seeds bring
    share: float = 1.0  # of the squared error, that the seeds bring

    @classmethod
    def of(cls, n: int, sd: float, examples: float = 0.0) -> "Error":
        """The error over n seeds.

        Args:   sd: standard deviation over seeds of the difference.
                examples: the part of the standard error that the test examples leave: the standard deviation over
                examples of their own mean difference, over the root of their number. More seeds do not lessen it.
        """
        if n < 2:
            return cls(NAN, 0)
        seeds, fixed = sd**2 / n, examples**2
        return cls(math.sqrt(seeds + fixed), n - 1, seeds / (seeds + fixed) if seeds or fixed else 1.0)


def first_step(num_settings: int) -> float:
    """The level of Holm's first step over so many compared settings: 95 % for one, 97.5 % for two."""
    return 1 - ALPHA / max(1, num_settings)


def power(difference: float, se: float, df: float, level: float, share: float = 1.0) -> float:
    """How often the test shows a true difference, in [0, 1]; NaN without an error to test against.

    Args:   share: of the squared error, that is estimated with `df` degrees of freedom; the rest is known.
    Source: scipy.stats.nct. Its lower tail is NaN where it is tiny, as it is with two degrees of freedom, and so is
            statsmodels' power; the upper tail of the mirrored distribution is the same number, and is not.
    """
    from scipy import stats

    if not (se >= 0 and df > 0 and math.isfinite(difference)):
        return NAN
    if not se:
        return 1.0 if difference else 0.0
    shift = abs(difference) / se
    if math.isinf(df) or not share:
        limit = float(stats.norm.isf((1 - level) / 2))
        return float(stats.norm.sf(limit - shift) + stats.norm.sf(limit + shift))
    if share < 1:
        return _mixed(shift, df, level, share)
    limit = float(stats.t.isf((1 - level) / 2, df))
    return float(stats.nct.sf(limit, df, shift) + stats.nct.sf(limit, df, -shift))


def _mixed(shift: float, df: float, level: float, share: float) -> float:
    """The power over what the estimate of the seeds' part may be, with the factors of inference.Paired.factor."""
    from scipy import special

    estimates, weights = _estimates(df)
    seeds, known = share * estimates, 1 - share
    tail = (1 - level) / 2
    limit = -(seeds * special.stdtrit(df, tail) + known * special.ndtri(tail)) / np.sqrt(seeds + known)
    return float(weights @ (special.ndtr(shift - limit) + special.ndtr(-shift - limit)))


@cache
def _estimates(df: float) -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
    """Quantiles of a variance's estimate over the variance, and their weights."""
    from scipy import special

    places, weights = np.polynomial.legendre.leggauss(NODES)
    return special.chdtri(df, 1 - (places + 1) / 2) / df, weights / 2


def detectable(se: float, df: float, level: float, power: float = POWER, share: float = 1.0) -> float:
    """The smallest true difference that the test shows so often; in the unit of `se`; NaN without an error.

    Args: level: of the interval that leaves out zero.    power: how often, above 1 - level.    share: as of `power`.
    """
    from scipy import optimize

    if not (se >= 0 and df > 0):
        return NAN
    if not se:
        return 0.0
    most = 1.0
    while _above(most, df, level, power, share) < 0:
        most *= 2
    return se * float(optimize.brentq(_above, 0.0, most, args=(df, level, power, share)))


def _above(shift: float, df: float, level: float, asked: float, share: float) -> float:
    """By how much a difference of so many standard errors exceeds the asked power."""
    return power(shift, 1.0, df, level, share) - asked


def detectable_over(n: int, sd: float, level: float, examples: float = 0.0) -> float:
    """The smallest difference that n seeds show with 80 % power; NaN with fewer than two. Args: as of `Error.of`."""
    error = Error.of(n, sd, examples)
    return detectable(error.se, error.df, level, share=error.share)


def seeds_for(difference: float, sd: float, level: float, examples: float = 0.0, power: float = POWER) -> int | None:
    """The fewest seeds, at least two, that show a difference with this power; None if a million would not.

    Args: sd, examples: as of `Error.of`.
    """

    def is_enough(n: int) -> bool:
        return _power_over(n, difference, sd, level, examples) >= power

    most = 2
    while not is_enough(most):
        if most == MOST_SEEDS:
            return None
        most = min(2 * most, MOST_SEEDS)
    least = max(2, most // 2)
    while least < most:
        middle = (least + most) // 2
        least, most = (least, middle) if is_enough(middle) else (middle + 1, most)
    return most


def _power_over(n: int, difference: float, sd: float, level: float, examples: float) -> float:
    error = Error.of(n, sd, examples)
    return power(difference, error.se, error.df, level, error.share)
