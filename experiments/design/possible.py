"""The trials that a tuned table may come to have: for who must know the whole grid before all values are chosen."""

from collections.abc import Iterator, Sequence

from experiments.design.ablation import Ablation, GridTrial
from experiments.design.choice import combinations, key
from experiments.design.tune import setting_of, settings, table_at, tuning_by_point


def contents(ablation: Ablation, trials: Sequence[GridTrial]) -> dict[str, str]:
    """The content of the data of each trial that is in the table or may come to be, by id: what unsealed.note asks for.

    Args: trials: with all that tune.
    """
    table = (planned for planned in trials if planned.in_table)
    return {planned.trial.id: planned.trial.info.content for planned in (*possible(ablation, trials), *table)}


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
