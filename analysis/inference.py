"""The statistics of a table, by SciPy and statsmodels: of one cell, of paired ones, of equal ones, of a trend."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVEL = 0.95  # of every interval
ALPHA = 0.05  # of every test, after Holm's correction
BOOTSTRAP_SAMPLES = 9999
BOOTSTRAP_LEAST = 10  # values, below which a bootstrap interval is refused
# How often it would cover the mean of normal values, in %, in place of 95: simulated in tests/test_inference.py
BOOTSTRAP_COVERAGE = {2: 50, 3: 73, 4: 80, 5: 84, 6: 86, 7: 87, 8: 88, 9: 89}
ROUNDING = 1e-12  # of differences between fractions of a test set
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

    n: int
    difference: float = NAN
    low: float = NAN  # of its interval
    high: float = NAN
    effect_size: float = NAN  # Cohen's d_z: the mean difference over the standard deviation of the differences
    p: float = NAN  # of the two-sided paired t-test


@dataclass(frozen=True)
class Equivalence:
    """A test that two settings are equal within a margin, over pairs such as equal seeds."""

    n: int  # pairs
    p: float = NAN  # small: the mean difference lies within (-margin, margin)
    kind: str = ""  # where all differences are the same: same (none), within or differ, which p of 0 and 1 say too


@dataclass(frozen=True)
class Trend:
    """A straight line through points, by least squares."""

    n: int
    slope: float
    low: float  # of the slope's interval; NaN for two points
    high: float
    intercept: float
    spearman: float  # rank correlation


def summary(values: Sequence[float], interval: str = "t") -> Summary:
    """Summarise values, each of one seed.

    Args: interval: t, Student's; bootstrap, bias-corrected and accelerated, of 9,999 samples, from n = 10 on.
    """
    from scipy import stats

    x = np.asarray(values, np.float64)
    if not len(x) or not np.isfinite(x).all():
        return Summary(len(x))
    if not np.ptp(x):  # whose mean rounding would move
        same = float(x[0])
        ends = (same, same) if len(x) > 1 and not is_refused(len(x), interval) else (NAN, NAN)
        return Summary(len(x), same, 0.0 if len(x) > 1 else NAN, *ends, same, same, same)
    std, mean = float(x.std(ddof=1)), float(stats.tmean(x))
    low, high = _interval(x, interval)
    return Summary(len(x), mean, std, low, high, float(x.min()), float(np.median(x)), float(x.max()))


def is_refused(n: int, interval: str) -> bool:
    """Tell whether n is too small for this kind of interval, which would cover the mean less often than it claims."""
    return interval == "bootstrap" and n < BOOTSTRAP_LEAST


def t_factor(degrees_of_freedom: int) -> float:
    """Standard errors from the estimate to each end of Student's interval: 12.7 for one degree, 1.96 for very many."""
    from scipy import stats

    return float(stats.t.ppf((1 + LEVEL) / 2, degrees_of_freedom))


def _interval(x: "np.ndarray[Any, Any]", interval: str) -> tuple[float, float]:
    from scipy import stats

    if is_refused(len(x), interval):
        return NAN, NAN
    if interval == "bootstrap":
        bootstrap = stats.bootstrap((x,), np.mean, n_resamples=BOOTSTRAP_SAMPLES, confidence_level=LEVEL, rng=0)
        return float(bootstrap.confidence_interval.low), float(bootstrap.confidence_interval.high)
    low, high = stats.t.interval(LEVEL, len(x) - 1, loc=x.mean(), scale=stats.sem(x))
    return float(low), float(high)


def paired(first: Mapping[Any, float], second: Mapping[Any, float], interval: str = "t") -> Paired:
    """The paired t-test of second minus first over the keys, such as seeds, that both have.

    Where all differences are the same there is no spread to estimate anything from: no interval and no p.

    Args:   interval: as of `summary`; the test is the t-test in any case.
    Source: scipy.stats.ttest_rel.
    """
    from scipy import stats

    a, b = _in_common(first, second)
    d = b - a
    if not len(d) or not np.isfinite(d).all():
        return Paired(len(d))
    mean = float(d.mean())
    if len(d) == 1 or np.ptp(d) <= ROUNDING:
        return Paired(len(d), mean)
    test = stats.ttest_rel(b, a)
    low, high = _interval(d, interval)
    return Paired(len(d), mean, low, high, mean / float(d.std(ddof=1)), float(test.pvalue))


def _in_common(first: Mapping[Any, float], second: Mapping[Any, float]) -> tuple["np.ndarray[Any, Any]", ...]:
    """The values of both at the keys that both have, in the same order."""
    keys = [key for key in first if key in second]
    return tuple(np.array([side[key] for key in keys], np.float64) for side in (first, second))


def equivalence(first: Mapping[Any, float], second: Mapping[Any, float], margin: float) -> Equivalence:
    """Test equivalence by two one-sided t-tests over the keys that both have.

    With fewer than two of them, or a NaN among them, p is NaN. Where all differences are the same there is nothing to
    estimate: p is 0 inside the margin and 1 outside.

    Source: statsmodels.stats.weightstats.ttost_paired (Schuirmann 1987).
    """
    from statsmodels.stats.weightstats import ttost_paired

    a, b = _in_common(first, second)
    if len(a) < 2 or not np.isfinite(a - b).all():
        return Equivalence(len(a))
    if np.ptp(a - b) <= ROUNDING:
        apart = abs(float(a[0] - b[0]))
        kind = "same" if apart <= ROUNDING else "within" if apart < margin else "differ"
        return Equivalence(len(a), 1.0 if kind == "differ" else 0.0, kind)
    return Equivalence(len(a), float(ttost_paired(a, b, -margin, margin)[0]))


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for their number by Holm's method; NaN stays, and does not count.

    Source: statsmodels.stats.multitest.multipletests.
    """
    from statsmodels.stats.multitest import multipletests

    raw = np.asarray(p, np.float64)
    finite = np.isfinite(raw)
    corrected = np.full(len(raw), NAN)
    if finite.any():
        corrected[finite] = multipletests(raw[finite], ALPHA, method="holm")[1]
    return [float(value) for value in corrected]


def binomial_floor(accuracy: float, num_examples: int) -> float:
    """Half the width of Wilson's interval of an accuracy on so many test examples: what their number alone leaves open.

    Source: statsmodels.stats.proportion.proportion_confint.
    """
    from statsmodels.stats.proportion import proportion_confint

    if not math.isfinite(accuracy) or num_examples < 1:
        return NAN
    low, high = proportion_confint(accuracy * num_examples, num_examples, 1 - LEVEL, method="wilson")
    return float(high - low) / 2


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
