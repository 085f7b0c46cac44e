"""The one loop: train, evaluate, checkpoint, stop. Trials go in, and each comes out as it ends.

Trials that differ only in what arrays hold (see running/replicas.py) go through it as one program, replica by replica;
a trial alone is the same with one. Each keeps its own progress, claim and files: one that diverges, fails or loses its
claim leaves, and the others go on. With several, frameworks batch the products of all, whose sums may be taken in
another order: a replica's numbers are those of the trial alone up to rounding, not bit for bit, and its record says how
many trained together. How far they may part is the parity ladder's rung `replicas`.
"""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from backends.arrays import State
from backends.contract import StepMetrics, Trainer
from backends.microbatches import ALONE, Group
from experiments.data import Splits
from experiments.data.ahead import WAIT_S, Interrupted
from experiments.data.pixels import DataLost, Pixels
from experiments.files import StoreError
from experiments.results.metrics import EXCHANGE_SECONDS, SPLITS, WAIT_SECONDS
from experiments.training import probe
from experiments.training.evaluate import Evaluation, Predict, evaluate_each, fit_probes, predictor
from experiments.training.feed import Feed, Feeds, read_by
from experiments.training.plan import step_plan
from experiments.training.trial_run import Point, TrialRun

# A chunk of steps lasts about this long, so that progress is seen and a stop is answered soon.
CHUNK_S = 0.5
MAX_CHUNK_STEPS = 1024


class Stopped(Exception):
    """The trial was asked to stop and has saved its state."""


class Paused(Exception):
    """The trial has come to the step at which it was asked to pause, and has saved its state."""


Leaving = Iterator[tuple[TrialRun, Exception | None]]


