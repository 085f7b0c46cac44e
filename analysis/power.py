"""What n seeds can show: power of the two-sided t-test of a mean difference, and what follows from it.

The model is that of the tests in inference.py. A setting differs from its baseline by one number at each seed (its
frameworks averaged); those differences scatter with standard deviation `sd`, so that the mean of n of them has the
standard error sd / sqrt(n) and n - 1 degrees of freedom. Where the test examples count as a sample too, their part of
the error stays whatever the number of seeds; see `Error.of`.

A difference is shown if its interval of the asked level leaves out zero. `level` is 0.95 for one difference, and
1 - 0.05 / m (`first_step`) for the smallest p of m, which Holm's procedure tests first.
"""

import math
from dataclasses import dataclass

from analysis.inference import ALPHA

NAN = math.nan
POWER = 0.8  # how often a difference is to be shown, where nothing else is asked
MOST_SEEDS = 1_000_000  # beyond which `seeds_for` gives up


@dataclass(frozen=True)
class Error:
    """The standard error of a mean difference, and its degrees of freedom; NaN and 0 from fewer than two seeds."""

    se: float
    df: float

    @classmethod
    def of(cls, n: int, sd: float, examples: float = 0.0) -> "Error":
        """The error over n seeds.

        Args:   sd: standard deviation over seeds of the difference.
                examples: the part of the standard error that the test examples leave: the standard deviation over
                examples of their own mean difference, over the root of their number. More seeds do not lessen it.
        Source: Hillis 2007, for the degrees of freedom: (MS_R + c)^2 / (MS_R^2 / (n - 1)), here with MS_R = sd^2 and
                c = n * examples^2, both over the number of examples.
        """
        if n < 2:
            return cls(NAN, 0)
        seeds, fixed = sd**2 / n, examples**2
        if not seeds:
            return cls(examples, math.inf if examples else n - 1)
        return cls(math.sqrt(seeds + fixed), (n - 1) * (1 + fixed / seeds) ** 2)


def first_step(num_settings: int) -> float:
    """The level of Holm's first step over so many compared settings: 95 % for one, 97.5 % for two."""
    return 1 - ALPHA / max(1, num_settings)


def power(difference: float, se: float, df: float, level: float) -> float:
    """How often a two-sided t-test shows a true difference, in [0, 1]; NaN without an error to test against.

    Source: scipy.stats.nct. Its lower tail is NaN where it is tiny, as it is with two degrees of freedom, and so is
            statsmodels' power; the upper tail of the mirrored distribution is the same number, and is not.
    """
    from scipy import stats

    if not (se >= 0 and df > 0 and math.isfinite(difference)):
        return NAN
    if not se:
        return 1.0 if difference else 0.0
    shift = abs(difference) / se
    if math.isinf(df):
        limit = float(stats.norm.isf((1 - level) / 2))
        return float(stats.norm.sf(limit - shift) + stats.norm.sf(limit + shift))
    limit = float(stats.t.isf((1 - level) / 2, df))
    return float(stats.nct.sf(limit, df, shift) + stats.nct.sf(limit, df, -shift))


def detectable(se: float, df: float, level: float, power: float = POWER) -> float:
    """The smallest true difference that a two-sided t-test shows so often; in the unit of `se`; NaN without an error.

    Args: level: of the interval that leaves out zero.    power: how often, above 1 - level.
    """
    from scipy import optimize

    if not (se >= 0 and df > 0):
        return NAN
    if not se:
        return 0.0
    most = 1.0
    while _above(most, df, level, power) < 0:
        most *= 2
    return se * float(optimize.brentq(_above, 0.0, most, args=(df, level, power)))


def _above(shift: float, df: float, level: float, asked: float) -> float:
    """By how much a difference of so many standard errors exceeds the asked power."""
    return power(shift, 1.0, df, level) - asked


def detectable_over(n: int, sd: float, level: float, examples: float = 0.0) -> float:
    """The smallest difference that n seeds show with 80 % power; NaN with fewer than two. Args: as of `Error.of`."""
    error = Error.of(n, sd, examples)
    return detectable(error.se, error.df, level)


def seeds_for(difference: float, sd: float, level: float, examples: float = 0.0, power: float = POWER) -> int | None:
    """The fewest seeds, at least two, that show a difference with this power; None if a million would not.

    Args: sd, examples: as of `Error.of`.
    """

    def is_enough(n: int) -> bool:
        return _power_over(n, difference, sd, level, examples) >= power

    most = 2
    while not is_enough(most):
        most *= 2
        if most > MOST_SEEDS:
            return None
    least = max(2, most // 2)
    while least < most:
        middle = (least + most) // 2
        least, most = (least, middle) if is_enough(middle) else (middle + 1, most)
    return most


def _power_over(n: int, difference: float, sd: float, level: float, examples: float) -> float:
    error = Error.of(n, sd, examples)
    return power(difference, error.se, error.df, level)
