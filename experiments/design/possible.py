"""The trials that a tuned table may come to have: for who must know the whole grid before all values are chosen."""

from collections.abc import Iterator, Sequence

from experiments.design.ablation import Ablation, GridTrial
from experiments.design.tune import combinations, key, setting_of, settings, table_at, tuning_by_point


def possible(ablation: Ablation, trials: Sequence[GridTrial]) -> Iterator[GridTrial]:
    """The table's trials at each value that is tried, of the settings that have none among these.

    Args: trials: with all that tune.
    """
    if ablation.tune is None:
        return
    tuning = tuning_by_point(ablation, trials)
    chosen = {key(setting_of(ablation, planned.settings)) for planned in trials if not planned.tunes}
    for setting in settings(ablation):
        if key(setting.point) not in chosen:
            for value in combinations(ablation.tune):
                yield from table_at(ablation, setting, value, tuning)
