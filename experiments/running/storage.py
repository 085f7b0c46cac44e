"""Where the pixels of a trial's images come from while it trains: `data.storage`. It changes no result.

memory    images lie on the device, whole; with augmentation on the host, in the host's memory, for inception crops as
          they are stored
disk      each image is read from a file of arrays as a step needs it; encoded ones are decoded into the cache once
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
from experiments.data import Splits, ahead, decoded, limits, stored_form
from experiments.data.pixels import Framed, InMemory, OnDisk, Pixels
from experiments.machine import memory
from experiments.running import fit
from experiments.spec.config import AUTO, DataConfig
from experiments.spec.trial import Trial
from experiments.training import host

GIB = 2**30
DECODED_AT_ONCE = limits.PLANNED_BYTES  # of encoded images, which auto decodes into memory before the first step


@dataclass(frozen=True, eq=False)
class Stored:
    """splits: with images as evaluations read them there.   source: where each step's pixels are read; None: nowhere,
    as the device has all images.
    """

    storage: str
    splits: Splits
    source: Pixels | None


def choose(trial: Trial, splits: Splits, free_bytes: int | None, num_here: int = 1) -> str:
    """The storage of a trial: memory, disk or encoded.

    Args:   free_bytes: of its device; None: it uses the machine's own memory.
            num_here: processes of this machine that train it, each with images of its own.
    Raises: MixlabError: the data cannot be stored as `data.storage` asks.
    """
    asked, form = trial.data.storage, splits.pixels.form
    if why := stored_form.fault(trial.data, form == "encoded", _framing(splits) is not None):
        raise MixlabError(f"trial {trial.id}: {why}")
    if asked != AUTO:
        return asked
    num_bytes = fit.images_bytes(trial) if trial.data.augment.inception else limits.decoded_bytes(splits.about)
    available, on_disk = memory.available_bytes() // num_here, "encoded" if form == "encoded" else "disk"
    if not _is_taken(form, num_bytes, available):
        return on_disk
    needed, free = (num_bytes, available) if free_bytes is None else (fit.need(trial, False).total, free_bytes)
    return "memory" if needed <= free else on_disk


def held_bytes(trial: Trial) -> int:
    """Bytes of the images that the host's memory holds beside those of the steps, as a plan tells; 0: none."""
    asked = trial.data.storage
    if not host.needed(trial.data.augment) or asked in ("disk", "encoded"):
        return 0
    num_bytes, form = fit.images_bytes(trial), stored_form.form(trial.data.source, trial.info.content)
    return num_bytes if asked == "memory" or _is_taken(form, num_bytes, memory.available_bytes()) else 0


def needed_bytes(trial: Trial, on_host: bool | None = None) -> int:
    """The estimate of what a trial needs at its peak: of its device, or of the machine if it runs on the CPU.

    There it is of all processes that train the trial.

    Args: on_host: it runs on the CPU; None: as `run.device` says, and `auto` is taken for a CPU, which needs more.
    """
    on_host = trial.run.device in ("auto", "cpu") if on_host is None else on_host
    own = fit.need(trial, on_host).total + on_host * held_bytes(trial)
    return own * trial.run.devices if on_host else own


def needed_of_device(trial: Trial, free_bytes: float) -> int:
    """The estimate of what a trial needs of a device that has so much.

    Where `auto` finds no room for the images there, they come as it trains, see `choose`.
    """
    whole = fit.need(trial, False).total
    if whole <= free_bytes or trial.data.storage != AUTO:
        return whole
    return min(whole, fit.need(trial, False, streams=True).total)


def _is_taken(form: str, num_bytes: int, available_bytes: int) -> bool:
    """Whether `auto` takes images into memory, by their form there and their bytes."""
    return num_bytes <= available_bytes and (form != "encoded" or num_bytes <= DECODED_AT_ONCE)


def stored(trial: Trial, splits: Splits, storage: str, cache: Path, idle: Callable[[], None] = lambda: None) -> Stored:
    """The images of a trial where `storage` has them.

    Args:   idle: called now and then while images are read; what it raises ends it.
    Raises: MixlabError: they do not fit into memory.   DataLost.   OSError: the data cache cannot be written.
    """
    framing = _framing(splits)
    if isinstance(splits.images, Framed):
        splits = replace(splits, images=splits.images.asking(idle))
    if storage == "memory":
        if trial.data.augment.inception:
            _check_memory(trial)
        else:
            limits.check_memory(splits.about, trial.data.source, f"trial {trial.id}")
        if not host.needed(trial.data.augment):
            return Stored(storage, replace(splits, images=_whole(splits.images)), None)
        if framing and not trial.data.augment.inception:  # which alone needs images as they are stored
            source: Pixels = InMemory(_whole(splits.images))
            framing = None
        else:
            source = _in_memory(splits.pixels, idle)
    elif storage == "disk" and splits.pixels.form == "encoded":
        source, framing = _on_disk(splits, cache), None
    else:
        source = splits.pixels
    size, channels = splits.about.image_size, splits.about.image_channels
    return Stored(storage, replace(splits, images=Framed(source, size, channels, framing)), source)


def _framing(splits: Splits) -> DataConfig | None:
    """How images are framed when they are read; None: they are stored as a trial wants them."""
    return splits.images.config if isinstance(splits.images, Framed) else None


def _check_memory(trial: Trial) -> None:
    """Check that the images fit into memory as they are stored.  Raises: MixlabError: gives both numbers."""
    needed, available = fit.images_bytes(trial), memory.available_bytes()
    if needed > available:
        raise MixlabError(
            f"trial {trial.id}: data.storage: the images of {trial.data.source!r} as they are stored, which "
            f"data.augment.inception crops, take {needed / GIB:.2f} GiB and {available / GIB:.2f} GiB of memory are "
            f"available; set it to encoded or disk, or prepare the source with a smaller --resize"
        )


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
