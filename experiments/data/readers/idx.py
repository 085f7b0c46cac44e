"""MNIST's IDX files, packed (.gz) or not, and those of its relatives: Fashion-MNIST, KMNIST, EMNIST.

A data set is two files for each split, such as train-images-idx3-ubyte and train-labels-idx1-ubyte; t10k is a test
split. EMNIST keeps several sets in a folder: data.subset says which, such as balanced.
"""

import gzip
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError, choices
from experiments.data.raw import Found, RawSplit
from experiments.data.readers.places import holding, left_out, only_one
from experiments.data.tree import Tree
from experiments.data.words import canonical
from experiments.spec.config import DataConfig

KIND = "MNIST's IDX files"
NAME = re.compile(r"(?:(?P<set>.+)[-_])?(?P<split>[a-z0-9]+)[-_](?P<what>images|labels)[-.]idx\d-\w+?(?P<packed>\.gz)?")
TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
ROWS = 256  # images that are read at a time


@dataclass(frozen=True)
class Pair:
    images: str
    labels: str | None


def finds(tree: Tree) -> bool:
    return bool(holding(tree, _holds))


def read(tree: Tree, config: DataConfig, scratch: Path, where: str) -> Found:
    """Read IDX files, as raw.py asks of a reader."""
    folder = only_one(tree, _holds, config, where)
    chosen, pairs = _chosen(_sets(folder), config, where)
    where = f"{where}: data.source: {folder.path}"
    splits = {name: partial(_split, name, folder.path, pair, where) for name, pair in pairs.items() if pair.labels}
    used = {file for pair in pairs.values() for file in (pair.images, pair.labels) if file}
    packed = {f"{file}.gz" for file in used}
    notes = left_out(tree, folder, used | packed)
    if chosen.startswith("emnist"):
        notes.append("images lie on their side in EMNIST's files, and are read as they lie")
    return Found(KIND, splits, None, tuple(notes), tuple(name for name, pair in pairs.items() if not pair.labels))


def _holds(folder: Tree) -> bool:
    return any((match := NAME.fullmatch(name)) and match["what"] == "images" for name in folder.files)


def _sets(folder: Tree) -> dict[str, dict[str, Pair]]:
    """Files by data set and split. A file that lies there packed too is read from the one that is not."""
    sets: dict[str, dict[str, dict[str, str]]] = {}
    for name in sorted(folder.files, key=lambda name: not name.endswith(".gz")):
        if match := NAME.fullmatch(name):
            split = "test" if match["split"] == "t10k" else canonical(match["split"]) or match["split"]
            sets.setdefault(match["set"] or "", {}).setdefault(split, {})[match["what"]] = name
    return {
        name: {
            split: Pair(files["images"], files.get("labels")) for split, files in splits.items() if "images" in files
        }
        for name, splits in sets.items()
    }


def _chosen(sets: dict[str, dict[str, Pair]], config: DataConfig, where: str) -> tuple[str, dict[str, Pair]]:
    names = {name.removeprefix("emnist-"): name for name, pairs in sets.items() if pairs}
    asked = config.subset
    if asked is None and len(names) == 1:
        return next((name, sets[name]) for name in names.values())
    if asked in names:
        return names[asked], sets[names[asked]]
    problem = f"there is no {asked!r}" if asked else f"{config.source!r} holds several data sets"
    raise MixlabError(f"{where}: data.subset: {problem}; {choices(asked or '', names)}")


def _split(name: str, folder: Path, pair: Pair, where: str) -> RawSplit:
    assert pair.labels is not None
    labels = _whole(folder / pair.labels, where)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise MixlabError(
            f"{where}: {pair.labels} has {labels.ndim} dimensions of {labels.dtype}; expected one of bytes"
        )
    with _opened(folder / pair.images) as file:
        dtype, shape = _head(file, folder / pair.images, where)
    if len(shape) != 3 or dtype != np.uint8:
        raise MixlabError(
            f"{where}: {pair.images} holds {shape} of {dtype}; expected images, rows and columns of bytes"
        )
    if shape[0] != len(labels):
        raise MixlabError(f"{where}: {pair.images} holds {shape[0]:,} images and {pair.labels} {len(labels):,} labels")
    return RawSplit(name, labels, lambda: _images(folder / pair.images, where))


def _images(path: Path, where: str) -> Iterator[Array]:
    """Images uint8 (h, w, 1)."""
    with _opened(path) as file:
        _, (num, height, width) = _head(file, path, where)
        for first in range(0, num, ROWS):
            count = min(ROWS, num - first)
            content = _exactly(file, count * height * width, path, where)
            yield from np.frombuffer(content, np.uint8).reshape(count, height, width, 1)


def _whole(path: Path, where: str) -> Array:
    with _opened(path) as file:
        dtype, shape = _head(file, path, where)
        content = _exactly(file, int(np.prod(shape)) * dtype.itemsize, path, where)
    return np.frombuffer(content, dtype).reshape(shape)


def _opened(path: Path) -> IO[bytes]:
    file: Any = gzip.GzipFile(path) if path.suffix == ".gz" else path.open("rb")
    opened: IO[bytes] = file
    return opened


def _head(file: IO[bytes], path: Path, where: str) -> tuple["np.dtype[Any]", tuple[int, ...]]:
    zeros, kind, dims = struct.unpack(">HBB", _exactly(file, 4, path, where))
    if zeros or kind not in TYPES or dims == 0:
        raise MixlabError(f"{where}: {path.name} is no IDX file: it begins with other bytes")
    return np.dtype(TYPES[kind]), struct.unpack(f">{dims}I", _exactly(file, 4 * dims, path, where))


def _exactly(file: IO[bytes], num: int, path: Path, where: str) -> bytes:
    try:
        content = file.read(num)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise MixlabError(f"{where}: {path.name} is damaged: {error}") from error
    if len(content) != num:
        raise MixlabError(f"{where}: {path.name} ends too early; fetch the whole file")
    return content
