"""How a run is shown: live bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from types import MappingProxyType, TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from experiments.design.ablation import GridTrial
from experiments.results.metrics import CHOOSES, STARVED
from experiments.running.events import Ended, Evaluated, Event, Noted, Returned, Started, Stepped

LINE_S = 30.0  # how often a trial that runs is said to, without a terminal


class PlainReporter:
    """A line for each trial that begins, goes on or ends."""

    def __init__(self, console: Console, total: int):
        self.console, self.total, self.ended = console, total, 0
        self.said_at: dict[str, float] = {}  # id -> when a line was last printed of it
        self.scores: dict[str, str] = {}  # id -> what its last evaluation found, in words

    def __enter__(self) -> "PlainReporter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def on_event(self, planned: GridTrial, event: Event) -> None:
        if isinstance(event, Evaluated):
            self.scores[event.trial_id] = _score(event)
        if isinstance(event, (Evaluated, Returned)) or (
            isinstance(event, Stepped) and not self._is_due(event.trial_id)
        ):
            return
        if isinstance(event, Noted):
            return self._print(f"    {event.sentence}")
        self.said_at[event.trial_id] = time.monotonic()
        self.ended += isinstance(event, Ended) and event.how in ("done", "failed", "paused")
        words = self._words(event, planned.until)
        self._print(f"[{self.ended}/{self.total}] {event.trial_id} {planned.label}: {words}")
        if isinstance(event, Ended) and event.failure:
            self._print(f"    {event.failure.reason}")

    def _words(self, event: Started | Stepped | Ended, until: int | None) -> str:
        if isinstance(event, Ended) and event.how == "paused":
            return f"paused at {until}"
        if isinstance(event, Started):
            return "start"
        if isinstance(event, Stepped):
            return f"step {event.step} of {event.num_steps}, {self.how_far(event)}"
        return {"busy": "is run by another process, waiting", "stopped": "stopped, its state is saved"}.get(
            event.how, event.how
        )

    def how_far(self, event: Stepped) -> str:
        """Loss, speed and, once there is one, the last evaluation."""
        waiting = f", waiting for data {event.waiting:.0%}" if event.waiting > STARVED else ""
        return (
            f"loss {event.loss:.4f}, {event.images_per_s:,.0f} images/s{waiting}{self.scores.get(event.trial_id, '')}"
        )

    def _is_due(self, trial_id: str) -> bool:
        return time.monotonic() - self.said_at.get(trial_id, 0.0) > LINE_S

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class Label(TextColumn):
    """A label on one line, cut where there is no room."""

    def __init__(self) -> None:
        # Of the columns this one alone may be narrower than its text: Rich gives way where a column may wrap.
        super().__init__("{task.description}", markup=False, table_column=Column(no_wrap=False))

    def render(self, task: Task) -> Text:
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


class LiveReporter(PlainReporter):
    """The same lines, above a bar of all trials and a bar for each trial that runs.

    Args: labels: of the trials by id, where they are shorter than their own.
    """

    def __init__(self, console: Console, total: int, labels: Mapping[str, str] = MappingProxyType({})):
        super().__init__(console, total)
        self.labels, label = labels, Label()
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

    def on_event(self, planned: GridTrial, event: Event) -> None:
        if not isinstance(event, (Started, Stepped)):
            super().on_event(planned, event)
        if (
            isinstance(event, (Started, Returned, Ended)) and event.trial_id in self.tasks
        ):  # also one that is begun again
            self.bars.remove_task(self.tasks.pop(event.trial_id))
        if isinstance(event, Started):
            steps = planned.until or planned.trial.num_steps
            label = self.labels.get(event.trial_id, planned.label)
            self.tasks[event.trial_id] = self.bars.add_task(label, total=steps, completed=event.step, said="starting")
        elif isinstance(event, Stepped):
            self.bars.update(self.tasks[event.trial_id], completed=event.step, said=self.how_far(event))
        elif isinstance(event, Ended):
            self.bars.update(self.all, completed=self.ended)


def _score(event: Evaluated) -> str:
    """The metric that a choice may be made by: of validation examples, or nothing where there are none."""
    validation = event.scores.get("validation")
    return f", validation {CHOOSES.text(validation[CHOOSES.name])} {CHOOSES.unit}" if validation else ""


def reporter(console: Console, total: int, labels: Mapping[str, str] = MappingProxyType({})) -> PlainReporter:
    """Args: labels: as of `LiveReporter`."""
    return LiveReporter(console, total, labels) if console.is_terminal else PlainReporter(console, total)
