"""Starts of a pack: their number, and whether they have brought its trials further."""

import contextlib
import json
from pathlib import Path

from rich.console import Console

from experiments import clock
from experiments.design.ablation import GridTrial
from experiments.files import replace
from experiments.machine.environment import slurm_job
from experiments.running.events import Event, Returned, Started
from experiments.running.failures import CAUSES, Failure
from experiments.running.progress import PlainReporter
from slurm.cluster import ClusterSpec


class Attempts:
    """The starts of a pack: the step of each trial then, and what ended it. One job at a time writes the file."""

    def __init__(self, path: Path):
        self.path, self.starts = path, []
        with contextlib.suppress(OSError, ValueError):
            self.starts = list(json.loads(path.read_text()))
        self.starts.append({"ended": None, "steps": {}, "time": self._now(), **slurm_job()})
        self._write()

    @property
    def begun(self) -> float:
        """The time of the pack's first start, by the file server's clock."""
        return float(self.starts[0].get("time", 0.0))

    def _now(self) -> float:
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        return clock.now(self.path.parent)

    def unnamed(self) -> int:
        """Starts whose end nobody could note, as on a full disk; this one counts."""
        return sum(start["ended"] is None for start in self.starts)

    def begin(self, trial_id: str, step: int) -> None:
        self.starts[-1]["steps"][trial_id] = step
        self._write()

    def withdraw(self, trial_id: str) -> None:
        """Forget that this start has begun a trial, which was given back before it was trained alone."""
        if self.starts[-1]["steps"].pop(trial_id, None) is not None:
            self._write()

    def end(self, cause: str) -> None:
        self.starts[-1]["ended"] = cause
        self._write()

    def given_up(self, trial_id: str, step: int, cluster: ClusterSpec) -> Failure | None:
        """The failure of a trial whose last starts have all led it no further than it is.

        A start that ended without a word is put down to its node: whatever it was, this process saw nothing of it.
        """
        # A start counts only where it left the trial at the step at which this one finds it: progress, however little,
        # means that the next start may end the trial.
        idle = 0
        for start in reversed(self.starts[:-1]):
            if start["steps"].get(trial_id, step) != step:
                break
            idle += trial_id in start["steps"]
        last = next((start for start in reversed(self.starts[:-1]) if trial_id in start["steps"]), None)
        cause = "node_lost" if last is None or last["ended"] is None else str(last["ended"])
        if idle <= cluster.tries(cause):
            return None
        return Failure(cause, f"no progress in {idle} starts, which all began at step {step}: {CAUSES[cause]}")

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # a full disk is met, and reported, by the trial itself
            replace(self.path, json.dumps(self.starts).encode(), durable=False)


class PackReporter(PlainReporter):
    """A reporter that prints lines for the log of a job, and notes each start of a trial that is not given back."""

    def __init__(self, console: Console, total: int, attempts: Attempts):
        super().__init__(console, total)
        self.attempts = attempts

    def on_event(self, planned: GridTrial, event: Event) -> None:
        if isinstance(event, Started):
            self.attempts.begin(event.trial_id, event.step)
        if isinstance(event, Returned):
            self.attempts.withdraw(event.trial_id)
        super().on_event(planned, event)
