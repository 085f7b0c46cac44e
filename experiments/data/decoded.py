"""Decoded images on disk: `<cache>/<content>/images.npy`, `labels.npy` and `about.json`, decoded once for all trials.

An entry's name is the hash of what it holds. It is made in a folder of its own and renamed when it is whole, so any
number of processes may make it at once.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.arrays import Array
from experiments import clock
from experiments.data import pictures
from experiments.data.builtin import BUILT_IN, CHANNELS, SIZE
from experiments.data.checks import Watch, hash_of
from experiments.data.known import About, Facts
from experiments.data.limits import Purpose, check_decoded
from experiments.data.progress import tracked
from experiments.data.raw import RawSource
from experiments.data.sources import HUB_FOLDER, read_source
from experiments.data.tree import Tree
from experiments.files import replace
from experiments.spec.config import DataConfig

IMAGES, LABELS, HASHES = "images.npy", "labels.npy", "hashes.npy"  # files of an entry; hashes are of each image
AT_ONCE = 256  # images that are read together
ABANDONED_S = 3600.0  # an entry in the making that nobody has touched for so long was left by a kill


@dataclass(frozen=True, eq=False)
class Entry:
    """An entry of the cache, the training split first.

    images: uint8 (n, h, w, c), labels: int32 (n,), both memory-mapped.
    """

    about: About
    images: Array
    labels: Array


def find(cache: Path, content: str) -> Entry | None:
    """The entry of this content, if it is there and whole; a damaged one is removed.

    Raises: OSError: the entry is there and cannot be read.
    """
    folder = cache / content
    try:
        entry = _read(folder)
        if entry.about.content == content:
            return entry
    except FileNotFoundError:
        if not folder.exists():
            return None
    except (ValueError, TypeError, EOFError, NotADirectoryError):
        pass  # what cannot be read as an entry is damaged
    _remove(folder)
    return None


def hashes(cache: Path, entry: Entry) -> Array:
    """Hashes of the images, uint64 (n,), equal for equal images; made anew where an older entry does not hold them.

    Raises: OSError: the entry cannot be read.
    """
    with suppress(FileNotFoundError, ValueError, EOFError):
        kept = _map(cache / entry.about.content / HASHES)
        if kept.shape == entry.labels.shape:
            return kept
    return np.fromiter(map(hash_of, entry.images), np.uint64, len(entry.images))


def build(config: DataConfig, tree: Tree | None, cache: Path, purpose: Purpose, where: str) -> tuple[About, Facts]:
    """Read and decode the source, and publish the entry; where another process was first, its entry is taken.

    Args:   tree: the files of a folder; None: the source is built in or comes from the hub.
    Raises: MixlabError: the source is of no use, or larger than may be decoded for this purpose; nothing is decoded.
            OSError: the cache cannot be written.
    """
    _sweep(cache)
    staging = cache / f".new-{uuid.uuid4().hex}"
    made = staging / "entry"
    try:
        made.mkdir(parents=True)
        if config.source == "synthetic":  # its sizes are known before it is made
            size, channels = config.image_size or SIZE, config.image_channels or CHANNELS
            expected = About("", config.num_examples, 0, config.num_classes, size, channels)
            check_decoded(expected, config, purpose, where)
        elif purpose is not Purpose.PLANNING:  # a plan may still refuse to decode it, and announces it below
            _announce(config, cache)
        source = read_source(config, tree, staging / "arrow" if tree else cache / HUB_FOLDER, where)
        decoder = pictures.Decoder(source, config, where)
        expected = _expected(source, decoder)
        check_decoded(expected, config, purpose, where)
        if purpose is Purpose.PLANNING:
            _announce(config, cache)
        about, notes = _write_entry(made, source, decoder, expected)
        if find(cache, about.content) is None:
            _publish(made, cache / about.content)
        return about, Facts(source.kind, source.classes, (*source.notes, *notes))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def keep(cache: Path, about: About, images: Any, labels: Array) -> None:
    """Publish images that were decoded elsewhere as an entry; where another process was first, its entry stays.

    Args:   images: uint8 (n, h, w, c), or what is indexed as such an array is.
    Raises: OSError: the cache cannot be written.
    """
    _sweep(cache)
    staging = cache / f".new-{uuid.uuid4().hex}"
    made, watch = staging / "entry", Watch(labels)
    parts = (image for first in range(0, len(images), AT_ONCE) for image in images[first : first + AT_ONCE])
    try:
        made.mkdir(parents=True)
        _write_array(made / IMAGES, images.shape, np.uint8, watch.through(parts), hashlib.sha256())
        _write_array(made / LABELS, labels.shape, np.int32, [labels], hashlib.sha256())
        _write_array(made / HASHES, labels.shape, np.uint64, [watch.hashes], hashlib.sha256())
        replace(made / "about.json", json.dumps(dataclasses.asdict(about)).encode())
        if find(cache, about.content) is None:
            _publish(made, cache / about.content)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _announce(config: DataConfig, cache: Path) -> None:
    """Say to the user what takes long now."""
    if config.source not in BUILT_IN:
        print(f"mixlab: reading {config.source} into {cache}, once for all trials", file=sys.stderr, flush=True)


def _expected(source: RawSource, decoder: pictures.Decoder) -> About:
    """The sizes of the arrays to come; their content is not known yet."""
    num_train, num_test = len(source.train.labels), len(source.test.labels) if source.test else 0
    return About("", num_train, num_test, len(source.classes), decoder.size, decoder.channels)


def _write_entry(
    made: Path, source: RawSource, decoder: pictures.Decoder, about: About
) -> tuple[About, tuple[str, ...]]:
    """Decode into a folder; returns what the arrays are, and sentences on what was seen in their pixels."""
    size, channels = about.image_size, about.image_channels
    labels = np.concatenate([split.labels for split in source.splits])
    watch = Watch(labels)
    images = tracked(watch.through(decoder.images()), len(labels), f"decoding {decoder.config.source} ")
    digest = hashlib.sha256(json.dumps(dataclasses.astuple(about)).encode())
    _write_array(made / IMAGES, (len(labels), size, size, channels), np.uint8, images, digest)
    _write_array(made / LABELS, labels.shape, np.int32, [labels], digest)
    _write_array(made / HASHES, labels.shape, np.uint64, [watch.hashes], hashlib.sha256())
    about = dataclasses.replace(about, content=digest.hexdigest()[:24])
    replace(made / "about.json", json.dumps(dataclasses.asdict(about)).encode())
    return about, (*decoder.notes(), *watch.notes(source.classes))


def _write_array(path: Path, shape: tuple[int, ...], dtype: Any, parts: Iterable[Array], digest: Any) -> None:
    """Write an .npy file part by part. A memory map would die of a bus error where a disk is full."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            data = np.ascontiguousarray(part, dtype).data
            file.write(data)
            digest.update(data)
        file.flush()
        os.fsync(file.fileno())


