"""What a run trains, round after round: where fields are tuned, the trials of the table follow from records."""

from collections.abc import Callable, Iterator, Sequence

from experiments.design import tune
from experiments.design.ablation import Ablation, GridTrial
from experiments.results.store import Store
from experiments.running.local import pending


def rounds(
    ablation: Ablation, trials: Sequence[GridTrial], store: Store, warn: Callable[[str], None]
) -> Iterator[tuple[list[GridTrial], list[GridTrial]]]:
    """All trials that are known by now, and those of them to train, until no other ones are known.

    Each is given once, and where tuning is by halving once a stage: what has failed now is for the next run. There is a
    round also where it has nothing to train.
    """
    known, given = list(trials), set[tuple[str, int | None]]()
    todo = pending(known, store, warn)
    while True:
        yield known, todo
        if ablation.tune is None:
            return
        before, given = known, given | {(planned.trial.id, planned.until) for planned in todo}
        known = tune.known(ablation, before, store)
        left = pending(known, store, warn)
        todo = [planned for planned in left if (planned.trial.id, planned.until) not in given]
        if not todo and len(known) == len(before):
            return
