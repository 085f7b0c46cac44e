"""Simulated studies: worlds whose true differences are known, and what the statistics of a table make of them.

An example is right where its latent number is above 0: the sum of what the setting, the seed, the example, the pairs of
setting and seed and of setting and example, and chance bring. All are normal, so that the true accuracy has a closed
form. The frameworks of a seed share all but a tenth of the variance of chance.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy import stats

from analysis.factorial import Grid, interactions
from analysis.power import detectable_over
from analysis.predictions import Right, nothing
from analysis.settings import Compared, Tested, tests
from analysis.variance import Parts, pooled

BATCH = 50
ALIKE = 0.9  # of the variance of chance, that frameworks share
LARGE, TIMES = (150, 2000), 20  # seeds and examples of studies that tell the parts of the variance, and how many


@dataclass(frozen=True)
class World:
    """Standard deviations of the parts of the latent number, and the accuracy of the baseline."""

    name: str
    accuracy: float
    num_examples: int
    setting_seed: float
    setting_example: float
    seed: float = 0.05
    example: float = 1.0
    chance: float = 0.7

    @property
    def spread(self) -> float:
        parts = (self.seed, self.example, self.setting_seed, self.setting_example, self.chance)
        return math.sqrt(sum(part * part for part in parts))

    def shift(self, difference: float) -> float:
        """What a setting adds to the latent number so that it is better by this in the mean."""
        return float(self.spread * stats.norm.ppf(self.accuracy + difference))


SEEDS = World("seeds vary most", 0.8, 400, setting_seed=0.15, setting_example=0.3)
BOTH = World("seeds and examples vary", 0.8, 400, setting_seed=0.1, setting_example=0.5)
EXAMPLES = World("examples vary most", 0.7, 400, setting_seed=0.02, setting_example=0.8)
CEILING = World("ties at the ceiling", 0.99, 400, setting_seed=0.1, setting_example=0.3)
WORLDS = (SEEDS, BOTH, EXAMPLES, CEILING)


@dataclass(frozen=True, eq=False)
class Studies:
    """Studies of a baseline, the first setting, and others: which examples are right, and the true differences."""

    right: Any  # bool (studies, settings, frameworks, seeds, examples)
    accuracy: Any  # (studies,): of the baseline, over many seeds, on these examples
    difference: Any  # (settings - 1,): over many seeds and examples
    of_examples: Any  # (studies, settings - 1): over many seeds, on these examples
    of_seeds: Any  # (studies, settings - 1, seeds): over many examples, at these seeds


def simulate(world: World, differences: tuple[float, ...], n: int, frameworks: int, num: int, key: int) -> Studies:
    """Args: differences: true ones, of the settings beside the baseline.    num: of studies.    key: of chance."""
    rng, m, size = np.random.default_rng([key, n, frameworks]), len(differences) + 1, world.num_examples

    def draw(deviation: float, *shape: int) -> Any:
        return deviation * rng.standard_normal((num, *shape), np.float32)

    shifts = np.array([world.shift(one) for one in (0.0, *differences)], np.float32)[:, None, None, None]
    seeds = draw(world.seed, 1, 1, n, 1) + draw(world.setting_seed, m, 1, n, 1)
    examples = draw(world.example, 1, 1, 1, size) + draw(world.setting_example, m, 1, 1, size)
    chance = draw(world.chance * math.sqrt(ALIKE if frameworks > 1 else 1), m, 1, n, size)
    own = draw(world.chance * math.sqrt(1 - ALIKE), m, frameworks, n, size) if frameworks > 1 else np.float32(0)
    right = shifts + seeds + examples + chance + own > 0
    of_seeds = math.sqrt(world.seed**2 + world.setting_seed**2 + world.chance**2)
    of_examples = math.sqrt(world.example**2 + world.setting_example**2 + world.chance**2)
    given = stats.norm.cdf((shifts + examples) / of_seeds).mean((2, 3, 4))
    at = stats.norm.cdf((shifts + seeds) / of_examples)[:, :, 0, :, 0]
    return Studies(right, given[:, 0], np.array(differences), given[:, 1:] - given[:, :1], at[:, 1:] - at[:, :1])


def batches(world: World, differences: tuple[float, ...], n: int, frameworks: int, num: int) -> Iterator[Studies]:
    for first in range(0, num, BATCH):
        yield simulate(world, differences, n, frameworks, min(BATCH, num - first), first)


class Sides:
    """The cells of one study, as a report has them. Args: right: bool (settings, frameworks, seeds, examples)."""

    def __init__(self, right: Any, over_examples: bool):
        self.num_settings, self.frameworks, self.n, _ = right.shape
        self.means, flat = right.mean(-1), right.reshape(-1, right.shape[-1])
        held = {f"{place}": Right(np.packbits(one), len(one), "these") for place, one in enumerate(flat)}
        self.read: Any = held.get if over_examples else nothing

    def numbers(self, setting: int, framework: int) -> dict[int, float]:
        return dict(enumerate(self.means[setting, framework].tolist()))

    def ids(self, setting: int, framework: int) -> dict[int, str]:
        first = (setting * self.frameworks + framework) * self.n
        return {seed: f"{first + seed}" for seed in range(self.n)}


def verdicts(right: Any, over_examples: bool = True) -> list[Tested]:
    """The tests of one study's settings. Args: as of Sides."""
    sides, cells = Sides(right, over_examples), []
    for setting in range(1, sides.num_settings):
        for framework in range(sides.frameworks):
            numbers = (sides.numbers(place, framework) for place in (0, setting))
            ids = (sides.ids(0, framework), sides.ids(setting, framework))
            cells.append(Compared((setting,), f"f{framework}", *numbers, 0.0, ids))
    return list(tests(cells, sides.read).values())


def interaction_verdicts(right: Any, shape: tuple[int, ...], over_examples: bool = True) -> list[Tested]:
    """The tests of the interactions of one study. Args: right: as of Sides.    shape: of the settings, as a grid."""
    sides = Sides(right, over_examples)
    spec: Any = SimpleNamespace(ablation=SimpleNamespace(report=SimpleNamespace(baseline={})), read=sides.read)
    values, ids = (
        {
            tuple((one,) for one in np.unravel_index(setting, shape)): {
                f"f{framework}": of(setting, framework) for framework in range(sides.frameworks)
            }
            for setting in range(sides.num_settings)
        }
        for of in (sides.numbers, sides.ids)
    )
    return list(interactions(Grid(spec, tuple((f"field{axis}",) for axis in range(len(shape))), values, ids)).values())


@cache
def spread(world: World, frameworks: int, difference: float) -> tuple[float, float]:
    """Of one difference: the standard deviation over seeds, and the part of the error that the examples leave.

    As a plan reads it from predictions, here from many seeds on many examples.
    """
    n, num = LARGE
    estimates = []
    for key in range(TIMES):
        one = simulate(replace(world, num_examples=num), (difference,), n, frameworks, 1, key)
        estimates.append(Parts.of(one.right[0, 1].mean(0) - one.right[0, 0].mean(0)))
    found = pooled(estimates)
    return found.of_seeds(world.num_examples), found.of_examples(world.num_examples)


@cache
def promised(world: World, n: int, frameworks: int, over_examples: bool = True) -> float:
    """The difference of which `analysis.power` promises that n seeds show it in 80 % of studies: a loss of accuracy."""
    difference = 0.0
    for _ in range(4):  # the parts of the variance depend on the difference a little
        sd, examples = spread(world, frameworks, difference)
        difference = -detectable_over(n, sd, 0.95, examples if over_examples else 0.0)
    return difference
