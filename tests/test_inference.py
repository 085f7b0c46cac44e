"""Each statistic of a table against a case worked out by hand, or from its definition by another route."""

import math

import numpy as np
import pytest
import scipy.stats

from analysis.inference import (
    BOOTSTRAP_COVERAGE,
    BOOTSTRAP_LEAST,
    Paired,
    Summary,
    binomial_floor,
    frontier,
    holm,
    paired,
    power_law,
    summary,
    t_factor,
    trend,
)

T_2 = 0.95 / math.sqrt(2 * 0.975 * 0.025)  # quantile 0.975 of Student's t with 2 degrees of freedom, in closed form
T_3 = 3.182446305284263  # with 3: printed tables
Z = 1.959963984540054
COVERAGE_ERROR = 2.5  # % of 4,000 samples: three standard errors are 2.4 at 50 %


def test_a_summary_of_three_seeds() -> None:
    found = summary([0.5, 0.6, 0.7])
    half = T_2 * 0.1 / math.sqrt(3)
    expected = Summary(3, 0.6, 0.1, 0.6 - half, 0.6 + half, 0.5, 0.6, 0.7)
    assert list(vars(found).values()) == pytest.approx(list(vars(expected).values()), rel=1e-12)


def test_one_seed_has_neither_spread_nor_interval() -> None:
    found = summary([0.5])
    assert (found.n, found.mean, found.least, found.median, found.most) == (1, 0.5, 0.5, 0.5, 0.5)
    assert math.isnan(found.std) and math.isnan(found.low) and math.isnan(found.high)


@pytest.mark.parametrize("values", [[], [0.5, math.nan], [math.inf, 1.0]])
def test_nothing_and_what_is_no_number_have_no_statistics(values: list[float]) -> None:
    found = summary(values)
    assert found.n == len(values) and all(math.isnan(value) for value in list(vars(found).values())[1:])


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert (summary([0.25] * 3).low, summary([0.25] * 3).high, summary([0.25] * 3).std) == (0.25, 0.25, 0.0)


def test_a_bootstrap_interval_is_that_of_resampled_means_and_the_same_each_time() -> None:
    values = list(np.random.default_rng(3).normal(0.8, 0.1, 40))
    found = summary(values, "bootstrap")
    assert found == summary(values, "bootstrap")
    means = np.random.default_rng(1).choice(values, (20_000, 40)).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])  # percentiles, which BCa is near for a symmetric sample
    assert found.low == pytest.approx(low, abs=0.005) and found.high == pytest.approx(high, abs=0.005)
    assert found.high - found.low == pytest.approx(2 * Z * np.std(values) / math.sqrt(40), rel=0.1)


def covered(n: int) -> float:
    """The share of samples of a normal distribution of mean 0 whose bootstrap interval holds 0, in %."""
    samples = np.random.default_rng(n).normal(size=(4000, n))
    found = scipy.stats.bootstrap((samples,), np.mean, n_resamples=999, axis=1, vectorized=True, rng=0)
    low, high = found.confidence_interval
    return 100 * float(((low <= 0) & (high >= 0)).mean())


@pytest.mark.parametrize("n", range(2, BOOTSTRAP_LEAST))
def test_a_bootstrap_of_few_values_is_refused_since_it_does_not_cover(n: int) -> None:
    assert covered(n) == pytest.approx(BOOTSTRAP_COVERAGE[n], abs=COVERAGE_ERROR)
    x = np.random.default_rng(n).normal(size=n)
    found, of_pairs = summary(x, "bootstrap"), paired(dict(enumerate(x)), dict(enumerate(2 * x)), "bootstrap")
    assert math.isnan(found.low) and math.isnan(found.high) and math.isnan(of_pairs.low) and math.isnan(of_pairs.high)
    assert found.std == summary(x).std and of_pairs.p == paired(dict(enumerate(x)), dict(enumerate(2 * x))).p
    assert math.isnan(summary([0.5] * n, "bootstrap").low)


def test_a_bootstrap_of_ten_values_or_more_is_given() -> None:
    x = np.random.default_rng(3).normal(size=BOOTSTRAP_LEAST)
    assert set(BOOTSTRAP_COVERAGE) == set(range(2, BOOTSTRAP_LEAST)) and not math.isnan(summary(x, "bootstrap").low)


def test_students_factor_of_one_degree_of_freedom_is_that_of_cauchy() -> None:
    assert t_factor(1) == pytest.approx(math.tan(math.pi * 0.475)) and t_factor(2) == pytest.approx(T_2)
    assert t_factor(10**7) == pytest.approx(Z, rel=1e-6)


