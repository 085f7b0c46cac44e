"""How a run is shown: live bars on a terminal, plain lines elsewhere."""

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from experiments.design.ablation import GridTrial

LINE_S = 30.0  # how often a trial that runs is said to, without a terminal


class PlainReporter:
    """A line for each trial that begins, goes on or ends."""

    def __init__(self, console: Console, total: int):
        self.console, self.total, self.ended = console, total, 0
        self.said_at: dict[str, float] = {}  # id -> when a line was last printed of it

    def __enter__(self) -> "PlainReporter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def event(self, kind: str, trial: GridTrial, detail: Any) -> None:
        if kind == "step" and not self._is_due(trial.trial.id):
            return
        self.said_at[trial.trial.id] = time.monotonic()
        if kind == "step":
            kind = f"step {detail['step']} of {detail['steps']}, {_said(detail)}"
        self.ended += kind in ("done", "failed")
        if kind == "note":
            return self._print(f"    {detail['note']}")
        words = {"busy": "is run by another process, waiting", "stopped": "stopped, its state is saved"}.get(kind, kind)
        self._print(f"[{self.ended}/{self.total}] {trial.trial.id} {trial.label}: {words}")
        if kind == "failed":
            self._print(f"    {detail}")

    def _is_due(self, trial_id: str) -> bool:
        return time.monotonic() - self.said_at.get(trial_id, 0.0) > LINE_S

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class LiveReporter(PlainReporter):
    """The same lines, above a bar of all trials and a bar for each trial that runs."""

    def __init__(self, console: Console, total: int):
        super().__init__(console, total)
        label = TextColumn("{task.description}", table_column=Column())  # where there is no room, this one wraps
        steps = MofNCompleteColumn(table_column=Column(no_wrap=True))
        left, said = TimeRemainingColumn(table_column=Column(no_wrap=True)), TextColumn("{task.fields[said]}")
        self.bars = Progress(label, BarColumn(12), steps, left, said, console=console)
        self.all = self.bars.add_task("trials", total=total, said="")
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "LiveReporter":
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def event(self, kind: str, trial: GridTrial, detail: Any) -> None:
        if kind not in ("start", "step"):
            super().event(kind, trial, detail)
        if kind == "start":
            steps = trial.trial.num_steps
            self.tasks[trial.trial.id] = self.bars.add_task(trial.label, total=steps, said="starting")
        elif kind == "note":
            return
        elif kind == "step":
            self.bars.update(self.tasks[trial.trial.id], completed=detail["step"], said=_said(detail))
        else:
            self.bars.remove_task(self.tasks.pop(trial.trial.id))
            self.bars.update(self.all, completed=self.ended)


def _said(detail: dict[str, Any]) -> str:
    return f"loss {detail['loss']:.4f}, {detail['images_per_s']:,.0f} images/s"


def reporter(console: Console, total: int) -> PlainReporter:
    return LiveReporter(console, total) if console.is_terminal else PlainReporter(console, total)
