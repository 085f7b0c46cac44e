"""Pixels that threads make ahead of the device: the same bytes whatever their number, bounded, and answered for."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.arrays import Array
from experiments.data import ahead
from experiments.data.ahead import Room
from experiments.data.pixels import DataLost, InMemory, OnDisk
from experiments.spec.trial import Trial
from experiments.training import host
from experiments.training.feed import Feed
from experiments.training.plan import step_examples
from tests.conftest import TIMEOUT_S, environment
from tests.test_plan import make_trial

SIDE, NUM, STEPS = 8, 60, 14
TRAINED = np.arange(5, NUM, dtype=np.int32)
AUGMENTED = {"inception": "tf", "randaugment": {"num": 2}, "erasing": 0.5, "repeat": 2}


def images(side: int = SIDE) -> Array:
    return np.random.default_rng(0).integers(0, 256, (NUM, side, side, 3), np.uint8)


def make(**augment: Any) -> Trial:
    """A trial of 8 x 8 pixels, of batches of 20, which are two parts."""
    from experiments.spec.config import RandAugmentConfig

    if "randaugment" in augment:
        augment["randaugment"] = RandAugmentConfig(**augment["randaugment"])
    trial = make_trial(train={"batch_size": 20, "steps": STEPS}, augment=augment)
    return replace(trial, info=replace(trial.info, image_size=SIDE, image_channels=3))


def taken(one: Feed, lengths: list[int]) -> Array:
    """The pixels of the next steps, taken in parts."""
    parts = [one.take(num)[:num].copy() for num in lengths]
    one.close()
    return np.concatenate(parts)


def by_rows(trial: Trial, source: Any, first: int, last: int) -> Array:
    """The pixels of steps, each row made for itself."""
    prepare, steps = host.of(trial), []
    for step in range(first, last):
        (numbers,) = step_examples(trial, TRAINED, step, 1)
        draws = prepare.draws(step)
        steps.append([prepare.apply(source.read(int(n)), draws, row) for row, n in enumerate(numbers)])
    return np.array(steps)


@pytest.mark.parametrize("augment", [{}, AUGMENTED], ids=["as stored", "augmented"])
def test_the_bytes_are_those_of_each_row_alone_whatever_the_number_of_threads(augment: dict[str, Any]) -> None:
    trial, source = make(**augment), InMemory(images(12 if augment else SIDE))
    expected = by_rows(trial, source, 0, STEPS)
    for num_threads, lengths in ((1, [3, 1, 5, 5]), (2, [14]), (4, [1] * 14)):
        found = taken(Feed(trial, source, TRAINED, 0, STEPS, num_threads), lengths)
        np.testing.assert_array_equal(found, expected)


def test_a_feed_begins_at_any_step_and_reads_nothing_of_those_before() -> None:
    trial, source = make(), Counted(images())
    found = taken(Feed(trial, source, TRAINED, 9, STEPS, 2), [2, 3])
    np.testing.assert_array_equal(found, by_rows(trial, InMemory(images()), 9, STEPS))
    assert source.num_read == 5 * 20


class Counted(InMemory):
    """Counts what is read; waits at a number of images until it is let through."""

    def __init__(self, images: Array, stalls_at: int | None = None):
        super().__init__(images)
        self.num_read, self.stalls_at, self.through = 0, stalls_at, threading.Event()
        self.lock, self.stalled = threading.Lock(), threading.Event()

    def read(self, number: int) -> Array:
        with self.lock:
            self.num_read += 1
            stalls = self.stalls_at is not None and self.num_read > self.stalls_at
        if stalls:
            self.stalled.set()
            assert self.through.wait(TIMEOUT_S)
        return super().read(number)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def test_what_is_made_ahead_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    trial, source = make(), Counted(images())
    step_bytes = 20 * SIDE * SIDE * 3
    monkeypatch.setattr(ahead, "CHUNK_BYTES", 2 * step_bytes)
    monkeypatch.setattr(ahead, "AHEAD_BYTES", 3 * step_bytes)
    one = Feed(trial, source, TRAINED, 0, STEPS, 3)
    assert Room.of(trial).num_bytes == 5 * step_bytes and len(one.take(1)) == 2
    until(lambda: source.num_read == 4 * 20)  # the step that was taken, and three ahead
    held = one.chunk.nbytes + sum(slot.pixels.nbytes for slot in one.slots.values())
    assert held == 5 * step_bytes and source.num_read == 4 * 20
    one.close()


def test_a_batch_larger_than_the_room_is_still_made() -> None:
    room = Room(step_bytes=10 * ahead.AHEAD_BYTES)
    assert (room.chunk, room.ahead) == (1, 2)


class Lost(InMemory):
    """An image of it cannot be read."""

    def read(self, number: int) -> Array:
        if number == 40:
            raise DataLost("data: image 40 is gone; bring it back")
        return super().read(number)


@pytest.mark.parametrize("num_threads", [1, 4])
def test_steps_before_a_lost_image_are_given_and_its_own_is_refused(num_threads: int) -> None:
    trial = make()
    lost_in = next(s for s in range(STEPS) if 40 in step_examples(trial, TRAINED, s, 1))
    assert lost_in == 1  # else the test would show nothing
    one = Feed(trial, Lost(images()), TRAINED, 0, STEPS, num_threads)
    np.testing.assert_array_equal(one.take(1)[:1], by_rows(trial, InMemory(images()), 0, 1))
    with pytest.raises(DataLost, match="image 40 is gone"):
        one.take(1)


def test_a_wait_is_over_when_its_seconds_are() -> None:
    source = Counted(images(), stalls_at=25)
    one = Feed(make(), source, TRAINED, 0, STEPS, 1)
    assert one.wait(1, TIMEOUT_S) and not one.wait(2, 0.01)
    one.close()
    source.through.set()


def test_a_file_that_was_cut_off_is_told_with_its_length(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    np.save(path, images())
    trial, source = make(), OnDisk(path)
    np.testing.assert_array_equal(taken(Feed(trial, source, TRAINED, 0, 2, 2), [2]), by_rows(trial, source, 0, 2))
    os.truncate(path, path.stat().st_size - 20 * SIDE * SIDE * 3)
    one = Feed(trial, source, TRAINED, 0, STEPS, 2)
    with pytest.raises(DataLost, match=r"images\.npy ends at byte"):
        taken(one, [4, 4, 4, 2])


def test_a_file_that_was_removed_is_read_to_the_end_by_who_has_it_open(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    np.save(path, images())
    trial, source = make(), OnDisk(path)
    path.unlink()
    np.testing.assert_array_equal(taken(Feed(trial, source, TRAINED, 0, 2, 2), [2]), by_rows(trial, source, 0, 2))


def test_a_server_that_lost_the_file_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS answers where another machine has removed the file."""
    path = tmp_path / "images.npy"
    np.save(path, images())
    source = OnDisk(path)

    def stale(*arguments: Any) -> bytes:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(os, "pread", stale)
    with pytest.raises(DataLost, match=r"images\.npy cannot be read \(Stale file handle\); bring it back"):
        Feed(make(), source, TRAINED, 0, STEPS, 2).take(1)