def test_differences_are_paired_by_their_key() -> None:
    first, second = {0: 0.5, 1: 0.6, 2: 0.7, 9: 0.1}, {2: 0.75, 1: 0.62, 0: 0.51, 7: 0.9}
    d = [0.01, 0.02, 0.05]
    mean, std = sum(d) / 3, math.sqrt(sum((x - sum(d) / 3) ** 2 for x in d) / 2)
    half, t = T_2 * std / math.sqrt(3), mean / (std / math.sqrt(3))
    p = 1 - t / math.sqrt(2 + t * t)  # of Student's t with 2 degrees of freedom, in closed form
    found = paired(first, second)
    expected = Paired(3, mean, mean - half, mean + half, mean / std, p)
    assert list(vars(found).values()) == pytest.approx(list(vars(expected).values()), rel=1e-9)


@pytest.mark.parametrize(
    ("first", "second", "n", "difference"),
    [
        ({}, {0: 1.0}, 0, math.nan),
        ({0: 0.5}, {0: 0.75}, 1, 0.25),
        ({0: 0.5, 1: math.nan}, {0: 0.75, 1: 0.5}, 2, math.nan),
        ({0: 0.1, 1: 0.2}, {0: 0.4, 1: 0.5}, 2, 0.3),
        ({0: 0.1, 1: 0.2}, {0: 0.1, 1: 0.2}, 2, 0.0),
    ],
)
def test_without_spread_or_pairs_nothing_is_tested(first: dict, second: dict, n: int, difference: float) -> None:
    found = paired(first, second)
    assert found.n == n and found.difference == pytest.approx(difference, nan_ok=True)
    assert all(math.isnan(value) for value in (found.low, found.high, found.effect_size, found.p))


def test_holm_multiplies_by_the_number_of_tests_that_are_left_and_never_falls() -> None:
    # sorted: 0.01 * 3, 0.02 * 2 = 0.04, 0.03 * 1 raised to 0.04
    assert holm([0.03, math.nan, 0.01, 0.02]) == pytest.approx([0.04, math.nan, 0.03, 0.04], nan_ok=True)
    assert holm([0.6, 0.7]) == [1.0, 1.0] and all(map(math.isnan, holm([math.nan]))) and holm([]) == []


def test_the_binomial_floor_is_half_of_wilsons_interval() -> None:
    p, n = 0.9, 1000
    half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    assert binomial_floor(p, n) == pytest.approx(half, rel=1e-9)
    assert 0.018 < binomial_floor(p, n) < 0.0187  # about 1.96 standard errors
    assert math.isnan(binomial_floor(math.nan, n)) and math.isnan(binomial_floor(p, 0))


def test_a_trend_is_a_line_by_least_squares() -> None:
    found = trend([1, 2, 3, 4, 5], [2, 4, 5, 4, 5])
    assert found is not None  # a printed textbook case: y = 2.2 + 0.6 x, standard error of the slope 0.28284
    assert (found.slope, found.intercept) == pytest.approx((0.6, 2.2))
    assert (found.low, found.high) == pytest.approx((0.6 - T_3 * 0.282843, 0.6 + T_3 * 0.282843), rel=1e-5)
    assert found.spearman == pytest.approx(0.7378648)
    two = trend([1, 2, 3], [1, 3, math.nan])
    assert two is not None and (two.n, two.slope) == (2, 2.0) and math.isnan(two.low)
    assert trend([1, 1], [1, 2]) is None and trend([1], [1]) is None


def test_a_power_law_finds_its_exponent() -> None:
    sizes = [100, 300, 1000, 3000]
    found = power_law(sizes, [0.8 * size**-0.35 for size in sizes])
    assert found is not None and found.slope == pytest.approx(-0.35) and math.exp(found.intercept) == pytest.approx(0.8)
    noisy = power_law(sizes, [0.4, 0.3, 0.21, 0.17])
    x, y = np.log(sizes), np.log([0.4, 0.3, 0.21, 0.17])
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    residual = y - y.mean() - slope * (x - x.mean())
    error = math.sqrt((residual**2).sum() / 2 / ((x - x.mean()) ** 2).sum())
    assert noisy is not None
    assert (noisy.slope, noisy.low, noisy.high) == pytest.approx((slope, slope - T_2 * error, slope + T_2 * error))
    assert power_law([100, 0, 300], [0.5, 0.1, 0.0]) is None  # one point is left


def test_the_frontier_holds_what_nothing_cheaper_beats() -> None:
    cost, value = [3.0, 1.0, 2.0, 2.0, 4.0, 1.0, math.nan], [0.7, 0.5, 0.7, 0.6, 0.9, 0.4, 1.0]
    assert frontier(cost, value) == [1, 2, 4]
