"""The pixels of a trial's steps, read, decoded and augmented by threads ahead of the device.

Which examples a step has, and all that is drawn for them, follows from the seed and the step's number alone, so that a
run goes on at any step without reading those before it; see experiments/data/ahead.py for the threads.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from backends.arrays import Array
from backends.microbatches import ALONE, Group
from experiments.data import Splits, ahead
from experiments.data.ahead import Ahead, Room, Row
from experiments.data.pixels import Framed, Pixels
from experiments.spec.trial import Trial
from experiments.training import host
from experiments.training.plan import step_examples, step_rows


def read_by(trial: Trial, source: Pixels, splits: Splits) -> Pixels | Framed:
    """Where a trial's feed reads images: as they are stored, where a crop is cut out of them, else framed once.

    Of what is framed already, `data.shorter_side` would cut the middle out again.
    """
    return source if trial.data.augment.inception else splits.images


class Feed(Ahead):
    """The pixels of one trial, in the order of its steps."""

    def __init__(
        self,
        trial: Trial,
        source: Pixels | Framed,
        examples: Array,
        first_step: int,
        last_step: int,
        num_threads: int = 1,
        group: Group = ALONE,
    ):
        """Begin to make the pixels of the steps from first_step on, up to last_step.

        Args: source: see `read_by`.    examples: int32 (n,), the training examples as indices into it.
              group: of the process, which reads its rows alone.
        """
        self.trial, augment, side = trial, host.of(trial), trial.info.image_size

        def of_step(step: int) -> Row:
            numbers, draws = step_examples(trial, examples, step, 1)[0].tolist(), augment.draws(step)
            rows = step_rows(trial, step, group).tolist()
            return lambda place: augment.apply(source.read(numbers[rows[place]]), draws, rows[place])

        shape = (len(step_rows(trial, first_step, group)), side, side, trial.info.image_channels)
        super().__init__(of_step, shape, range(first_step, last_step), Room.of(trial), num_threads)


class Feeds:
    """The feeds of trials that train as one program, by the trial."""

    def __init__(self, feeds: Sequence[Feed]):
        self.feeds = {feed.trial.id: feed for feed in feeds}

    @property
    def chunk(self) -> int | None:
        """Steps of one call at most; None: no trial has a feed."""
        return min((feed.room.chunk for feed in self.feeds.values()), default=None)

    def wait(self, num_steps: int, seconds: float) -> bool:
        """Wait until so many steps of all can be taken; False: the seconds are over before."""
        until = time.monotonic() + seconds
        return all(feed.wait(num_steps, max(0.0, until - time.monotonic())) for feed in self.feeds.values())

    def check(self, num_steps: int) -> None:
        """Raises: what a thread met that keeps so many steps from being made."""
        for feed in self.feeds.values():
            feed.check(num_steps)

    def take(self, trial_id: str, num_steps: int) -> Array | None:
        """See Feed.take; None: the trial has no feed."""
        feed = self.feeds.get(trial_id)
        return feed.take(num_steps) if feed else None

    def close(self, *trial_ids: str) -> None:
        """Close the feeds of some trials, or of all."""
        for trial_id in trial_ids or list(self.feeds):
            if feed := self.feeds.pop(trial_id, None):
                feed.close()


def batches(
    images: Any, indices: Array, size: int, num_threads: int = 1, idle: Callable[[], None] = lambda: None
) -> Iterator[Array]:
    """The images (size, h, w, c) at some indices, part by part; the last part is filled up to the one size.

    Those that are read as they are asked for are read one part ahead; a later part writes over an earlier one.

    Args:   images: an array, or what is indexed as one.    idle: called every WAIT_S while a disk is waited for.
    Raises: DataLost; what `idle` raises.
    """
    if isinstance(images, Framed):
        yield from ahead.parts(images.read, images.shape[1:], indices.tolist(), size, num_threads, idle)
    else:
        yield from (images[np.resize(indices[i : i + size], size)] for i in range(0, len(indices), size))
