"""Shares of a grid's wall time, by phase."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backends.errors import MixlabError
from experiments.design.ablation import GridTrial
from experiments.results.metrics import SECONDS
from experiments.results.store import Store
from experiments.running import local
from experiments.running.events import Event
from experiments.running.pool import PHASES, Pool


@dataclass(frozen=True)
class GridTime:
    """The wall time of a grid, and where it went.

    wall_s: from the first worker's start to the end of the last.    seconds: of all workers together, by phase.
    """

    num_trials: int
    jobs: int
    wall_s: float
    seconds: dict[str, float]
    peak_bytes: int  # the highest of any trial

    @property
    def idle_s(self) -> float:
        """The time that no phase accounts for: waiting for work, and what is between the phases."""
        return self.jobs * self.wall_s - sum(self.seconds.values())

    @property
    def training_share(self) -> float:
        """The share of the workers' wall time that compilation, training and evaluation take."""
        busy = sum(self.seconds.get(phase, 0.0) for phase in SECONDS)
        return busy / (self.jobs * self.wall_s)


class Silent:
    """A reporter (see pool.Reporter) that prints nothing."""

    def on_event(self, planned: GridTrial, event: Event) -> None:
        pass


def measure(trials: Sequence[GridTrial], cache: Path, jobs: int, compile_cache: Path | None = None) -> GridTime:
    """Train all trials in a store of their own, which is removed, and measure where the time goes.

    Raises: MixlabError: a trial failed.   KeyboardInterrupt: the run was stopped.
    """
    with tempfile.TemporaryDirectory(prefix="mixlab-bench-") as folder:
        store = Store(Path(folder))
        run = local.LocalRun(trials, store, cache, Pool(jobs, compile_cache=compile_cache), Silent())
        start = time.monotonic()
        summary = run.run()
        wall_s = time.monotonic() - start
        if summary.error:
            raise MixlabError(summary.error.reason)
        if summary.signals:
            raise KeyboardInterrupt
        if summary.failed or summary.left:
            reason = next(iter(summary.failed.values()), "it was stopped")
            raise MixlabError(
                f"bench: expected all {len(trials)} trials to be done, but {len(summary.done)} are: {reason}"
            )
        records = [store.record(one.trial.id) or {} for one in trials]
    seconds = {phase: summary.spent.get(phase, 0.0) for phase in PHASES}
    peak = max(int(record["peak_memory_bytes"]) for record in records)
    return GridTime(len(trials), jobs, wall_s, seconds, peak)
