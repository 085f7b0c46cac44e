"""How far the reading of a source is."""

import sys
import time
from collections.abc import Iterable
from typing import Any, TypeVar

Part = TypeVar("Part")


def tracked(parts: Iterable[Part], total: int, what: str) -> Iterable[Part]:
    """The parts as they come, with a bar while they do if this is a terminal; nothing is said elsewhere."""
    from rich.console import Console  # a tenth of a second that known data does without
    from rich.progress import track

    console = Console(stderr=True)
    return track(parts, what, total, console=console, transient=True) if console.is_terminal else parts


SAY_S = 30.0  # seconds between lines where there is no terminal, as in a job's log


class Bar:
    """How far images are, how many a second, and the time left: a bar on a terminal, else a line now and then."""

    def __init__(self, what: str, total: int, done: int = 0):
        self.what, self.total, self.done, self.before = what, total, done, done
        self.bar: Any = None

    def __enter__(self) -> "Bar":
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.start = self.said = time.monotonic()
        console = Console(stderr=True)
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[told]}"),
            )
            self.bar = Progress(*columns, console=console, transient=True)
            self.task = self.bar.add_task(self.what, total=self.total, completed=self.done, told="")
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def advance(self, number: int) -> None:
        self.done += number
        if self.bar:
            self.bar.update(self.task, completed=self.done, told=self._told())
        elif time.monotonic() - self.said > SAY_S:
            self.said = time.monotonic()
            print(f"mixlab: {self.what}: {self.done:,} of {self.total:,}, {self._told()}", file=sys.stderr, flush=True)

    def _told(self) -> str:
        rate = (self.done - self.before) / max(1e-9, time.monotonic() - self.start)
        left = round((self.total - self.done) / rate)
        return f"{rate:,.0f} images/s, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
