"""What the statistics of a table promise, in simulated studies: `make test-studies` has 4,000 of each kind, CI some.

Coverage: how often an interval holds the true difference. Errors: how often one of the settings without a difference is
called distinguishable. Power: how often a difference is, of which power.py promises 80 %.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from analysis.inference import BOOTSTRAP_LEAST, summary
from analysis.settings import EXAMPLES, SEEDS, SEEDS_AND_EXAMPLES
from tests import studies
from tests.conftest import ROOT
from tests.studies import WORLDS, Studies, World, batches, interaction_verdicts, promised, verdicts

NUM = int(os.environ.get("MIXLAB_STUDIES", "0"))
SHORT = 300  # studies of a kind in CI
COVERAGE, ERRORS, POWER = 2.0, 6.0, 3.0  # asked for, in %: of 95 or the level; of at most; of 80
CONDITIONS = [
    (over, world, n, frameworks)
    for over, counts in ((SEEDS_AND_EXAMPLES, (3, 5, 10)), (SEEDS, (3, 5, 10)), (EXAMPLES, (1,)))
    for world in WORLDS
    for n in counts
    for frameworks in (1, 2)
]
FILE = ROOT / "analysis" / "results" / "studies.md"
# Where the numbers miss what is asked for: what is missed, and why.
KNOWN = {
    (SEEDS_AND_EXAMPLES, studies.EXAMPLES.name, "coverage"): (
        "of three seeds that hardly vary the interval is a little wide, as the factors of Cochran and Cox are"
    ),
    (SEEDS_AND_EXAMPLES, studies.CEILING.name, "power"): (
        "at the ceiling a loss and its estimated error rise together, so that more studies find it than are promised"
    ),
}


@dataclass(frozen=True)
class Found:
    """Shares of studies, in %; NaN: not asked."""

    coverage: float  # of the interval of one setting with a difference
    coverage_of_three: float  # of those of three settings without a difference, at the levels of Holm's steps
    level: float  # theirs, on average
    errors: float  # in which one setting without a difference is called distinguishable
    errors_of_three: float  # in which at least one of three is
    power: float
    untested: float  # settings without a test, since all pairs differ by the same
    of_mean: float  # coverage of Student's interval of the baseline's mean over seeds
    of_bootstrap: float  # of its bootstrap

    @property
    def misses(self) -> list[str]:
        missed = {
            "coverage": abs(self.coverage - 95) > COVERAGE,
            "coverage of three": abs(self.coverage_of_three - self.level) > COVERAGE,
            "errors": self.errors > ERRORS,
            "errors of three": self.errors_of_three > ERRORS,
            "power": abs(self.power - 80) > POWER,
        }
        return [name for name, is_missed in missed.items() if is_missed]


def null(world: World, over: str) -> World:
    """A world where settings alike differ in nothing that the test takes as fixed: on no example, or at no seed."""
    return replace(world, **{SEEDS: {"setting_example": 0.0}, EXAMPLES: {"setting_seed": 0.0}}.get(over, {}))


def true_ones(batch: Studies, over: str) -> Any:
    """The true differences that an interval is of, (studies, settings)."""
    if over == SEEDS_AND_EXAMPLES:
        return np.broadcast_to(batch.difference, batch.of_examples.shape)
    return batch.of_examples if over == SEEDS else batch.of_seeds[:, :, 0]


def all_tested(batch: Studies, over: str) -> Iterator[Any]:
    """The tests of each study with what is true."""
    for right, true in zip(batch.right, true_ones(batch, over), strict=True):
        yield list(zip(verdicts(right, over != SEEDS), true, strict=True))


def holds(test: Any, true: float) -> bool:
    return bool(test.paired.low <= true <= test.paired.high)


def study(over: str, world: World, n: int, frameworks: int, num: int) -> Found:
    coverage, three, level, errors, errors_of_three, power, untested, of_mean, of_bootstrap = ([] for _ in range(9))
    world = null(world, over) if over == SEEDS else world  # whose promise is for these examples, and not for others
    for batch in batches(null(world, over), (0.0, 0.0, 0.0), n, frameworks, num):
        for tests in all_tested(batch, over):
            untested += [not one.over for one, _ in tests]
            three += [holds(one, true) for one, true in tests if one.over]
            level += [one.paired.level for one, _ in tests if one.over]
            errors.append(tests[0][0].paired.p < 0.05)
            errors_of_three.append(any(one.p_holm < 0.05 for one, _ in tests))
        for right, true in zip(batch.right[:, 0, 0], batch.accuracy, strict=True):
            found = summary(list(right.mean(1)))
            of_mean += [found.low <= true <= found.high] if found.std > 0 else []
            if n >= BOOTSTRAP_LEAST and len(of_bootstrap) < SHORT and found.std > 0:
                found = summary(list(right.mean(1)), "bootstrap")
                of_bootstrap.append(found.low <= true <= found.high)
    difference = -0.02 if over == EXAMPLES else promised(world, n, frameworks, over != SEEDS)
    for batch in batches(world, (difference,), n, frameworks, num):
        for tests in all_tested(batch, over):
            coverage += [holds(one, true) for one, true in tests if one.over]
            power += [] if over == EXAMPLES else [tests[0][0].p_holm < 0.05]
    shares = (coverage, three, level, errors, errors_of_three, power, untested, of_mean, of_bootstrap)
    return Found(*(100 * float(np.mean(share)) if share else math.nan for share in shares))


def within(share: float, num: int) -> float:
    """Four standard errors of a share of so many studies, in %."""
    return 400 * math.sqrt(share * (1 - share) / num)


@pytest.mark.parametrize(
    ("over", "world", "n", "frameworks"),
    [
        (SEEDS_AND_EXAMPLES, studies.BOTH, 3, 1),
        (SEEDS_AND_EXAMPLES, studies.BOTH, 5, 2),
        (SEEDS_AND_EXAMPLES, studies.SEEDS, 3, 2),
        (SEEDS_AND_EXAMPLES, studies.EXAMPLES, 10, 1),
        (SEEDS, studies.BOTH, 5, 1),
        (EXAMPLES, studies.BOTH, 1, 2),
    ],
)
def test_some_studies_keep_what_tables_promise(over: str, world: World, n: int, frameworks: int) -> None:
    found = study(over, world, n, frameworks, SHORT)
    assert found.coverage_of_three - found.level == pytest.approx(0, abs=COVERAGE + within(0.98, SHORT))
    assert found.coverage == pytest.approx(95, abs=COVERAGE + within(0.95, SHORT))
    assert found.errors < ERRORS + within(0.05, SHORT) and found.errors_of_three < ERRORS + within(0.05, SHORT)
    if over != EXAMPLES:
        assert found.power == pytest.approx(80, abs=POWER + within(0.8, SHORT))


@pytest.mark.parametrize(("over", "world"), [(SEEDS_AND_EXAMPLES, studies.EXAMPLES), (SEEDS, studies.BOTH)])
@pytest.mark.parametrize(("n", "shape"), [(3, (2, 2)), (5, (2, 2)), (3, (2, 3))])
def test_interactions_that_are_not_there_are_rarely_shown(
    over: str, world: World, n: int, shape: tuple[int, ...]
) -> None:
    """An F-test over seeds alone, with the residuals of all cells, shows one in 18 % to 28 % of EXAMPLES."""
    num, no_difference = NUM or SHORT, (0.0,) * (math.prod(shape) - 1)
    shown = [
        any(one.p_holm < 0.05 for one in interaction_verdicts(right, shape, over != SEEDS))
        for batch in batches(null(world, over), no_difference, n, 1, num)
        for right in batch.right
    ]
    assert 100 * np.mean(shown) < ERRORS + within(0.05, num)


@pytest.mark.skipif(not NUM, reason="make test-studies")
def test_the_studies_keep_what_tables_promise() -> None:
    """Writes what was found; misses that are known are in KNOWN, with their reason."""
    rows = []
    for condition in CONDITIONS:
        rows.append((condition, study(*condition, NUM)))
        print(*condition[:2], *condition[2:], rows[-1][1], rows[-1][1].misses, flush=True)
    FILE.write_text(page(rows))
    missed = {(over, world.name, name) for (over, world, *_), found in rows for name in found.misses}
    assert {one for one in missed if one not in KNOWN} == set()


def page(rows: list[tuple[Any, Found]]) -> str:
    """The table as Markdown."""
    columns = (
        "over",
        "world",
        "seeds",
        "frameworks",
        "coverage",
        "of three (level)",
        "errors",
        "of three",
        "power",
        "untested",
        "mean, t",
        "mean, bootstrap",
    )
    lines = [f"# What tables promise, in {NUM:,} simulated studies of each kind", "", INTRODUCTION, ""]
    lines += [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for (over, world, n, frameworks), one in rows:
        numbers = [
            one.coverage,
            one.coverage_of_three,
            one.errors,
            one.errors_of_three,
            one.power,
            one.untested,
            one.of_mean,
            one.of_bootstrap,
        ]
        texts = ["" if math.isnan(number) else f"{number:.1f}" for number in numbers]
        texts[1] += f" ({one.level:.1f})"
        lines.append(f"| {' | '.join([over, world.name, str(n), str(frameworks), *texts])} |")
    known = [f"- Over {over}, {world}, {what}: {why}" for (over, world, what), why in KNOWN.items()]
    return "\n".join([*lines, "", *(["What misses the aim, and why:", "", *known] if known else [])]).rstrip() + "\n"


INTRODUCTION = """In %, as `make test-studies` found it; `tests/studies.py` has the worlds, example by example: what a
setting, a seed, an example, the pairs of setting and seed and of setting and example, and chance bring. Two frameworks
share nine tenths of the variance of chance. The aim: coverage 95, or the level of Holm's step, each ± 2; errors at most
6, of one setting and of three together; power 80 ± 3, of the difference that `analysis/power.py` promises it for.
*Untested*: all pairs differ by the same. The standard error of a share is 0.35 at 95 %, and 0.6 at 80 %. The bootstrap
is of 300 studies; of ten seeds it covers less than it says."""
