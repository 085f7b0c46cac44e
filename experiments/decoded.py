"""Decoded images on disk: `<cache>/<key>/images.npy`, `labels.npy` and `about.json`, decoded once for all trials.

An entry is made in a folder of its own and renamed when it is whole, so any number of processes may make it at once.
"""

import dataclasses
import os
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from backends.contract import Array
from backends.errors import MixlabError
from experiments import notes, pictures
from experiments.sources import HUB_FOLDER, read_source
from experiments.spec import DataConfig

LAYOUT = 1  # raise it when the same fields would decode to other arrays
GIB = 2**30
COMMON_FIELDS = ("image_size", "image_channels", "train_split", "test_split", "image_column", "label_column")
SYNTHETIC_FIELDS = ("num_classes", "num_examples", "split_seed")


@dataclass(frozen=True)
class About:
    """num_train and num_test: examples of the source's splits; num_test 0: the source has no test split."""

    fingerprint: str
    num_train: int
    num_test: int
    num_classes: int
    image_size: int
    image_channels: int


@dataclass(frozen=True, eq=False)
class Entry:
    """images: uint8 (n, h, w, c), labels: int32 (n,), both memory-mapped, the training split first."""

    about: About
    images: Array
    labels: Array


def find(config: DataConfig, fingerprint: str, cache: Path) -> Entry | None:
    """The whole entry, if there is one; a damaged one is removed.

    Raises: OSError: it is there and cannot be read.
    """
    question = _question(config, fingerprint)
    if config.image_size is None or config.image_channels is None:
        known = notes.recall(cache, ["sizes", question])
        if known is None:
            return None
        config = dataclasses.replace(config, image_size=known[0], image_channels=known[1])
    folder = cache / notes.digest(_question(config, fingerprint))
    try:
        return _read(folder)
    except FileNotFoundError:
        damaged = folder.exists()
    except (ValueError, TypeError, EOFError, NotADirectoryError):
        damaged = True
    if damaged:
        _set_aside(folder)
    return None


def build(config: DataConfig, fingerprint: str, cache: Path, where: str) -> Entry:
    """Read and decode the source, and publish the entry; where another process was first, its entry is taken.

    Raises: MixlabError: the source is of no use, or exceeds the memory.  OSError: the cache cannot be written.
    """
    staging = cache / f".new-{uuid.uuid4().hex}"
    made = staging / "entry"
    try:
        made.mkdir(parents=True)
        is_folder = Path(config.source).expanduser().is_dir()
        source = read_source(config, staging / "arrow" if is_folder else cache / HUB_FOLDER, where)
        size, channels = pictures.survey(source, config.image_size, config.image_channels, where)
        labels = np.concatenate([split.labels for split in source.splits])
        about = About(
            fingerprint=fingerprint,
            num_train=len(source.train.labels),
            num_test=len(labels) - len(source.train.labels),
            num_classes=source.num_classes,
            image_size=size,
            image_channels=channels,
        )
        _check_memory(about, config.source, where)
        resize = config.image_size is not None
        images = chain(*(pictures.decode(split, size, channels, resize, where) for split in source.splits))
        _write_array(made / "images.npy", (len(labels), size, size, channels), np.uint8, images)
        _write_array(made / "labels.npy", labels.shape, np.int32, [labels])
        notes.write_whole(made / "about.json", dataclasses.asdict(about))
        resolved = dataclasses.replace(config, image_size=size, image_channels=channels)
        folder = cache / notes.digest(_question(resolved, fingerprint))
        _publish(made, folder)
        notes.remember(cache, ["sizes", _question(config, fingerprint)], [size, channels])
        return _read(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _question(config: DataConfig, fingerprint: str) -> dict[str, Any]:
    """The fields that change the decoded arrays."""
    names = COMMON_FIELDS + (SYNTHETIC_FIELDS if config.source == "synthetic" else ())
    return {"layout": LAYOUT, "fingerprint": fingerprint, **{name: getattr(config, name) for name in names}}


def _check_memory(about: About, source: str, where: str) -> None:
    num = about.num_train + about.num_test
    shape = f"{about.image_size} x {about.image_size} x {about.image_channels}"
    needed = num * about.image_size**2 * about.image_channels
    available = psutil.virtual_memory().available
    if needed > available:
        raise MixlabError(
            f"{where}: data.source: {source!r} decodes to {needed / GIB:.2f} GiB ({num} images of {shape} bytes) "
            f"and {available / GIB:.2f} GiB of memory are available; "
            f"set a smaller data.image_size or take a machine with more"
        )


def _write_array(path: Path, shape: tuple[int, ...], dtype: Any, parts: Iterable[Array]) -> None:
    """Write an .npy file part by part. A memory map would die of a bus error where a disk is full."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype).data)
        file.flush()
        os.fsync(file.fileno())


def _read(folder: Path) -> Entry:
    """Raises: ValueError, TypeError, EOFError: the entry is damaged."""
    about = About(**notes.read(folder / "about.json"))
    images, labels = (_map(folder / name) for name in ("images.npy", "labels.npy"))
    num = about.num_train + about.num_test
    if images.shape != (num, about.image_size, about.image_size, about.image_channels) or labels.shape != (num,):
        raise ValueError(f"{folder} is damaged")
    return Entry(about, images, labels)


def _map(path: Path) -> Array:
    array: np.memmap[Any, Any] = np.load(path, mmap_mode="r")
    if array.offset + array.nbytes != path.stat().st_size:
        raise ValueError(f"{path} is damaged")
    return array


def _publish(made: Path, folder: Path) -> None:
    """Rename; an entry that is there already stays, and the one just made is left to be removed."""
    try:
        made.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _set_aside(folder: Path) -> None:
    """Out of the way in one step: whoever has it mapped keeps it."""
    aside = folder.with_name(f".damaged-{uuid.uuid4().hex}")
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return  # another process was first
    shutil.rmtree(aside, ignore_errors=True)
    if aside.is_file():
        aside.unlink()