class Loop:
    """Trials on one program, all at the same step."""

    def __init__(
        self,
        runs: Sequence[TrialRun],
        states: Sequence[State],
        program: Trainer,
        splits: Splits,
        until: int | None = None,
        source: Pixels | None = None,
        num_threads: int = 1,
        group: Group = ALONE,
        predictor: Callable[..., Predict] = predictor,
        fed: Callable[[int], bool] = lambda num_steps: True,
    ):
        """Bring trials onto a program.

        Args: runs: of trials that can be replicas, restored.    states: what `restore` gave of each.
              until: the step at which they pause, an evaluation's; None: to the end.
              source: where images are read from as they are stored, as they are trained on, those of splits through it;
                      None: the program has the images.
              num_threads: of each trial, that make its pixels, and those of evaluations.
              group: whose first process this is.    predictor: shares evaluations out in it, see evaluate.predictor.
              fed: tells whether its other processes have the pixels of so many steps.
        Raises: MixlabError: a probe is asked for of more examples of a class than there are.
        """
        self.runs, self.program, self.splits = list(runs), program, splits
        self.trial = runs[0].trial  # for what is the same in all
        self.last_step = until or self.trial.num_steps
        self.saved_at, self.step_s = time.monotonic(), 0.0
        self.shots = probe.draw(splits, self.trial.run.shots, "run.probe_shots")
        program.load(states)
        self.feeds, self.waited_s, self.waiting, self.num_threads = Feeds([]), 0.0, 0.0, num_threads
        self.group, self.predictor, self.fed = group, predictor, fed
        if source is not None:
            span = (splits.train, self.step, self.last_step, num_threads, group)
            self.feeds = Feeds([Feed(run.trial, read_by(run.trial, source, splits), *span) for run in self.runs])

    def run(self, should_stop: Callable[[], bool]) -> Leaving:
        """Train to the last step, or to that of a pause.

        Args:   should_stop: asked before the first chunk of steps, after each, and while images are waited for.
        Yields: each trial as it leaves, and what ended it: None: it is trained; Stopped, Paused, DataLost: its state is
                saved; Diverged, ClaimLost, StoreError: its own.
        Raises: what the program raises: it concerns all trials that have not left.
        """
        try:
            yield from self._run(should_stop)
        except (DataLost, Interrupted) as error:  # between two steps, or in an evaluation, which is made anew
            yield from self._save()
            yield from self._leave(error if isinstance(error, DataLost) else Stopped())
        finally:
            self.feeds.close()
            for run in self.runs:  # those that have not left: what ends them is raised here
                with contextlib.suppress(StoreError):
                    run.finish_saving()

    def _run(self, should_stop: Callable[[], bool]) -> Leaving:
        if should_stop() and self.step < self.last_step:
            yield from self._leave(Stopped())  # nothing is new, and the first chunk may take long to compile
        for run in self.runs:
            run.begin(len(self.runs))
        while self.runs and (self.step < self.last_step or self._is_due()):
            if self._is_due() or (yield from self._is_fed(num_steps := self._chunk(), should_stop)):
                yield from self._advance(0 if self._is_due() else num_steps, partial(self._idle, should_stop))
            stops = should_stop() and bool(self.runs) and self.step < self.last_step
            if stops or time.monotonic() - self.saved_at > self.trial.run.checkpoint_every_s:
                yield from self._save(beside=self.group.size > 1 and not stops)
            if stops:
                yield from self._leave(Stopped())
        if self.last_step < self.trial.num_steps:
            yield from self._leave(Paused())
        if self.runs:
            yield from self._each(TrialRun.keep, self.program.states())
        yield from self._leave(None)

    def _advance(self, num_steps: int, idle: Callable[[], None]) -> Leaving:
        """Train some steps, and evaluate where it is time to."""
        if num_steps:
            yield from self._each(TrialRun.take, self._train(num_steps))
        if self._is_due():
            yield from self._evaluate(idle)
        yield from self._say()

    def _is_due(self) -> bool:
        """Whether an evaluation is to be made now; one that was broken off is made where the trial goes on."""
        is_point = self.step % self.trial.train.evaluate_every == 0 or self.step == self.trial.num_steps
        return bool(self.step) and is_point and not all(run.has_point for run in self.runs)

    def _idle(self, should_stop: Callable[[], bool]) -> None:
        """A disk is waited for in an evaluation.  Raises: Interrupted; ClaimLost."""
        if should_stop():
            raise Interrupted
        for run in self.runs:
            run.say(self._images_per_s, 1.0)

    @property
    def step(self) -> int:
        return self.runs[0].progress.step if self.runs else 0

    @property
    def _images_per_s(self) -> float:
        """Of each trial by the clock; 0: not known. Their sum is what a record has: images by the share of the time."""
        return self.trial.train.batch_size / self.step_s if self.step_s else 0.0

    def _each(self, do: Callable[[TrialRun, Any], None], values: Sequence[Any]) -> Leaving:
        """Do it for each trial, with its own value; one that it ends leaves, and the others go on."""
        ended: dict[int, Exception | None] = {}
        for i, (run, value) in enumerate(zip(self.runs, values, strict=True)):
            try:
                do(run, value)
            except Exception as error:
                ended[i] = error
        yield from self._drop(ended)

    def _leave(self, error: Exception | None) -> Leaving:
        """All leave."""
        yield from self._drop(dict.fromkeys(range(len(self.runs)), error))

    def _drop(self, ended: dict[int, Exception | None]) -> Leaving:
        """Take trials out of the program, by their places."""
        leaving = [(self.runs[i], error) for i, error in ended.items()]
        for run, _ in leaving:
            self.feeds.close(run.trial.id)
            with contextlib.suppress(StoreError):  # it has saved since, or leaves with a reason of its own
                run.finish_saving()
        stay = [i for i in range(len(self.runs)) if i not in ended]
        if stay and ended:
            states = self.program.states()
            self.program.load([states[i] for i in stay])
        self.runs = [self.runs[i] for i in stay]
        yield from leaving

    def _is_fed(self, num_steps: int, should_stop: Callable[[], bool]) -> Generator[Any, None, bool]:
        """Wait for the pixels of the next steps, until somebody asks to stop; tells whether they are there."""
        if not self.feeds.feeds:
            return True
        start, compiled, is_fed = time.monotonic(), self.program.compile_s, False
        while self.runs and not (is_fed := self.feeds.wait(num_steps, WAIT_S) and self.fed(num_steps)):
            if should_stop():
                break
            self.waiting = 1.0
            yield from self._say()
        self.waited_s = self._spend(WAIT_SECONDS, start, compiled)
        return is_fed and bool(self.runs)

    def _say(self) -> Leaving:
        said = (self._images_per_s, self.waiting)
        yield from self._each(lambda run, values: run.say(*values), [said] * len(self.runs))

    def _chunk(self) -> int:
        """Steps until the next evaluation or the end, at most half a second's worth."""
        every = self.trial.train.evaluate_every
        until = min(every - self.step % every, self.last_step - self.step)
        affordable = int(CHUNK_S / self.step_s) if self.step_s else 1
        return max(1, min(until, affordable, self.feeds.chunk or MAX_CHUNK_STEPS))

    def _train(self, num_steps: int) -> list[StepMetrics]:
        plans = [step_plan(run.trial, self.splits.train, self.step, num_steps) for run in self.runs]
        pixels = [self.feeds.take(run.trial.id, num_steps) for run in self.runs]
        plans = [replace(plan, pixels=own) for plan, own in zip(plans, pixels, strict=True)]
        start, compiled, exchanged = time.monotonic(), self.program.compile_s, self._exchange_s
        metrics = self.program.train(plans)
        exchange_s = self._exchange_s - exchanged
        seconds = self.waited_s + self._spend("train", start, compiled)
        if exchange_s:
            self._book(EXCHANGE_SECONDS, exchange_s)
            self._book("train", -exchange_s)
        # a chunk that compiled says nothing of what a step takes
        self.step_s = seconds / num_steps if self.program.compile_s == compiled else 0.0
        self.waiting = self.waited_s / seconds if seconds else 0.0
        return metrics

    def _evaluate(self, idle: Callable[[], None]) -> Leaving:
        predict = self.predictor(self.program, self.splits.images, self.num_threads, idle)
        start, compiled = time.monotonic(), self.program.compile_s
        trained = self.splits.train[: self.trial.train.evaluate_train_examples]
        subsets = dict(zip(SPLITS, (trained, self.splits.validation, self.splits.test), strict=True))
        points: list[Point] = [dict.fromkeys(subsets) for _ in self.runs]
        probes = fit_probes(predict, self.shots)
        for name, indices in subsets.items():
            of_runs: list[Evaluation | None] = [None] * len(self.runs)
            if len(indices):
                loss = self.trial.train.loss
                of_runs = [*evaluate_each(predict, self.splits, indices, loss, probes)]
            points = [{**point, name: one} for point, one in zip(points, of_runs, strict=True)]
        self._spend("evaluate", start, compiled)
        yield from self._each(TrialRun.add_point, points)
        if any(run.is_to_save_best() for run in self.runs):
            yield from self._each(TrialRun.save_best, self.program.states())
        if self.step == self.last_step < self.trial.num_steps:
            yield from self._save()  # before the curve: who reads there that the trial has come so far relies on it
        yield from self._each(lambda run, _: run.write_curve(), self.runs)

    def _save(self, beside: bool = False) -> Leaving:
        """Args: beside: the others of the group would wait for this process at the next step."""
        if not self.runs:
            return
        start, saved = time.monotonic(), list(self.runs)
        yield from self._each(partial(TrialRun.save, beside=beside), self.program.states())
        self.saved_at = time.monotonic()
        for run in saved:
            run.checkpoint_s += (self.saved_at - start) / len(saved)

    def _spend(self, what: str, start: float, compiled: float) -> float:
        """Book the time since `start`, compilation apart, on all trials equally; returns the seconds without it."""
        compile_s = self.program.compile_s - compiled
        seconds = time.monotonic() - start - compile_s
        self._book(what, seconds)
        self._book("compile", compile_s)
        return seconds

    def _book(self, what: str, seconds: float) -> None:
        for run in self.runs:
            run.progress.seconds[what] = run.progress.seconds.get(what, 0.0) + seconds / len(self.runs)

    @property
    def _exchange_s(self) -> float:
        return self.program.exchange_s if self.group.size > 1 else 0.0
