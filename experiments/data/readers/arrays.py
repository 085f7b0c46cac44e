"""A .npz file of NumPy arrays: MedMNIST's (train_images, train_labels, ...), or Keras's (x_train, y_train, ...).

Images are uint8 or uint16, (n, h, w) or (n, h, w, channels); labels are whole numbers, (n,) or (n, 1).
"""

import re
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from backends.arrays import Array
from backends.errors import MixlabError, counted
from experiments.data.raw import Found, RawSplit
from experiments.data.readers.places import holding, left_out
from experiments.data.tree import Tree
from experiments.data.words import canonical, listed
from experiments.spec.config import DataConfig

KIND = "a .npz file of arrays"
FORMS = ("{split}_images {split}_labels", "x_{split} y_{split}", "X_{split} y_{split}", "images labels", "x y", "X y")
Header = tuple[tuple[int, ...], "np.dtype[Any]"]


def finds(tree: Tree) -> bool:
    return bool(holding(tree, lambda folder: bool(_files(folder))))


def read(tree: Tree, config: DataConfig, scratch: Path, where: str) -> Found:
    """Read a .npz file of arrays, as raw.py asks of a reader."""
    folders = holding(tree, lambda folder: bool(_files(folder)))
    paths = [folder.path / name for folder in folders for name in _files(folder)]
    if len(paths) > 1:
        names = listed([path.name for path in paths])
        raise MixlabError(f"{where}: data.source: {config.source!r} holds several data sets: {names}; name one file")
    path, where = paths[0], f"{where}: data.source: {paths[0]}"
    headers = _headers(path, where)
    pairs = _pairs(headers)
    if not pairs:
        raise MixlabError(
            f"{where} holds the arrays {listed([_shown(name, headers[name]) for name in headers])}; expected "
            f"train_images and train_labels, or x_train and y_train"
        )
    splits = {split: partial(_split, split, path, *pair, headers, where) for split, pair in pairs.items()}
    unused = [name for name in headers if not any(name in pair for pair in pairs.values())]
    notes = left_out(tree, folders[0], {path.name})
    notes += [f"{counted(len(unused), 'array')} ignored: {listed(unused)}"] if unused else []
    return Found(KIND, splits, None, tuple(notes))


def _files(folder: Tree) -> list[str]:
    return [name for name in folder.files if name.lower().endswith(".npz")]


def _pairs(headers: dict[str, Header]) -> dict[str, tuple[str, str]]:
    """Names of the arrays of images and of labels, by split."""
    for form in FORMS:
        images, _, labels = form.partition(" ")
        pattern = re.compile(images.replace("{split}", "(?P<split>[A-Za-z]+)"))
        pairs = {}
        for name in headers:
            if match := pattern.fullmatch(name):
                word = match.groupdict().get("split", "train")
                partner = labels.replace("{split}", word)
                if partner in headers:
                    pairs[canonical(word) or word] = (name, partner)
        if pairs:
            return pairs
    return {}


def _split(split: str, path: Path, images: str, labels: str, headers: dict[str, Header], where: str) -> RawSplit:
    shape, dtype = headers[images]
    if dtype not in (np.uint8, np.uint16) or not (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3, 4))):
        deep = " (three-dimensional images are not read)" if len(shape) == 4 and shape[3] > 4 else ""
        if deep and shape[1] in (1, 3, 4):
            deep = " (channels lie first: save it as images.transpose(0, 2, 3, 1))"
        raise MixlabError(
            f"{where}: {_shown(images, headers[images])}{deep}; expected uint8 or uint16, (n, h, w) or (n, h, w, 3)"
        )
    numbers_shape, kind = headers[labels]
    if len(numbers_shape) == 2 and numbers_shape[1] > 1:
        raise MixlabError(
            f"{where}: {labels} gives each image {numbers_shape[1]} labels; Mixlab trains on one class an image, and "
            f"reads no data set of several labels; where each row holds a single 1, save {labels}.argmax(1)"
        )
    if len(numbers_shape) not in (1, 2) or kind.kind not in "iuf" or numbers_shape[0] != shape[0]:
        raise MixlabError(
            f"{where}: {_shown(labels, headers[labels])}; expected whole numbers ({shape[0]:,},), one an image"
        )
    values = np.concatenate([np.zeros(0, kind), *(row.reshape(-1) for row in _rows(path, labels, where))])
    if kind.kind == "f" and not (values == np.rint(values)).all():
        raise MixlabError(f"{where}: {labels} holds fractions; expected whole numbers")
    return RawSplit(split, values, lambda: (image.reshape(*shape[1:3], -1) for image in _rows(path, images, where)))


def _headers(path: Path, where: str) -> dict[str, Header]:
    try:
        with zipfile.ZipFile(path) as held:
            names = [name for name in held.namelist() if name.endswith(".npy")]
            return {name.removesuffix(".npy"): _header(held, name)[0] for name in names}
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise MixlabError(f"{where} cannot be read as .npz: {error}") from error


def _header(held: zipfile.ZipFile, name: str) -> tuple[Header, bool]:
    with held.open(name) as file:
        return _read_header(file)


def _read_header(file: IO[bytes]) -> tuple[Header, bool]:
    """Shape and dtype, and whether columns come first; the file stands at the first number then."""
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return (shape, dtype), fortran


def _rows(path: Path, name: str, where: str) -> Iterator[Array]:
    """The rows of an array, read one by one, since the whole may exceed the memory."""
    try:
        with zipfile.ZipFile(path) as held, held.open(f"{name}.npy") as file:
            (shape, dtype), fortran = _read_header(file)
            if dtype.hasobject or fortran:
                raise MixlabError(
                    f"{where}: {name} holds {'objects' if dtype.hasobject else 'columns first'}; save it anew"
                )
            num = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
            for row in range(shape[0]):
                content = file.read(num)
                if len(content) != num:
                    raise MixlabError(f"{where}: {name} ends in row {row}; fetch the whole file")
                yield np.frombuffer(content, dtype).reshape(shape[1:])
    except (zipfile.BadZipFile, EOFError) as error:
        raise MixlabError(f"{where}: {name} is damaged: {error}") from error


def _shown(name: str, header: Header) -> str:
    shape, dtype = header
    return f"{name} {'x'.join(map(str, shape)) or 'one number'} of {dtype}"
