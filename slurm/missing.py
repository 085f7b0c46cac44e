"""Trials of a request that are neither done nor on their way."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.design.ablation import GridTrial
from experiments.design.stages import is_halted
from experiments.running.queue import pending
from slurm import client, ledger
from slurm.request import Request
from slurm.status import overview


@dataclass(frozen=True)
class Missing:
    """What is to be sent of a request, and the numbers of its other trials."""

    todo: list[GridTrial]
    num_done: int  # ended for good
    num_halted: int  # paused or pruned by halving
    num_live: int  # on their way


def missing(request: Request) -> Missing:
    """What is missing of a request.

    Raises: SlurmSilent: it cannot be known which trials are in the queue.
    """
    wanted = [*request.trials, *request.extra]
    left = pending(wanted, request.store, request.warn)
    ids = {planned.trial.id for planned in left}
    num_halted = sum(one.trial.id not in ids and is_halted(one, request.store) for one in wanted)
    view = overview(request.store, ids, request.halts)
    if view.silence:
        raise client.SlurmSilent(view.silence)
    free = [planned for planned in left if planned.trial.id not in view.live]
    if not request.sends_tuning:
        free = _sent_by_a_job(free, request)
    if request.states is not None:
        free = [planned for planned in free if view.states[planned.trial.id].status in request.states]
    return Missing(free, len(wanted) - len(left) - num_halted, num_halted, len(view.live))


def _sent_by_a_job(trials: Sequence[GridTrial], request: Request) -> list[GridTrial]:
    """The trials that a job may send by itself: those of the table, and those that halving has go on from a stage.

    Each of the latter once a stage: where it was sent less far when it was last sent. What was lost on the way, or
    before its first stage, is left to whoever submits again, or it would be lost forever anew.
    """
    halving = request.ablation.tune.halving if request.ablation.tune else None
    places = ledger.places(list(ledger.all_arrays(request.store)))

    def goes_on(planned: GridTrial) -> bool:
        if halving is None or planned.until == halving.steps[0]:
            return False
        place, until = places.get(planned.trial.id), math.inf if planned.until is None else planned.until
        return place is None or place.sends_to(planned.trial.id) < until

    return [planned for planned in trials if not planned.tunes or goes_on(planned)]
