"""Where the pixels of a trial's images come from while it trains: `data.storage`. It changes no result.

memory    images lie on the device, whole; with augmentation on the host, in the host's memory
disk      each image is read from a file of arrays as a step needs it
encoded   each image is read from its file's bytes, and decoded
auto      memory where the images fit; else disk, or encoded where the data was prepared so
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError
from experiments.data import Splits, ahead, decoded, limits
from experiments.data.pixels import Framed, InMemory, OnDisk, Pixels
from experiments.machine import memory
from experiments.running import fit
from experiments.spec.config import AUTO
from experiments.spec.trial import Trial
from experiments.training import host

DECODED_AT_ONCE = limits.PLANNED_BYTES  # of encoded images, which auto decodes into memory before the first step


@dataclass(frozen=True, eq=False)
class Stored:
    """splits: with images as evaluations read them there.   source: where each step's pixels are read; None: nowhere,
    as the device has all images.
    """

    storage: str
    splits: Splits
    source: Pixels | None


def choose(trial: Trial, splits: Splits, free_bytes: int | None) -> str:
    """The storage of a trial: memory, disk or encoded.

    Args:   free_bytes: of its device; None: it uses the machine's own memory.
    Raises: MixlabError: the data cannot be stored as `data.storage` asks.
    """
    asked, form = trial.data.storage, splits.pixels.form
    if asked == "encoded" and form != "encoded":
        raise MixlabError(
            f"trial {trial.id}: data.storage: encoded needs images that are encoded, and {trial.data.source!r} holds "
            f"arrays; set it to disk, or prepare the source with --keep or --encode"
        )
    if asked == "disk" and splits.pixels.shape is None and host.needed(trial.data.augment):
        raise MixlabError(
            f"trial {trial.id}: data.storage: disk needs images of one size where they are cropped as they are stored, "
            f"and those of {trial.data.source!r} have several; set it to encoded, or prepare the source with --resize"
        )
    if asked != AUTO:
        return asked
    num_bytes, on_disk = limits.decoded_bytes(splits.about), "encoded" if form == "encoded" else "disk"
    if form == "encoded" and num_bytes > DECODED_AT_ONCE:
        return on_disk
    available = memory.available_bytes()
    needed, free = (num_bytes, available) if free_bytes is None else (fit.need(trial, False).total, free_bytes)
    return "memory" if num_bytes <= available and needed <= free else on_disk


def stored(trial: Trial, splits: Splits, storage: str, cache: Path, idle: Callable[[], None] = lambda: None) -> Stored:
    """The images of a trial where `storage` has them.

    Args:   idle: called now and then while images are read; what it raises ends it.
    Raises: MixlabError: they do not fit into memory.   DataLost.   OSError: the data cache cannot be written.
    """
    framing = None
    if isinstance(splits.images, Framed):
        framing, splits = splits.images.config, replace(splits, images=splits.images.asking(idle))
    if storage == "memory":
        limits.check_memory(splits.about, trial.data.source, f"trial {trial.id}")
        if not host.needed(trial.data.augment):
            return Stored(storage, replace(splits, images=_whole(splits.images)), None)
        source: Pixels = _in_memory(splits.pixels, idle)
    elif storage == "disk" and splits.pixels.form == "encoded":
        source, framing = _on_disk(splits, cache), None
    else:
        source = splits.pixels
    size, channels = splits.about.image_size, splits.about.image_channels
    return Stored(storage, replace(splits, images=Framed(source, size, channels, framing)), source)


def _whole(images: Any) -> Array:
    """All images (n, h, w, c): a file of arrays as it is mapped, others as they are read."""
    return np.asarray(images[:] if isinstance(images, Framed) else images)


def _in_memory(pixels: Pixels, idle: Callable[[], None]) -> Pixels:
    """All images as they are stored, in memory."""
    if isinstance(pixels, InMemory):
        return pixels
    images = ahead.whole(pixels.read, pixels.shape or (), range(len(pixels)), idle)
    return InMemory(images if pixels.shape is not None else images.tolist())


def _on_disk(splits: Splits, cache: Path) -> Pixels:
    """The images decoded into the data cache, once for all trials, as a file of arrays."""
    if decoded.find(cache, splits.about.content) is None:
        decoded.keep(cache, splits.about, splits.images, splits.labels)
    return OnDisk(cache / splits.about.content / decoded.IMAGES)
