"""Each statistic of a table against a case worked out by hand, or from its definition by another route."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests

from analysis.inference import (
    BOOTSTRAP_COVERAGE,
    BOOTSTRAP_LEAST,
    Paired,
    Summary,
    crossed,
    frontier,
    holm,
    holm_levels,
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
    found = summary(x, "bootstrap")
    assert math.isnan(found.low) and math.isnan(found.high) and found.std == summary(x).std
    assert math.isnan(summary([0.5] * n, "bootstrap").low)


def test_a_bootstrap_of_ten_values_or_more_is_given() -> None:
    x = np.random.default_rng(3).normal(size=BOOTSTRAP_LEAST)
    assert covered(BOOTSTRAP_LEAST) == pytest.approx(BOOTSTRAP_COVERAGE[BOOTSTRAP_LEAST], abs=COVERAGE_ERROR)
    assert set(BOOTSTRAP_COVERAGE) == set(range(2, BOOTSTRAP_LEAST + 1)) and not math.isnan(summary(x, "bootstrap").low)


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
    expected = Paired(3, mean, mean - half, mean + half, mean / std, p, error=std / math.sqrt(3))
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
    p = np.random.default_rng(3).uniform(size=40) ** 6
    assert holm([*p, p[0]]) == pytest.approx(multipletests([*p, p[0]], method="holm")[1], rel=1e-15)


# --- seeds and examples -----------------------------------------------------------------------------------------------


def mean_squares(d: np.ndarray) -> tuple[float, float, float]:
    """Of seeds, of examples and of the rest, from the two-way table of statsmodels."""
    seeds, examples = np.indices(d.shape)
    frame = pd.DataFrame({"d": d.ravel(), "seed": seeds.ravel(), "example": examples.ravel()})
    table = anova_lm(ols("d ~ C(seed) + C(example)", frame).fit())
    return tuple(table.loc[name, "mean_sq"] for name in ("C(seed)", "C(example)", "Residual"))


def some_differences(n: int, num: int, between_examples: float = 1.0) -> np.ndarray:
    """Differences of correctness, -1, 0 or 1, of which seeds and examples have a part in common."""
    rng = np.random.default_rng([n, num])
    parts = 0.2 + 0.3 * rng.normal(size=(n, 1)) + between_examples * rng.normal(size=(1, num))
    return np.clip(np.rint(parts + 0.5 * rng.normal(size=(n, num))), -1, 1)


@pytest.mark.parametrize(("n", "num"), [(2, 30), (3, 12), (5, 40)])
def test_crossed_effects_are_those_of_a_two_way_table(n: int, num: int) -> None:
    d = some_differences(n, num)
    seeds, examples, rest = mean_squares(d)
    assert examples > rest  # so that this tests the part of the examples
    found, error = crossed(d), math.sqrt((seeds + examples - rest) / d.size)
    share = seeds / (seeds + examples - rest)
    half = error * (share * scipy.stats.t.ppf(0.975, n - 1) + (1 - share) * scipy.stats.t.ppf(0.975, num - 1))
    expected = (d.mean(), d.mean() - half, d.mean() + half, error, share)
    assert (found.difference, found.low, found.high, found.error, found.seeds_share) == pytest.approx(expected)
    assert (found.n, found.num_examples, found.level) == (n, num, 0.95)
    at_p = found.at(1 - found.p)  # p is the level at which the interval touches 0
    assert min(abs(at_p.low), abs(at_p.high)) == pytest.approx(0, abs=1e-9)


def test_examples_that_vary_no_more_than_the_rest_add_nothing() -> None:
    d = np.random.default_rng(1).choice([-1.0, 0.0, 1.0], size=(4, 30), p=[0.1, 0.4, 0.5])
    seeds, examples, rest = mean_squares(d)
    assert examples < rest
    by_seed = paired(dict.fromkeys(range(4), 0.0), dict(enumerate(d.mean(1))))
    found = crossed(d)
    assert found.error == pytest.approx(math.sqrt(seeds / d.size)) and found.seeds_share == 1
    assert (found.low, found.high, found.p) == pytest.approx((by_seed.low, by_seed.high, by_seed.p))


def test_satterthwaites_degrees_of_freedom_find_too_much_in_three_seeds() -> None:
    """Where seeds bring nine tenths of the variance: why `Paired.factor` has the weighted factors."""
    rng, n, num = np.random.default_rng(2), 20_000, 1000
    seeds, z = 0.9 * rng.chisquare(2, n) / 2, np.abs(rng.normal(size=n))
    error = np.sqrt(seeds + 0.1)
    hillis = scipy.stats.t.ppf(0.975, 2 * (seeds + 0.1) ** 2 / seeds**2)
    own = [Paired(3, num_examples=num, seeds_share=share).factor(0.05) for share in seeds / (seeds + 0.1)]
    assert (z > hillis * error).mean() > 0.07
    assert (z > np.array(own) * error).mean() < 0.05


def test_one_seed_is_tested_over_its_examples_alone() -> None:
    """As McNemar's test is: the t-test of as many differences as there are examples."""
    d = np.abs(some_differences(1, 50))
    found, expected = crossed(d), scipy.stats.ttest_1samp(d[0], 0.0)
    assert (found.n, found.num_examples, found.seeds_share) == (1, 50, 0) and math.isnan(found.effect_size)
    assert found.p == pytest.approx(expected.pvalue) and found.p < 0.05
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))


