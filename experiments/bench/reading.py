"""What gives batches of a data set's training images: our feed, a framework's loader, and a decoder that does nothing
else. Each makes the batches that it is asked for from the first image on, and nothing ahead of the next call.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

import backends
from backends.bench import Load, Read
from backends.errors import MixlabError
from experiments import data
from experiments.data import Splits
from experiments.data.pixels import Encoded
from experiments.running import storage
from experiments.spec.config import INCEPTION_AREA
from experiments.spec.trial import Trial
from experiments.training.feed import Feed

Batches = Callable[[int], None]  # makes so many batches


def opened(what: str, trial: Trial, cache: Path) -> Batches:
    """What makes a number of batches, with as many threads or processes as this process has cores.

    Raises: MixlabError: the images cannot be read.
    """
    splits = data.load(trial.data, trial.info, cache)
    return WORKS[what](trial, splits, cache, len(os.sched_getaffinity(0)))


def _feed(trial: Trial, splits: Splits, cache: Path, num_threads: int) -> Batches:
    source = storage.stored(trial, splits, trial.data.storage, cache).source
    if source is None:
        raise MixlabError(
            "bench data: data.storage: with memory and nothing to do on the host, all images lie on the device and "
            "none is read; set it to disk or encoded, or give data.augment.inception"
        )
    step = 0

    def make(num: int) -> None:
        nonlocal step
        feed = Feed(trial, source, splits.train, step, step + num, num_threads)
        for _ in range(num):
            feed.take(1)
        feed.close()
        step += num

    return make


def _loader(trial: Trial, splits: Splits, cache: Path, num_workers: int) -> Batches:
    augment, info = trial.data.augment, trial.info
    least = (augment.inception_area or INCEPTION_AREA[augment.inception]) if augment.inception else None
    load = Load(info.image_size, info.image_channels, least, augment.flip, trial.train.batch_size, num_workers)
    reads, numbers = backends.load_loader("torch").open_loader(_stored_of(splits), load), _numbers(splits)
    return lambda num: reads(list(itertools.islice(numbers, num * load.batch_size)))


def _decoder(trial: Trial, splits: Splits, cache: Path, num_threads: int) -> Batches:
    read, numbers, pool = _stored_of(splits), _numbers(splits), ThreadPoolExecutor(num_threads)
    mode = "L" if trial.info.image_channels == 1 else "RGB"

    def decode(chosen: list[int]) -> None:
        for number in chosen:
            content = read(number)
            if isinstance(content, bytes):
                with Image.open(BytesIO(content)) as image:
                    np.asarray(image.convert(mode))

    def make(num: int) -> None:
        chosen = list(itertools.islice(numbers, num * trial.train.batch_size))
        list(pool.map(decode, (chosen[i::num_threads] for i in range(num_threads))))

    return make


def _stored_of(splits: Splits) -> Read:
    """What gives an image as it is stored: the bytes of its file, where there is one."""
    pixels = splits.pixels
    return pixels.encoded if isinstance(pixels, Encoded) else pixels.read


def _numbers(splits: Splits) -> Iterator[int]:
    """The training examples in a random order, again and again."""
    return itertools.cycle(np.random.default_rng(0).permutation(splits.train).tolist())


FEED, LOADER, DECODER = "feed", "torch's loader", "bare decoder"
WORKS = {FEED: _feed, LOADER: _loader, DECODER: _decoder}
