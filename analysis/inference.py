"""The statistics of a table, by SciPy and statsmodels: of one cell, of paired ones, of a trend."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from analysis.variance import MeanSquares

LEVEL = 0.95  # of every interval
ALPHA = 0.05  # of every test, after Holm's correction
BOOTSTRAP_SAMPLES = 9999
BOOTSTRAP_LEAST = 10  # values, below which a bootstrap interval is refused
# How often it would cover the mean of normal values, in %, in place of 95: simulated in tests/test_inference.py
BOOTSTRAP_COVERAGE = {2: 50, 3: 73, 4: 80, 5: 84, 6: 86, 7: 87, 8: 88, 9: 89, 10: 90}
ROUNDING = 1e-12  # of differences between fractions of a test set
LEAST_P = 1e-16  # a smaller one is 0
NAN = math.nan


@dataclass(frozen=True)
class Summary:
    """Statistics of a metric over the seeds of a cell; NaN where n is too small, and everywhere if any value is NaN."""

    n: int
    mean: float = NAN
    std: float = NAN  # n - 1 in the denominator
    low: float = NAN  # of the interval of the mean
    high: float = NAN
    least: float = NAN
    median: float = NAN
    most: float = NAN


@dataclass(frozen=True)
class Paired:
    """The mean of differences over pairs; NaN where there are too few pairs, or a NaN among them."""

    n: int  # pairs, one for each seed
    difference: float = NAN
    low: float = NAN  # of its interval
    high: float = NAN
    effect_size: float = NAN  # Cohen's d_z: the mean difference over the standard deviation of the differences
    p: float = NAN  # two-sided, of the test that the interval belongs to
    level: float = LEVEL  # of the interval
    num_examples: int = 0  # that the interval is over too; 0: over seeds alone
    error: float = NAN  # standard error of the difference
    seeds_share: float = 1.0  # of its square, that the seeds bring; the rest is due to the examples

    def at(self, level: float) -> "Paired":
        """The same with the interval of another level, which leaves out 0 exactly where p is below 1 - level."""
        half = self.factor(1 - level) * self.error
        return replace(self, low=self.difference - half, high=self.difference + half, level=level)

    def factor(self, alpha: float) -> float:
        """Standard errors from the difference to each end of the interval of level 1 - alpha.

        Source: Cochran and Cox 1957, Experimental Designs, section 4.14: Student's factors of both parts of the
        variance, weighted by them. With the degrees of freedom of Satterthwaite, as in Hillis 2007, the test of three
        seeds would find up to 7.9 % in place of 5 % where there is nothing to find; see tests/test_inference.py.
        """
        from scipy.special import stdtrit

        shares = ((self.seeds_share, self.n - 1), (1 - self.seeds_share, self.num_examples - 1))
        return -float(sum(share * stdtrit(freedom, alpha / 2) for share, freedom in shares if share))


@dataclass(frozen=True)
class Trend:
    """A straight line through points, by least squares."""

    n: int
    slope: float
    low: float  # of the slope's interval; NaN for two points
    high: float
    intercept: float
    spearman: float  # rank correlation


def summary(values: "Sequence[float] | np.ndarray[Any, Any]", interval: str = "t") -> Summary:
    """Summarise values, each of one seed.

    Args: interval: t, Student's; bootstrap, bias-corrected and accelerated, of 9,999 samples, from n = 10 on.
    """
    x = np.asarray(values, np.float64)
    if not len(x) or not np.isfinite(x).all():
        return Summary(len(x))
    if not np.ptp(x):  # whose mean rounding would move
        same = float(x[0])
        ends = (same, same) if len(x) > 1 and not is_refused(len(x), interval) else (NAN, NAN)
        return Summary(len(x), same, 0.0 if len(x) > 1 else NAN, *ends, same, same, same)
    std, mean = float(x.std(ddof=1)), float(x.mean())
    low, high = _interval(x, std, interval)
    return Summary(len(x), mean, std, low, high, float(x.min()), float(np.median(x)), float(x.max()))


def is_refused(n: int, interval: str) -> bool:
    """Tell whether n is too small for this kind of interval, which would cover the mean less often than it claims."""
    return interval == "bootstrap" and n < BOOTSTRAP_LEAST


@cache
def t_factor(degrees_of_freedom: int) -> float:
    """Standard errors from the estimate to each end of Student's interval: 12.7 for one degree, 1.96 for very many."""
    from scipy.special import stdtrit  # of scipy.stats.t, whose checks take longer than a cell of a table

    return float(stdtrit(degrees_of_freedom, (1 + LEVEL) / 2))


def _interval(x: "np.ndarray[Any, Any]", std: float, interval: str) -> tuple[float, float]:
    if is_refused(len(x), interval):
        return NAN, NAN
    if interval == "bootstrap":
        from scipy import stats

        bootstrap = stats.bootstrap((x,), np.mean, n_resamples=BOOTSTRAP_SAMPLES, confidence_level=LEVEL, rng=0)
        return float(bootstrap.confidence_interval.low), float(bootstrap.confidence_interval.high)
    mean, half = float(x.mean()), t_factor(len(x) - 1) * (std / math.sqrt(len(x)))
    return mean - half, mean + half