def _read(folder: Path) -> Entry:
    """The entry in a folder.  Raises: ValueError, TypeError, EOFError: it is damaged."""
    about = About(**json.loads((folder / "about.json").read_text("utf-8")))
    images, labels = (_map(folder / name) for name in (IMAGES, LABELS))
    num = about.num_train + about.num_test
    if images.shape != (num, about.image_size, about.image_size, about.image_channels) or labels.shape != (num,):
        raise ValueError(f"{folder} is damaged")
    return Entry(about, images, labels)


def _map(path: Path) -> Array:
    """The memory-mapped array of a file.  Raises: ValueError: the file is cut off, which would be a bus error later."""
    array: np.memmap[Any, Any] = np.load(path, mmap_mode="r")
    if array.offset + array.nbytes != path.stat().st_size:
        raise ValueError(f"{path} is damaged")
    return array


def _publish(made: Path, folder: Path) -> None:
    """Give an entry its name; one that is there already stays, and the new one is left to be removed."""
    try:
        made.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _remove(folder: Path) -> None:
    """Remove an entry, first out of the way in one step: a process that has it mapped keeps it."""
    aside = folder.with_name(f".damaged-{uuid.uuid4().hex}")
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return  # another process was first
    shutil.rmtree(aside, ignore_errors=True)
    if aside.is_file():
        aside.unlink()


def _sweep(cache: Path) -> None:
    """Remove what killed processes have left half-made."""
    for left in [*cache.glob(".new-*"), *cache.glob(".damaged-*")]:
        newest = max((path.lstat().st_mtime for path in (left, *left.rglob("*")) if path.exists()), default=0.0)
        if clock.now(cache) - newest > ABANDONED_S:
            shutil.rmtree(left, ignore_errors=True)
