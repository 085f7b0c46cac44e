"""Trials in packs: what one job trains, one after the other, with one import and one compilation a shape."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from experiments.design.ablation import GridTrial
from experiments.running import replicas
from experiments.spec.trial import Trial
from slurm.needs import Needs


@dataclass(frozen=True)
class Pack:
    """The trials of one job, which are of one backend and need the same."""

    backend: str
    needs: Needs
    trials: tuple[GridTrial, ...]


def packs(trials: Sequence[GridTrial], needs: Callable[[GridTrial], Needs]) -> list[Pack]:
    """Trials grouped by backend, needs and compiled shape; as few packs as backend and needs can do with.

    Among these, trials that can train as one program are neighbours.
    """
    kinds: dict[Trial, int] = {}
    kind = {id(planned): kinds.setdefault(replicas.common(planned.trial), len(kinds)) for planned in trials}
    by_shape = sorted(trials, key=lambda planned: (planned.trial.backend, *_shape(planned), kind[id(planned)]))
    groups: dict[tuple[str, Needs], list[GridTrial]] = {}
    for planned in by_shape:
        groups.setdefault((planned.trial.backend, needs(planned)), []).append(planned)
    return [
        Pack(backend, own, tuple(group[i : i + own.pack]))
        for (backend, own), group in groups.items()
        for i in range(0, len(group), own.pack)
    ]


def arrays(packs: Sequence[Pack], largest: int) -> list[list[Pack]]:
    """Packs of one backend and the same needs, at most `largest` an array."""
    groups: dict[tuple[str, Needs], list[Pack]] = {}
    for pack in packs:
        groups.setdefault((pack.backend, pack.needs), []).append(pack)
    return [group[i : i + largest] for group in groups.values() for i in range(0, len(group), largest)]


def _shape(planned: GridTrial) -> tuple[str, ...]:
    """The key of the compiled program that a trial runs; the part that it shares with most others comes first."""
    trial = planned.trial
    return (repr(trial.model.structure()), repr(trial.optimizer.structure()), trial.train.precision, trial.info.content)