STALLED = """
import threading
from tests.test_feed import TRAINED, STEPS, Counted, Feed, images, make
one = Feed(make(), Counted(images(), stalls_at=3), TRAINED, 0, STEPS, 2)
assert not one.wait(1, 0.2)
print("ends", flush=True)
"""


def test_a_disk_that_never_answers_holds_up_no_end_of_the_process() -> None:
    """By Python's own end; a worker's is os._exit, which waits for nothing."""
    command = [sys.executable, "-c", STALLED]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ends\n", "")


INTERRUPTED = """
import os, signal, threading
from experiments.data import ahead
from experiments.data.pixels import Framed
from tests.test_feed import NUM, SIDE, Counted, images
source = Counted(images(), stalls_at={stalls_at})
threading.Thread(target=lambda: (source.stalled.wait(), os.kill(os.getpid(), signal.SIGINT)), daemon=True).start()
try:
    Framed(source, SIDE, 3)[{index}]
except KeyboardInterrupt:
    print("ends", flush=True)
"""


@pytest.mark.parametrize(("stalls_at", "index"), [(0, ":1"), (3, ":"), (40, ":"), (3, "list(range(50))")])
def test_ctrl_c_ends_the_reading_of_images_from_a_disk_that_never_answers(stalls_at: int, index: str) -> None:
    """As `mixlab evaluate` and `mixlab predict` read them."""
    command = [sys.executable, "-c", INTERRUPTED.format(stalls_at=stalls_at, index=index)]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ends\n", "")


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, NUM])
def test_all_images_are_read_in_their_order_also_those_of_several_sizes(size: int) -> None:
    numbers = np.random.default_rng(size).permutation(NUM)[:size].tolist()
    asked: list[int] = []
    found = ahead.whole(InMemory(images()).read, (SIDE, SIDE, 3), numbers, lambda: asked.append(1))
    assert found.dtype == np.uint8 and np.array_equal(found, images()[numbers]) and bool(asked) == bool(size)
    several = [image[: 1 + i % SIDE] for i, image in enumerate(images())]
    objects = ahead.whole(InMemory(several).read, (), numbers, lambda: None)
    assert len(objects) == size and all(map(np.array_equal, objects, (several[number] for number in numbers)))
