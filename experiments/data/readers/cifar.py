"""CIFAR-10 and CIFAR-100 as their authors and torchvision hand them on: pickles of numbers, or the binary version.

Pickles are read by an unpickler that knows numbers, text, lists, mappings and NumPy arrays; it refuses everything else
and runs nothing. The classes of CIFAR-100 are the fine ones, or the coarse ones with data.label_column: coarse.
"""

import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError, choices, first_line
from experiments.data.raw import Found, RawSplit
from experiments.data.readers.places import holding, left_out, only_one
from experiments.data.tree import Tree
from experiments.spec.config import DataConfig

KIND = "CIFAR's files"
SIDE, CHANNELS = 32, 3
PIXELS = CHANNELS * SIDE**2
BATCH = re.compile(r"data_batch_\d+(\.bin)?|test_batch(\.bin)?")
LABELS = ("fine", "coarse")


@dataclass(frozen=True)
class Form:
    """The files that hold each split and the names of classes."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str  # file of the names of classes; it may be missing
    hundred: bool
    binary: bool


def finds(tree: Tree) -> bool:
    return bool(holding(tree, lambda folder: _form(folder) is not None))


def read(tree: Tree, config: DataConfig, scratch: Path, where: str) -> Found:
    """Read CIFAR's files, as raw.py asks of a reader."""
    folder = only_one(tree, lambda folder: _form(folder) is not None, config, where)
    form = _form(folder)
    assert form is not None  # only_one found it by that
    kind = _kind_of_label(form, config, where)
    where = f"{where}: data.source: {folder.path}"
    splits = {}
    for name, files in (("train", form.train), ("test", form.test)):
        if files:
            splits[name] = lambda name=name, files=files: _split(name, folder, files, form, kind, where)
    notes = left_out(tree, folder, {*form.train, *form.test, form.names, *_EXTRA})
    return Found(KIND, splits, _names(folder, form, kind, where), tuple(notes))


_EXTRA = {"readme.html", "file.txt~", "coarse_label_names.txt"}  # of the archives themselves


def _form(folder: Tree) -> Form | None:
    files = folder.files
    batches = [name for name in files if BATCH.fullmatch(name)]
    for binary in (False, True):
        of_kind = [name for name in batches if name.endswith(".bin") == binary]
        if of_kind:
            train, test = (tuple(name for name in of_kind if name.startswith(word)) for word in ("data", "test"))
            return Form(train, test, "batches.meta.txt" if binary else "batches.meta", False, binary)
    if {"train", "test", "meta"} <= files.keys():
        return Form(("train",), ("test",), "meta", True, False)
    if {"train.bin", "test.bin", "fine_label_names.txt"} <= files.keys():
        return Form(("train.bin",), ("test.bin",), "fine_label_names.txt", True, True)
    return None


def _kind_of_label(form: Form, config: DataConfig, where: str) -> str:
    asked = config.label_column
    if asked is None:
        return "fine"
    if form.hundred and asked.removesuffix("_labels") in LABELS:
        return asked.removesuffix("_labels")
    allowed = choices(asked, LABELS) if form.hundred else "leave it out"
    raise MixlabError(f"{where}: data.label_column: CIFAR's files have no {asked!r}; {allowed}")


def _split(name: str, folder: Tree, files: tuple[str, ...], form: Form, kind: str, where: str) -> RawSplit:
    labels = [label for file in files for label in _read(folder.path / file, form, kind, where)[1].tolist()]

    def images() -> Iterator[Array]:
        for file in files:
            planes, _ = _read(folder.path / file, form, kind, where)
            yield from planes.reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1)

    return RawSplit(name, labels, images)


def _read(path: Path, form: Form, kind: str, where: str) -> tuple[Array, Array]:
    """Images uint8 (n, PIXELS), colour by colour and row by row, and labels (n,)."""
    if form.binary:
        heads = 2 if form.hundred else 1
        content = np.fromfile(path, np.uint8)
        if len(content) % (PIXELS + heads):
            raise MixlabError(
                f"{where}: {path.name} has {len(content):,} bytes, and an example has {PIXELS + heads:,}; "
                f"fetch the whole file"
            )
        rows = content.reshape(-1, PIXELS + heads)
        return rows[:, heads:], rows[:, 0 if kind == "coarse" else heads - 1]
    held = _unpickled(path, where)
    wanted = f"{kind}_labels" if form.hundred else "labels"
    data, labels = (held.get(key) if isinstance(held, dict) else None for key in ("data", wanted))
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != PIXELS:
        raise MixlabError(f"{where}: {path.name} has no array 'data' of bytes (n, {PIXELS}); it is no file of CIFAR's")
    if not isinstance(labels, list | np.ndarray) or len(labels) != len(data):
        raise MixlabError(f"{where}: {path.name} has no list {wanted!r} of {len(data):,} numbers")
    numbers = np.asarray(labels)
    if len(numbers) and (numbers.ndim != 1 or numbers.dtype.kind not in "iu"):
        raise MixlabError(f"{where}: {path.name}: {wanted!r} holds other things than whole numbers")
    return data, numbers


def _names(folder: Tree, form: Form, kind: str, where: str) -> tuple[str, ...] | None:
    file = "coarse_label_names.txt" if form.binary and kind == "coarse" else form.names
    if file not in folder.files:
        return None
    if form.binary:
        return tuple((folder.path / file).read_text("utf-8").split())
    held = _unpickled(folder.path / file, where)
    names = held.get(f"{kind}_label_names" if form.hundred else "label_names") if isinstance(held, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise MixlabError(f"{where}: {file} has no list of the names of classes; remove it to go by numbers")
    return tuple(names)


class _Numbers(pickle.Unpickler):
    """An unpickler that builds arrays, and what pickle itself knows, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
            ("multiarray", "scalar"): np._core.multiarray.scalar,  # type: ignore[attr-defined]
            ("numeric", "_frombuffer"): np._core.numeric._frombuffer,  # type: ignore[attr-defined]
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _encode,
        }
        root, _, last = module.rpartition(".")
        key = (last, name) if root in ("numpy.core", "numpy._core") else (module, name)
        if key not in allowed:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no number, text or array")
        return allowed[key]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Decode bytes as a Python 3 pickles them for an older protocol."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("it encodes text otherwise than as Latin-1")
    return text.encode("latin1")


def _unpickled(path: Path, where: str) -> Any:
    """The content of a pickle, bytes of an older Python as text.

    Raises: MixlabError: it is damaged, or holds more than numbers.
    """
    try:
        with path.open("rb") as file:
            held = _Numbers(file, encoding="latin1").load()
    except OSError:
        raise
    except Exception as error:  # a damaged pickle raises almost anything
        raise MixlabError(f"{where}: {path.name} cannot be read as a pickle of numbers: {first_line(error)}") from error
    return _as_text(held)


def _as_text(held: Any) -> Any:
    if isinstance(held, dict):
        return {
            _as_text(key): _as_text(value) if isinstance(value, bytes | list) else value for key, value in held.items()
        }
    if isinstance(held, list) and any(isinstance(item, bytes) for item in held):
        return [_as_text(item) for item in held]
    return held.decode("utf-8", "replace") if isinstance(held, bytes) else held