def paired(first: Mapping[Any, float], second: Mapping[Any, float]) -> Paired:
    """The paired t-test of second minus first over the keys, such as seeds, that both have.

    Where all differences are the same there is no spread to estimate anything from: no interval and no p.
    """
    a, b = in_common(first, second)
    d = b - a
    if not len(d) or not np.isfinite(d).all():
        return Paired(len(d))
    mean = float(d.mean())
    if len(d) == 1 or np.ptp(d) <= ROUNDING:
        return Paired(len(d), mean)
    std = float(d.std(ddof=1))
    return _tested(Paired(len(d), mean, effect_size=mean / std, error=std / math.sqrt(len(d))))


def crossed(d: "np.ndarray[Any, Any]") -> Paired:
    """The test of a mean difference over seeds and examples, both drawn from many, by crossed random effects.

    The variance of the mean is that of a two-way layout without replication. Of one seed it is that over the examples
    alone. Where there is no spread, or all seeds give the same difference, there is no interval and no p, as in
    `paired`: of a spread over seeds that came out as none, the factor would be that of no uncertainty about it.

    Args:   d: differences of one example each at one seed, (seeds, examples), such as those of correctness.
    Source: Hillis 2007, "A comparison of denominator degrees of freedom methods for multiple observer ROC analysis":
            its variance; the degrees of freedom: Paired.factor.
    """
    n, num = d.shape
    if not d.size or not np.isfinite(d).all():
        return Paired(n, num_examples=num)
    mean, squares = float(d.mean()), MeanSquares.of(d)
    by_example = max(squares.examples - squares.rest, 0.0)
    error = math.sqrt((squares.seeds + by_example) / (n * num))
    std = float(d.mean(1).std(ddof=1)) if n > 1 else 0.0
    effect = mean / std if std > ROUNDING else NAN
    found = Paired(n, mean, effect_size=effect, num_examples=num)
    if error <= ROUNDING or (n > 1 and std <= ROUNDING):
        return found
    return _tested(replace(found, error=error, seeds_share=squares.seeds / (squares.seeds + by_example)))


def _tested(found: Paired) -> Paired:
    """Add interval and p to a difference and its error."""
    from scipy.optimize import brentq

    t = abs(found.difference) / found.error
    if found.factor(LEAST_P) <= t:
        return replace(found.at(LEVEL), p=0.0)
    p = brentq(lambda log: found.factor(math.exp(log)) - t, math.log(LEAST_P), 0.0, xtol=1e-13, rtol=1e-13)
    return replace(found.at(LEVEL), p=min(math.exp(float(p)), 1.0))


def in_common(first: Mapping[Any, float], second: Mapping[Any, float]) -> tuple["np.ndarray[Any, Any]", ...]:
    """The values of both at the keys that both have, in the same order."""
    keys = [key for key in first if key in second]
    return tuple(np.array([side[key] for key in keys], np.float64) for side in (first, second))


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for their number by Holm's method; NaN stays, and does not count.

    The numbers of statsmodels.stats.multitest.multipletests, which collects garbage at each call: half a second beside
    10,000 trials.
    """
    raw = np.asarray(p, np.float64)
    tested = np.flatnonzero(np.isfinite(raw))
    order = tested[np.argsort(raw[tested])]
    corrected = np.full(len(raw), NAN)
    corrected[order] = np.minimum(np.maximum.accumulate(raw[order] * np.arange(len(order), 0, -1)), 1.0)
    return [float(value) for value in corrected]


def holm_levels(p: Sequence[float]) -> list[float]:
    """The level of an interval that leaves out 0 exactly where Holm's method rejects, for each p-value.

    Each has the level of its own step, 1 - 0.05 / m for the smallest of m, 1 - 0.05 / (m - 1) for the next, and so on
    while they are rejected; those that are not have the level of the first that is not. NaN has that of one test.
    """
    order = sorted((value, place) for place, value in enumerate(p) if math.isfinite(value))
    levels, left = [LEVEL] * len(p), len(order)
    for value, place in order:
        levels[place] = 1 - ALPHA / left
        left -= value < ALPHA / left
    return levels


def trend(x: Sequence[float], y: Sequence[float]) -> Trend | None:
    """The straight line of y over x; None with fewer than two values of x that are numbers.

    Source: scipy.stats.linregress, scipy.stats.spearmanr.
    """
    from scipy import stats

    points = np.array([(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)], np.float64)
    if len(points) < 2 or not np.ptp(points[:, 0]):
        return None
    line = stats.linregress(points[:, 0], points[:, 1])
    half = t_factor(len(points) - 2) * float(line.stderr) if len(points) > 2 else NAN
    ranks = float(stats.spearmanr(points[:, 0], points[:, 1]).statistic) if np.ptp(points[:, 1]) else NAN
    slope = float(line.slope)
    return Trend(len(points), slope, slope - half, slope + half, float(line.intercept), ranks)


def power_law(size: Sequence[float], error: Sequence[float]) -> Trend | None:
    """Fit error = exp(intercept) * size ** slope by least squares on logarithms; None with fewer than two sizes.

    Points of size or error zero, which have no logarithm, are left out.
    """
    pairs = [(math.log(a), math.log(b)) for a, b in zip(size, error, strict=True) if a > 0 and b > 0]
    return trend([a for a, _ in pairs], [b for _, b in pairs])


def frontier(cost: Sequence[float], value: Sequence[float]) -> list[int]:
    """Places of the points that no other one beats: none costs less, or the same, and is better. By rising cost."""
    order = sorted((i for i in range(len(cost)) if math.isfinite(cost[i]) and math.isfinite(value[i])),
                   key=lambda i: (cost[i], -value[i]))  # fmt: skip
    front: list[int] = []
    for i in order:
        if not front or value[i] > value[front[-1]]:
            front.append(i)
    return front