ALIKE = np.stack([np.repeat([1.0, 0.0], [5, 15]), np.repeat([0.0, 1.0], [15, 5])])  # two seeds of the same mean


@pytest.mark.parametrize(
    "d", [np.zeros((3, 20)), np.ones((1, 20)), np.ones((4, 1)), np.array([[0.5, np.nan]] * 3), ALIKE]
)
def test_differences_without_spread_or_with_a_nan_are_not_tested(d: np.ndarray) -> None:
    found = crossed(d)
    assert found.difference == pytest.approx(d.mean(), nan_ok=True) and (found.n, found.num_examples) == d.shape
    assert all(math.isnan(value) for value in (found.low, found.high, found.p, found.effect_size))


def test_a_difference_far_beyond_its_error_has_a_p_and_an_interval() -> None:
    d = np.ones((5, 1000))
    d[0, 0] = 0
    found = crossed(d)
    assert 0 <= found.p < 1e-12 and found.low > 0.99


def test_interval_and_verdict_are_of_one_procedure() -> None:
    """Over 400 tables of 1 to 6 settings, over seeds, over examples, and over both."""
    rng, found = np.random.default_rng(0), []
    for _ in range(400):
        tests = []
        for _ in range(rng.integers(1, 7)):
            n, shift = int(rng.choice([1, 2, 3, 5])), rng.normal(0, 0.8)
            d = np.clip(np.rint(some_differences(n, 30, rng.uniform(0, 1)) + shift), -1, 1)
            d = np.roll(d, rng.integers(30)) if rng.random() < 0.5 else -d
            tests.append(
                crossed(d) if rng.random() < 0.7 else paired(dict.fromkeys(range(n), 0), dict(enumerate(d.mean(1))))
            )
        p = [one.p for one in tests]
        for one, corrected, level in zip(tests, holm(p), holm_levels(p), strict=True):
            if not math.isnan(one.p):
                leaves_out = one.at(level).low > 0 or one.at(level).high < 0
                assert leaves_out == (corrected < 0.05)
                found.append(leaves_out)
    assert 0.2 < np.mean(found) < 0.8 and len(found) > 800


def test_each_interval_has_the_level_of_its_step_in_holms_procedure() -> None:
    steps = [1 - 0.05 / m for m in (4, 3, 2, 1)]
    assert holm_levels([0.02, math.nan, 0.001, 0.9, 0.012]) == pytest.approx(
        [steps[2], 0.95, steps[0], steps[3], steps[1]]
    )
    assert holm_levels([0.03, 0.04, 0.9]) == pytest.approx([steps[1]] * 3)  # the first is not rejected: 0.03 > 0.05 / 3
    assert holm_levels([0.03]) == [0.95] and holm_levels([]) == []


# --- trends -----------------------------------------------------------------------------------------------------------


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
