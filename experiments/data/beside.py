"""Processes beside this one that work off chunks, each over a pipe of its own.

ProcessPoolExecutor has one pipe and one lock for all answers: where a process is killed in the middle of its answer, it
waits for the rest for ever. The end of a pipe that nobody else holds is seen at once.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any


class Killed(Exception):
    """A process is gone."""


class Beside:
    """A process that answers one question after the other.  Args: begin: called there first."""

    def __init__(self, begin: Callable[[], None]):
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, begin), daemon=True)
        self.process.start()
        other.close()

    def ask(self, work: Callable[[Any], Any], argument: Any) -> Any:
        """What `work` returns there.  Raises: what it raises there.    Killed."""
        try:
            self.pipe.send((work, argument))
            answer, error = self.pipe.recv()
        except (EOFError, OSError) as lost:  # OSError: in the middle of an answer
            raise Killed from lost
        if error is not None:
            raise error
        return answer


class Pool:
    """Some such processes; a thread waits for each."""

    def __init__(self, number: int, begin: Callable[[], None]):
        self.processes = [Beside(begin) for _ in range(number)]
        self.threads = ThreadPoolExecutor(number)
        self.idle: SimpleQueue[Beside] = SimpleQueue()
        for one in self.processes:
            self.idle.put(one)

    def submit(self, work: Callable[[Any], Any], argument: Any) -> "Future[Any]":
        return self.threads.submit(self._ask, work, argument)

    def _ask(self, work: Callable[[Any], Any], argument: Any) -> Any:
        one = self.idle.get()
        try:
            return one.ask(work, argument)
        finally:
            self.idle.put(one)

    def end(self) -> None:
        """End the processes, whatever they do."""
        for one in self.processes:
            one.process.kill()
        self.threads.shutdown(cancel_futures=True)
        for one in self.processes:
            one.process.join()


def _serve(pipe: Any, begin: Callable[[], None]) -> None:
    begin()
    while True:
        try:
            work, argument = pipe.recv()
        except EOFError:
            return
        answer: Any = None
        failure: Exception | None = None
        try:
            answer = work(argument)
        except Exception as error:
            failure = error
        pipe.send((answer, failure))
