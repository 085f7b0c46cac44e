"""Rounds in which sides take turns."""

import contextlib
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from backends.errors import MixlabError
from experiments.bench.side import ABOUT, Side, main
from experiments.machine import malloc

REST_S = 0.1  # between turns: the threads of the last one spin for a moment before they sleep

_CONTEXT = multiprocessing.get_context("spawn")


class Running:
    """A side's process."""

    def __init__(self, side: Side):
        self.side = side
        self.connection, theirs = _CONTEXT.Pipe()
        cpus = tuple(sorted(os.sched_getaffinity(0))[: side.trial.run.threads or None])  # as those of a worker
        self.process = _CONTEXT.Process(target=main, args=(side, cpus, theirs), name=f"bench-{side.label}")
        with malloc.large_pages() if side.what == "program" else contextlib.nullcontext():  # as a run starts a worker
            self.process.start()
        theirs.close()
        try:
            self.open_s: float = self._answer()["open_s"]
        except BaseException:
            self.end()
            raise

    def seconds(self, work: str, times: int) -> float:
        """The seconds of doing the work so many times."""
        return float(self._answer(work, times))

    def about(self) -> dict[str, Any]:
        return dict(self._answer(ABOUT, 0))

    def _answer(self, *asked: Any) -> Any:
        """Ask the side, and wait for its answer. Raises: MixlabError: the side's own, or it has died."""
        try:
            if asked:
                self.connection.send(asked)
            answer = self.connection.recv()
        except (EOFError, OSError) as error:
            self.process.join()
            raise MixlabError(
                f"bench: the process of {self.side.label} ended with exit code {self.process.exitcode}; its last words "
                f"are above; -9 often means that it ran out of memory: try a smaller train.batch_size"
            ) from error
        if isinstance(answer, MixlabError):
            raise answer
        return answer

    def end(self) -> None:
        self.process.kill()
        self.process.join()


@contextmanager
def running(sides: Sequence[Side]) -> Iterator[list[Running]]:
    """The processes of sides, started one after the other and ended together."""
    started: list[Running] = []
    try:
        for side in sides:
            started.append(Running(side))
        yield started
    finally:
        for one in started:
            one.end()


@dataclass(frozen=True)
class Spread:
    """The median, least and most of some rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def take_turns(sides: Sequence[tuple[Running, str]], num_rounds: int, turn_s: float) -> list[list[float]]:
    """The seconds of one piece of work, for each (side, work) and round; a turn does as many as take `turn_s`."""
    times = [max(1, round(turn_s / one.seconds(work, 1))) for one, work in sides]
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(num_rounds):
        for i, (one, work) in enumerate(sides):
            time.sleep(REST_S)
            seconds[i].append(one.seconds(work, times[i]) / times[i])
    return seconds


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> Spread:
    """The ratio of their time to ours, round by round."""
    return Spread.of([a / b for a, b in zip(theirs, ours, strict=True)])
