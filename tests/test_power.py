"""What n seeds detect: against statsmodels, against closed forms, and against 20,000 simulated studies."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from analysis import power
from analysis.inference import crossed
from analysis.power import MOST_SEEDS, Error, detectable, detectable_over, first_step, seeds_for

STUDIES = 20_000
POWER_ERROR = 0.012  # four standard errors of a share of 0.8 over STUDIES are 0.0113
LEVELS = (0.95, first_step(3), first_step(12))


def _chi_power(shift: float, df: float, level: float) -> float:
    """The same power by another route: the normal test's, averaged over quantiles of the estimated deviation."""
    limit = stats.t.isf((1 - level) / 2, df)
    deviation = np.sqrt(stats.chi2.ppf((np.arange(400_000) + 0.5) / 400_000, df) / df)
    return float((stats.norm.cdf(shift - limit * deviation) + stats.norm.cdf(-shift - limit * deviation)).mean())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("df", [1, 2, 4.7, 9, 200])
def test_power_is_that_of_the_noncentral_t(df: float, level: float) -> None:
    for shift in (0.0, 0.5, 2.0, 6.0, 15.0, 60.0):
        assert power.power(-3 * shift, 3.0, df, level) == pytest.approx(_chi_power(shift, df, level), abs=2e-5)


@pytest.mark.parametrize("n", [3, 5, 10, 40])
def test_a_paired_test_has_the_power_that_statsmodels_gives_it(n: int) -> None:
    for effect in (0.2, 0.5):  # above, its other tail is NaN
        error = Error.of(n, sd=0.4)
        expected = TTestPower().power(effect, n, 0.05)
        assert power.power(0.4 * effect, error.se, error.df, 0.95) == pytest.approx(expected, abs=1e-9)
    effect = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8)
    assert detectable_over(n, 0.4, 0.95) == pytest.approx(0.4 * effect, rel=1e-6)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("df", [1, 2, 4.7, 200, math.inf])
def test_the_detectable_difference_has_the_asked_power(df: float, level: float) -> None:
    for asked in (0.5, 0.8, 0.95):
        found = detectable(0.3, df, level, asked)
        assert power.power(found, 0.3, df, level) == pytest.approx(asked, abs=1e-9)


def test_with_the_error_known_the_detectable_difference_is_that_of_the_normal_test() -> None:
    """With the other tail, about 1e-6, left out: the quantiles of 0.975 and of 0.8."""
    assert detectable(2.0, math.inf, 0.95) == pytest.approx(2 * (1.959963984540054 + 0.8416212335729143), rel=2e-6)


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("level", LEVELS)
def test_simulated_studies_show_the_detectable_difference_as_often_as_promised(n: int, level: float) -> None:
    rng = np.random.default_rng([n, round(1000 * level)])
    draws = rng.normal(detectable_over(n, 0.4, level), 0.4, (STUDIES, n))
    shown = (stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 1 - level).mean()
    assert shown == pytest.approx(0.8, abs=POWER_ERROR)


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("examples", [0.05, 0.15, 0.6])
def test_the_test_over_seeds_and_examples_has_the_promised_power(n: int, examples: float) -> None:
    """Its own code decides; the part of the examples counts as known, of which there are 200."""
    num_examples, sd = 200, 0.4
    rng, shown = np.random.default_rng(n), 0
    difference = detectable_over(n, sd, 0.95, examples)
    for _ in range(2_000):
        each = rng.normal(0, examples * math.sqrt(num_examples), num_examples)[None]
        rest = rng.normal(0, 0.01, (n, num_examples))
        shown += crossed(difference + rng.normal(0, sd, n)[:, None] + each + rest).p < 0.05
    assert shown / 2_000 == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("share", [0.999999, 1e-6])
def test_power_over_both_meets_the_tests_of_each_at_its_ends(share: float) -> None:
    df = 4 if share > 0.5 else math.inf
    assert power.power(2.5, 1.0, 4, 0.95, share) == pytest.approx(power.power(2.5, 1.0, df, 0.95), abs=1e-4)


@pytest.mark.parametrize("difference", [0.2, 0.5, 3.0])
@pytest.mark.parametrize("level", LEVELS)
def test_fewer_seeds_than_are_asked_for_would_not_do(difference: float, level: float) -> None:
    n = seeds_for(difference, 0.4, level)
    assert n is not None and detectable_over(n, 0.4, level) <= difference
    assert n == 2 or detectable_over(n - 1, 0.4, level) > difference


def test_no_number_of_seeds_shows_what_the_test_examples_leave_open() -> None:
    least = detectable(0.3, math.inf, 0.95)
    assert seeds_for(0.99 * least, 0.4, 0.95, examples=0.3) is None
    assert seeds_for(0.5, 0.4, 0.95, examples=0.0) is not None
    assert seeds_for(0.0, 0.4, 0.95) is None
    assert 524_288 < (seeds_for(0.97, 300, 0.95) or 0) < MOST_SEEDS


def test_without_an_error_there_is_no_number() -> None:
    assert math.isnan(detectable_over(1, 0.4, 0.95))
    assert math.isnan(detectable(math.nan, 4, 0.95))
    assert math.isnan(power.power(0.1, 0.1, 0, 0.95))
    assert detectable_over(3, 0.0, 0.95) == 0.0
    assert (power.power(0.0, 0.0, 2, 0.95), power.power(0.1, 0.0, 2, 0.95)) == (0.0, 1.0)


def test_holms_first_step_divides_the_error_by_the_number_of_settings() -> None:
    assert [first_step(m) for m in (0, 1, 2, 5)] == pytest.approx([0.95, 0.95, 0.975, 0.99])
