"""What a run trains, round after round.

Where fields are tuned, the trials of the table follow from records. A trial that begins from another one's weights
waits until that one has ended; if it has failed, so does what begins from it, with a sentence that names it.
"""

from collections.abc import Callable, Iterator, Sequence

from experiments.design import tune
from experiments.design.ablation import Ablation, GridTrial
from experiments.results.store import Store
from experiments.running.queue import pending


def rounds(
    ablation: Ablation, trials: Sequence[GridTrial], store: Store, warn: Callable[[str], None]
) -> Iterator[tuple[list[GridTrial], list[GridTrial]]]:
    """All trials that are known by now, and those of them to train, until no other ones are known.

    Each is given once, and where tuning is by halving once a stage: what has failed now is for the next run. There is a
    round also where it has nothing to train.
    """
    known, given = list(trials), set[tuple[str, int | None]]()
    left = pending(known, store, warn)
    while True:
        todo = ready(left)
        yield known, todo
        if ablation.tune is None and len(todo) == len(left):
            return
        before, given = known, given | {(planned.trial.id, planned.until) for planned in todo}
        known = tune.known(ablation, before, store)
        left = [one for one in pending(known, store, warn) if (one.trial.id, one.until) not in given]
        if not left and len(known) == len(before):
            return


def ready(trials: Sequence[GridTrial]) -> list[GridTrial]:
    """Those of the trials to train that begin from the weights of none of them."""
    ids = {planned.trial.id for planned in trials}
    return [planned for planned in trials if planned.trial.start_id not in ids]
