"""Two runs on the same examples, example by example."""

from dataclasses import dataclass

import numpy as np

from experiments.results.predictions import Predicted


@dataclass(frozen=True)
class Examples:
    """How far two runs say the same of the same examples."""

    num: int
    same_class: int
    first_alone: int  # is right: n10
    second_alone: int  # is right: n01

    @property
    def same_correctness(self) -> int:
        return self.num - self.first_alone - self.second_alone


def both(first: Predicted | None, second: Predicted | None) -> Examples | None:
    """How far two runs agree; None: one of them has no predictions, or their examples are others."""
    if first is None or second is None or first.examples != second.examples:
        return None
    return Examples(
        len(first.correct),
        int(np.count_nonzero(first.classes == second.classes)),
        int(np.count_nonzero(first.correct & ~second.correct)),
        int(np.count_nonzero(second.correct & ~first.correct)),
    )


def mcnemar(found: Examples) -> float:
    """p of McNemar's exact test that both runs are right equally often, over examples like these; 1 without any apart.

    Source: statsmodels.stats.contingency_tables.mcnemar.
    """
    from statsmodels.stats.contingency_tables import mcnemar as test

    # Of those that both or none have right the test takes no notice.
    return float(test([[0, found.first_alone], [found.second_alone, 0]], exact=True).pvalue)
