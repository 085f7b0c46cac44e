"""Trials in packs: what one job trains, one after the other, with one import and one compilation a shape."""

from collections.abc import Callable, Mapping, Sequence
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
    level: int = 0  # how many trials of the same submission must end, one after the other, before these begin


def packs(trials: Sequence[GridTrial], needs: Callable[[GridTrial], Needs]) -> list[Pack]:
    """Trials grouped by backend, needs and compiled shape; as few packs as backend and needs can do with.

    Among these, trials that can train as one program are neighbours.
    """
    kinds: dict[Trial, int] = {}
    kind = {id(planned): kinds.setdefault(replicas.common(planned.trial), len(kinds)) for planned in trials}
    by_shape = sorted(trials, key=lambda planned: (planned.trial.backend, *_shape(planned), kind[id(planned)]))
    starts = {planned.trial.id: planned.trial.start_id for planned in trials}
    groups: dict[tuple[str, Needs, int], list[GridTrial]] = {}
    for planned in by_shape:
        level = _level(planned.trial.id, starts)
        groups.setdefault((planned.trial.backend, needs(planned), level), []).append(planned)
    made = [
        Pack(backend, own, tuple(group[i : i + own.pack]), level)
        for (backend, own, level), group in groups.items()
        for i in range(0, len(group), own.pack)
    ]
    return sorted(made, key=lambda pack: pack.level)  # what others begin from is sent first


def _level(trial_id: str, starts: Mapping[str, str | None]) -> int:
    """How many of these trials must end before this one. Args: starts: whose weights each begins from, by id."""
    start = starts[trial_id]
    return 1 + _level(start, starts) if start in starts and start is not None else 0


def arrays(packs: Sequence[Pack], largest: int) -> list[list[Pack]]:
    """Packs of one backend and the same needs, at most `largest` an array."""
    groups: dict[tuple[str, Needs, int], list[Pack]] = {}
    for pack in packs:
        groups.setdefault((pack.backend, pack.needs, pack.level), []).append(pack)
    return [group[i : i + largest] for group in groups.values() for i in range(0, len(group), largest)]


def _shape(planned: GridTrial) -> tuple[str, ...]:
    """The key of the compiled program that a trial runs; the part that it shares with most others comes first."""
    trial = planned.trial
    return (repr(trial.model.structure()), repr(trial.optimizer.structure()), trial.train.precision, trial.info.content)
