"""What the store knows of a grid that is planned: the states of its trials, and records of others, read when asked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from backends.models import folds
from experiments.design import choice, stages, tune
from experiments.design.ablation import Ablation, GridTrial
from experiments.design.foreseen import foreseen
from experiments.results import checkpoint
from experiments.results.record import is_final
from experiments.results.states import PRUNED, TrialState, state
from experiments.results.store import Store
from experiments.spec.trial import Trial, trial_from_json

MAX_OTHERS = 2000  # records of other trials that are read; ids are hashes, so that the first ones are a random sample

Record = dict[str, Any]


@dataclass(frozen=True)
class Known:
    """A grid beside its store.

    trials: those that are known by now.    waiting: of the table, at the values that would cost the most, those of
    settings whose value is not chosen.
    """

    ablation: Ablation
    trials: Sequence[GridTrial]
    store: Store
    waiting: Sequence[GridTrial] = ()

    @classmethod
    def of(cls, ablation: Ablation, trials: Sequence[GridTrial], store: Store) -> "Known":
        """What is known of a whole grid. Args: trials: as tune.trials gives them."""
        return cls(ablation, trials, store, foreseen(ablation, trials, store, training_flops))

    @cached_property
    def whole(self) -> list[GridTrial]:
        """The trials that are known by now, and those that will be; settings may share one that tunes."""
        return list({planned.trial.id: planned for planned in (*self.trials, *self.waiting)}.values())

    @cached_property
    def table(self) -> list[GridTrial]:
        """The trials of the table, also those that wait."""
        return [planned for planned in self.whole if planned.in_table]

    @property
    def costs_vary(self) -> bool:
        """Whether what is tuned changes what a trial costs."""
        costs: dict[Any, set[int]] = {}
        for planned in self.trials:
            if planned.tunes:
                setting = choice.key(tune.setting_of(self.ablation, planned.settings))
                costs.setdefault(setting, set()).add(training_flops(planned.trial))
        return any(len(several) > 1 for several in costs.values())

    @cached_property
    def states(self) -> dict[str, TrialState]:
        """The state of each trial, by id."""
        there = set(self.store.trial_ids())
        ids, halts = [planned.trial.id for planned in self.whole], stages.halts(self.ablation, self.trials, self.store)
        return {key: state(self.store, key, halts.get(key)) if key in there else TrialState("missing") for key in ids}

    @cached_property
    def left(self) -> list[GridTrial]:
        """The trials that a run would train, or may: neither done nor diverged nor pruned."""
        ended = {
            key for key, now in self.states.items() if now.status == PRUNED or (now.record and is_final(now.record))
        }
        return [planned for planned in self.whole if planned.trial.id not in ended]

    @cached_property
    def own(self) -> dict[str, Record]:
        """Records of the grid's trials that are done, by id."""
        return {key: now.record for key, now in self.states.items() if now.status == "done" and now.record}

    @cached_property
    def others(self) -> dict[str, Record]:
        """Done records of other trials, at most MAX_OTHERS, by id."""
        return dict(islice(self._others(), MAX_OTHERS))

    @cached_property
    def all(self) -> dict[str, Record]:
        return {**self.own, **self.others}

    def _others(self) -> Iterator[tuple[str, Record]]:
        for key in self.store.trial_ids():
            record = None if key in self.states else self.store.sound_record(key)
            if record is not None and record["status"] == "done":
                yield key, record

    @cached_property
    def _expected_steps(self) -> dict[str, float]:
        return tune.expected_steps(self.ablation, self.trials, self.store)

    def share(self, planned: GridTrial) -> float:
        """The share of a trial's steps that it is trained for, in [0, 1]: below 1 where halving may prune it."""
        return self._expected_steps.get(planned.trial.id, planned.trial.num_steps) / planned.trial.num_steps

    def share_left(self, planned: GridTrial) -> float:
        """The share of a trial's steps that is still to be trained, in [0, 1]; what its checkpoint holds is not."""
        if not self.states[planned.trial.id].why:  # where there is no word of a checkpoint, there is none
            return self.share(planned)
        step = checkpoint.newest_step(self.store.checkpoint(planned.trial.id))
        return max(0.0, self.share(planned) - step / planned.trial.num_steps)


def training_flops(trial: Trial) -> int:
    """FLOPs of a trial's training, as its record will say."""
    return folds.training_flops(trial.model, trial.num_steps * trial.train.batch_size)


def trial_of(record: Record) -> Trial | None:
    """The trial of a record; None if its spec is of a version that cannot be read."""
    try:
        return trial_from_json(record["spec"])
    except (KeyError, TypeError):
        return None
