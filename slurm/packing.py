"""Trials in packs: what one job trains, one after the other, with one import and one compilation a shape."""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.ablation import GridTrial


@dataclass(frozen=True)
class Pack:
    """The trials of one job, which are of one backend."""

    backend: str
    trials: tuple[GridTrial, ...]


def packs(trials: Sequence[GridTrial], size: int) -> list[Pack]:
    """Trials grouped by backend and compiled shape, at most `size` a pack; as few packs as a backend can do with."""
    found = []
    by_shape = sorted(trials, key=lambda planned: (planned.trial.backend, *_shape(planned)))
    for backend in dict.fromkeys(planned.trial.backend for planned in by_shape):
        own = [planned for planned in by_shape if planned.trial.backend == backend]
        found += [Pack(backend, tuple(own[i : i + size])) for i in range(0, len(own), size)]
    return found


def arrays(packs: Sequence[Pack], largest: int) -> list[list[Pack]]:
    """Packs of one backend, at most `largest` an array."""
    found = []
    for backend in dict.fromkeys(pack.backend for pack in packs):
        own = [pack for pack in packs if pack.backend == backend]
        found += [own[i : i + largest] for i in range(0, len(own), largest)]
    return found


def _shape(planned: GridTrial) -> tuple[str, ...]:
    """What decides which compiled program a trial runs, the part that it shares with most others first."""
    trial = planned.trial
    return (repr(trial.model.structure()), repr(trial.optimizer.structure()), trial.train.precision, trial.info.content)
