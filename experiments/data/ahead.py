"""Images that threads read and make ahead of who takes them, in order, bounded in memory.

Any thread makes any part, so that the bytes are the same whatever the number of threads. Threads serve, as decoders,
resizing and reading let others run; they end with the process, also where a read never returns. Who takes images is
never in a read itself, so that a disk that has stalled holds up no stop.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from backends.arrays import Array, Shape
from backends.contract import MAX_PIXEL_STEPS
from experiments.spec.trial import Trial

CHUNK_BYTES = 128 * 2**20  # of what one call of `train` gets, but for one step at least
AHEAD_BYTES = 2 * CHUNK_BYTES  # of what is made ahead, but for two steps at least
PART = 16  # images of a step that a thread makes at a time
WAIT_S = 0.25  # between two looks at whether to stop, while images are waited for

Row = Callable[[int], Array]  # the image of a row of a batch, or of a number


class Interrupted(Exception):
    """Who waited for images was asked to stop."""


@dataclass(frozen=True)
class Room:
    """How many steps are held at a time, and the bytes that they take."""

    step_bytes: int
    most: int = MAX_PIXEL_STEPS  # steps of one call of `train`

    @classmethod
    def of(cls, trial: Trial) -> "Room":
        """Of the images that one process reads: with microbatches, the partners of mixup are read for themselves."""
        rows = trial.train.batch_size // trial.run.devices
        if trial.train.microbatches > 1 and trial.data.augment.mixes:
            rows *= 2
        return cls(rows * trial.info.image_size**2 * trial.info.image_channels)

    @property
    def chunk(self) -> int:
        """Steps that one call of `train` takes at most; k of StepPlan.pixels."""
        return max(1, min(self.most, CHUNK_BYTES // self.step_bytes))

    @property
    def ahead(self) -> int:
        """Steps that are made ahead."""
        return max(2, min(4 * self.most, AHEAD_BYTES // self.step_bytes))

    @property
    def num_bytes(self) -> int:
        """Bytes of both, in the memory of the host, whatever the size of the data set."""
        return (self.chunk + self.ahead) * self.step_bytes


@dataclass
class Slot:
    """One step in the making. left: parts that are not made yet.   make: its rows, once somebody has begun."""

    step: int
    pixels: Array
    left: int
    make: Row | None = None
    beginning: threading.Lock = field(default_factory=threading.Lock)

    def fill(self, of_step: Callable[[int], Row], rows: range) -> None:
        """Make some rows of the batch.  Raises: DataLost, and what an augmentation raises."""
        with self.beginning:
            self.make = make = self.make or of_step(self.step)
        for row in rows:
            self.pixels[row] = make(row)


class Ahead:
    """Batches of images that threads make, in the order in which they are taken."""

    def __init__(self, of_step: Callable[[int], Row], shape: Shape, steps: range, room: Room, num_threads: int):
        """Begin to make the batches of some steps.

        Args: of_step: gives what makes each row of a step, in any thread.
              shape: (b, h, w, c) of a step; (b,): images of several sizes, one object each.
        """
        self.of_step, self.shape, self.room = of_step, shape, room
        self.dtype = np.dtype(np.uint8 if len(shape) > 1 else object)
        self.chunk = np.zeros((room.chunk, *shape), self.dtype)
        self.parts = [range(i, min(i + PART, shape[0])) for i in range(0, shape[0], PART)]
        self.slots: dict[int, Slot] = {}
        self.free: list[Array] = []  # arrays of steps that were taken
        self.step = self.next_step = steps.start
        self.next_part, self.last_step = 0, steps.stop
        self.error: BaseException | None = None
        self.is_closed = False
        self.changed = threading.Condition()
        for i in range(num_threads):
            threading.Thread(target=self._work, name=f"ahead {i}", daemon=True).start()

    def wait(self, num_steps: int, seconds: float) -> bool:
        """Wait until so many steps can be taken, or their failure is known; False: the seconds are over before."""
        with self.changed:
            return self.changed.wait_for(lambda: self.error is not None or self._are_made(num_steps), seconds)

    def check(self, num_steps: int) -> None:
        """Raises: DataLost, or what else a thread met that keeps so many steps from being made."""
        with self.changed:
            if self.error is not None and not self._are_made(num_steps):
                raise self.error

    def take(self, num_steps: int) -> Array:
        """The pixels of the next steps, uint8 (k, b, h, w, c); a later call writes over them.

        Raises: DataLost, or what else a thread met.
        """
        while not self.wait(num_steps, 1.0):
            pass
        self.check(num_steps)
        with self.changed:
            slots = [self.slots.pop(self.step + i) for i in range(num_steps)]
        for i, slot in enumerate(slots):
            self.chunk[i] = slot.pixels
        with self.changed:
            self.free += [slot.pixels for slot in slots]
            self.step += num_steps
            self.changed.notify_all()
        return self.chunk

    def close(self) -> None:
        """Let the threads end, each after the image that it reads."""
        with self.changed:
            self.is_closed = True
            self.slots.clear()
            self.free.clear()
            self.changed.notify_all()

    def _are_made(self, num_steps: int) -> bool:
        steps = range(self.step, self.step + num_steps)
        return all(step in self.slots and not self.slots[step].left for step in steps)

    def _work(self) -> None:
        try:
            while task := self._task():
                slot, rows = task
                slot.fill(self.of_step, rows)
                with self.changed:
                    slot.left -= 1
                    self.changed.notify_all()
        except BaseException as error:  # whatever it is, who waits for the pixels has to know it
            with self.changed:
                self.error = self.error or error
                self.changed.notify_all()

    def _task(self) -> tuple[Slot, range] | None:
        """The next part of a step to be made; None: there is none any more."""
        with self.changed:
            self.changed.wait_for(lambda: self._is_over or self.next_step < self.step + self.room.ahead)
            if self._is_over:
                return None
            slot = self.slots.get(self.next_step) or self._new_slot(self.next_step)
            rows = self.parts[self.next_part]
            self.next_part += 1
            if self.next_part == len(self.parts):
                self.next_step, self.next_part = self.next_step + 1, 0
            return slot, rows

    @property
    def _is_over(self) -> bool:
        return self.is_closed or self.error is not None or self.next_step >= self.last_step

    def _new_slot(self, step: int) -> Slot:
        pixels = self.free.pop() if self.free else np.empty(self.shape, self.dtype)
        self.slots[step] = slot = Slot(step, pixels, len(self.parts))
        return slot


def parts(
    read: Row, shape: Shape, numbers: Sequence[int], size: int, num_threads: int, idle: Callable[[], None]
) -> Iterator[Array]:
    """The images of some numbers, `size` at a time, read ahead; the last part is filled up to the one size.

    Args:   read: gives the image of a number.    shape: (h, w, c) of each; (): they have several sizes.
            idle: called every WAIT_S while a disk is waited for.
    Yields: (size, *shape); a later part writes over an earlier one.
    Raises: DataLost; what `idle` raises.
    """
    of_parts = [np.resize(numbers[i : i + size], size).tolist() for i in range(0, len(numbers), size)]

    def of_step(step: int) -> Row:
        return lambda row: read(of_parts[step][row])

    room = Room(size * prod(shape), most=1)
    ahead = Ahead(of_step, (size, *shape), range(len(of_parts)), room, num_threads)
    try:
        for _ in of_parts:
            while not ahead.wait(1, WAIT_S):
                idle()
            yield ahead.take(1)[0]
    finally:
        ahead.close()


def whole(read: Row, shape: Shape, numbers: Sequence[int], idle: Callable[[], None]) -> Array:
    """The images of some numbers, (n, *shape), read by a thread on each core; else see `parts`.

    Args: idle: called after each part too.
    """
    num_threads = len(os.sched_getaffinity(0))
    size = max(1, min(PART * num_threads, len(numbers)))
    images = np.empty((len(numbers), *shape), np.uint8 if shape else object)
    for i, part in enumerate(parts(read, shape, numbers, size, num_threads, idle)):
        rows = images[i * size : (i + 1) * size]
        rows[:] = part[: len(rows)]
        idle()
    return images
