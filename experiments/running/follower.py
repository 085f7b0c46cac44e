"""A process that trains trials together with a leader: it does what the leader tells, on its own device."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import backends
from backends.errors import MixlabError
from backends.microbatches import Group
from experiments.data.ahead import WAIT_S, Interrupted
from experiments.running.failures import failure
from experiments.running.group import EXCHANGE_S
from experiments.running.meeting import meet
from experiments.running.messages import Fed, Halt, Join, Load, Open, Say, States, Steps, Waits, other_step
from experiments.running.opener import Opened, Opener, Spending, WorkerSpec
from experiments.running.place import take_place
from experiments.running.shares import said
from experiments.spec.trial import Trial
from experiments.training.feed import Feed, Feeds, read_by
from experiments.training.plan import step_plan


def follow(spec: WorkerSpec, group: Group, address: Any, key: bytes) -> None:
    """Join a group, and do what its leader tells until it or who has started this process goes away.

    Args: address, key: of the leader's Listener.
    """
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the leader decides
    take_place(spec)
    connection = meet(group, address, key)
    try:
        Follower(spec, group, connection).run()
    except (EOFError, ConnectionError):  # the leader has gone
        os._exit(1)
    except BaseException as error:
        with contextlib.suppress(OSError):
            connection.send(failure(error))
        traceback.print_exception(error)
        sys.stderr.flush()
        os._exit(1)


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


class Follower:
    """Trains trials with a leader."""

    def __init__(self, spec: WorkerSpec, group: Group, connection: Connection):
        self.spec, self.group, self.connection = spec, group, connection
        self.opener = Opener(spec, Spending({}), lambda: None, group)
        self.trial: Trial | None = None
        self.opened: Opened | None = None
        self.feeds = Feeds([])
        self.step = 0  # of its state

    def run(self) -> None:
        """Do one thing after the other.  Raises: EOFError: the leader has gone; what the training raises."""
        while True:
            message = self.connection.recv()
            if isinstance(message, Join):
                backends.load(self.spec.backend).join(self.group, message.address, EXCHANGE_S)
            elif isinstance(message, Open):
                self._open(message.trial)
            elif isinstance(message, Load):
                self._load(message)
            elif isinstance(message, Fed):
                self._tell_fed(message)
            elif isinstance(message, Steps):
                self._train(message)
            elif isinstance(message, Say):
                self._say(message)
            elif isinstance(message, States):
                self._give()
            elif isinstance(message, Halt):
                self.connection.send(message)

    def _open(self, trial: Trial) -> None:
        self.feeds.close()
        self.opened, self.trial = None, trial
        try:
            self.opened = self.opener.open(trial, 1)
        except Exception as error:  # of this trial; the next one may open
            self.connection.send(failure(error))
        else:
            self.connection.send(None)

    def _load(self, message: Load) -> None:
        assert self.trial is not None and self.opened is not None
        self.opened.program.load([message.state])
        self.step = message.first_step
        source, splits = self.opened.stored.source, self.opened.stored.splits
        self.feeds.close()
        if source is not None:
            span = (splits.train, message.first_step, message.last_step, len(self.spec.cpus), self.group)
            self.feeds = Feeds([Feed(self.trial, read_by(self.trial, source, splits), *span)])

    def _tell_fed(self, message: Fed) -> None:
        is_fed = self.feeds.wait(message.num, WAIT_S)
        try:
            self.feeds.check(message.num)
        except Exception as error:  # of an image: the state is sound, and the leader saves it
            self.connection.send(failure(error))
        else:
            self.connection.send(is_fed)

    def _train(self, message: Steps) -> None:
        assert self.trial is not None and self.opened is not None
        self._check_step(message.first)
        plan = step_plan(self.trial, self.opened.stored.splits.train, message.first, message.num)
        (metrics,) = self.opened.program.train([replace(plan, pixels=self.feeds.take(self.trial.id, message.num))])
        self.step += len(metrics.loss)
        self._check_step(message.first + message.num)

    def _check_step(self, expected: int) -> None:
        """Raises: MixlabError: its state is of another step than that of its leader."""
        if self.step != expected:
            raise MixlabError(other_step(expected, self.step))

    def _say(self, message: Say) -> None:
        assert self.opened is not None
        self._check_step(message.step)
        program, images = self.opened.program, self.opened.stored.splits.images
        with contextlib.suppress(Interrupted):
            for answer in said(program, images, message.indices, self.group, len(self.spec.cpus), self._wait):
                if self.connection.poll():
                    return
                self.connection.send(answer)

    def _wait(self) -> None:
        """An evaluation waits for images.  Raises: Interrupted: its leader tells to halt."""
        if self.connection.poll():
            raise Interrupted
        self.connection.send(Waits())

    def _give(self) -> None:
        assert self.opened is not None
        self.opened.program.states(wanted=False)
