"""What of a tuned table is not known yet: its trials that wait for a choice, for who asks what the whole will cost."""

from collections.abc import Callable, Sequence

from experiments.design.ablation import Ablation, GridTrial
from experiments.design.choice import combinations, trials_of
from experiments.design.tune import choose, table_at, tuning_by_point
from experiments.results.store import Store
from experiments.spec.trial import Trial


def foreseen(
    ablation: Ablation, trials: Sequence[GridTrial], store: Store, cost: Callable[[Trial], float]
) -> list[GridTrial]:
    """The trials of the table that wait, each setting at the value of the highest cost.

    A setting whose values have all diverged will have none.

    Args: trials: with all that tune.    cost: of one trial; of equal values the first in the list is taken.
    """
    if ablation.tune is None:
        return []
    values, tuning = combinations(ablation.tune), tuning_by_point(ablation, trials)
    found: list[GridTrial] = []
    for choice in choose(ablation, trials, store):
        if choice.chosen or choice.is_lost:
            continue
        first = [trials_of(ablation.tune, choice.setting, value, tuning)[0] for value in values]
        costs = [cost(planned.trial) for planned in first]
        found += table_at(ablation, choice.setting, values[costs.index(max(costs))], tuning)
    return found
