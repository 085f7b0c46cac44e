"""Trainings of small trials on the device, through the same worker, store and loop as any other."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backends.errors import MixlabError
from experiments.bench.grid import Silent
from experiments.design import ablation, trials
from experiments.design.ablation import GridTrial
from experiments.doctor.check import Asked
from experiments.machine.environment import ROOT
from experiments.results.store import Store
from experiments.running.events import Event, Stepped
from experiments.running.local import LocalRun
from experiments.running.pool import Pool
from experiments.running.queue import pending

BASE = ROOT / "experiments/bases/small.yaml"  # digits, which scikit-learn holds


def small_trials(backend: str, asked: Asked, overrides: Sequence[str] = ()) -> list[GridTrial]:
    """The trials of the small base on the device."""
    # On two threads such a model is no faster, and far slower where other programs use the cores.
    own = [f"backend={backend}", f"run.device={asked.device}", "run.threads=1"]
    base = ablation.load_base(BASE, [*own, *overrides])
    return trials.trials(base, _cache(asked))


class Killer:
    """Kills the process of a trial once, with SIGKILL, when it has taken so many steps and can go on; see Reporter."""

    def __init__(self, store: Store, step: int):
        self.store, self.step = store, step
        self.killed_at = 0  # the step; 0: it never came to that

    def on_event(self, planned: GridTrial, event: Event) -> None:
        if self.killed_at or not isinstance(event, Stepped) or not self.step <= event.step < event.num_steps:
            return
        if (owner := self.store.owner(event.trial_id)) and self.store.can_go_on(event.trial_id):
            self.killed_at = event.step
            os.kill(int(owner["pid"]), signal.SIGKILL)


def train(
    trials: Sequence[GridTrial], store: Store, asked: Asked, killer: Killer | None = None
) -> list[dict[str, Any]]:
    """The records of trials, trained in a store where they are not done there.

    Raises: MixlabError: one failed; the sentence is its reason.
    """
    pool = Pool(retries={"killed": 1} if killer else {})
    todo = pending(trials, store, lambda sentence: None)
    summary = LocalRun(todo, store, _cache(asked), pool, killer or Silent()).run()
    if summary.signals:
        raise KeyboardInterrupt
    reasons = [*([summary.error.reason] if summary.error else []), *summary.failed.values()]
    if reasons:
        raise MixlabError(reasons[0])
    return [store.record(planned.trial.id) or {} for planned in trials]


def store(asked: Asked, name: str) -> Store:
    """A store of the checks' own."""
    return Store(asked.work / name)


def _cache(asked: Asked) -> Path:
    return asked.work / "data"
