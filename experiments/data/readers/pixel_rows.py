"""A CSV of pixels, a row an image, such as Kaggle's MNIST: a column of classes, and one of grey levels for each pixel.

Columns of pixels have rising numbers, or rows and columns, behind one of WORDS: pixel0, pixel1, ...; 0, 1, ...; 1x1,
1x2, ...; pixel_0_0, ... . A table with a column of image files is none of these. A file without a header has numbers
alone; its class is the first column, or the last, if the other is the same in all rows, as a pixel at the border is;
else data.label_column says which, counted from 0.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError
from experiments.data import columns
from experiments.data.raw import Found, RawSplit
from experiments.data.readers.places import holding, left_out, only_one, split_of
from experiments.data.table_files import Table
from experiments.data.tree import Tree
from experiments.data.words import is_image
from experiments.spec.config import DataConfig

KIND = "CSV files of pixels"
FEWEST = 16  # columns of pixels: an image of 4 x 4
WORDS = ("", "pixel", "pixels", "pix", "px", "p")
PIXEL = re.compile(rf"(?:{'|'.join(WORDS)})[_. -]?(?P<row>\d+)(?:[x_](?P<column>\d+))?", re.IGNORECASE)
NUMBER = re.compile(r"\s*-?\d+(\.\d*)?\s*")
HEAD_BYTES = 2**20


@dataclass(frozen=True)
class Head:
    """The columns of a file: those of pixels, in order, and the others."""

    names: tuple[str, ...]  # of all columns; numbers from 0 where the file has no header
    pixels: tuple[str, ...]
    others: tuple[str, ...]  # none: the file has no header, and the first or the last column holds the classes
    has_header: bool


def finds(tree: Tree) -> bool:
    return bool(holding(tree, lambda folder: bool(_files(folder))))


def read(tree: Tree, config: DataConfig, scratch: Path, where: str) -> Found:
    """Read CSV files of pixels, as raw.py asks of a reader."""
    folder = only_one(tree, lambda folder: bool(_files(folder)), config, where)
    heads = _files(folder)
    prefix = f"{where}: data.source: {folder.path}"
    notes = left_out(tree, folder, set(heads))
    splits: dict[str, Any] = {}
    unlabelled = []
    for name, head in heads.items():
        split = split_of(name, prefix) or "train"
        if split in splits or split in unlabelled:
            raise MixlabError(
                f"{prefix}: {', '.join(heads)} give split {split!r} twice; name them train.csv and test.csv"
            )
        if head.has_header and not head.others:
            unlabelled.append(split)
        else:
            splits[split] = partial(_split, split, folder.path / name, head, config, where)
    return Found(KIND, splits, None, tuple(notes), tuple(unlabelled))


def _files(folder: Tree) -> dict[str, Head]:
    heads = {name: _head(folder.path / name) for name in folder.files if name.lower().endswith(".csv")}
    return {name: head for name, head in heads.items() if head}


def _head(path: Path) -> Head | None:
    """The columns of a file; None: they are no pixels."""
    with path.open("rb") as file:
        head, _, rows = file.read(HEAD_BYTES).decode("utf-8-sig", "replace").partition("\n")
    names, first = (
        tuple(name.strip().strip('"') for name in line.split(",")) for line in (head, rows.partition("\n")[0])
    )
    if len(names) <= FEWEST or any(map(is_image, first)):
        return None
    if all(map(NUMBER.fullmatch, names)) and not _are_pixels(names) and not _are_pixels(names[1:]):
        numbers = tuple(map(str, range(len(names))))
        return Head(numbers, (), (), False)
    pixels = [name for name in names if PIXEL.fullmatch(name)]
    if len(pixels) < FEWEST or not _are_pixels(pixels):
        return None
    return Head(names, tuple(pixels), tuple(name for name in names if name not in set(pixels)), True)


def _are_pixels(names: Sequence[str]) -> bool:
    """Tell whether the numbers rise as those of pixels do: from 0 or 1 by 1, or row by row and column by column."""
    matches = [match for name in names if (match := PIXEL.fullmatch(name))]
    places = [(int(match["row"]), int(match["column"] or -1)) for match in matches]
    if len(places) < len(names) or places[0][0] not in (0, 1):
        return False
    if places[0][1] < 0:
        return [row for row, _ in places] == list(range(places[0][0], places[0][0] + len(places)))
    return places == sorted(places) and len(set(places)) == len(places)


def _split(split: str, path: Path, head: Head, config: DataConfig, where: str) -> RawSplit:
    prefix = f"{where}: data.source: {path}"
    if head.others:
        column, values = _labels(path, head, config, where)
        pixels = head.pixels
    else:
        column = _bare_label(path, head, config, where)
        pixels = tuple(name for name in head.names if name != column)
        values = [value for batch in _batches(path, head, (column,), where) for value in batch[:, 0].tolist()]
    size = math.isqrt(len(pixels))
    if size**2 != len(pixels):
        third = math.isqrt(len(pixels) // 3)
        colour = 3 * third**2 == len(pixels)
        meant = (
            f"{third} x {third} pixels of three colours, in an order that the file does not say"
            if colour
            else "no square"
        )
        raise MixlabError(f"{prefix} has {len(pixels):,} columns of pixels, {meant}; store such images as files")
    return RawSplit(split, values, lambda: _images(path, head, pixels, size, prefix), column)


def _images(path: Path, head: Head, pixels: Sequence[str], size: int, where: str) -> Iterator[Array]:
    """Images uint8 or, where values exceed 255, uint16 (size, size, 1)."""
    deep = False
    for batch in _batches(path, head, pixels, where):
        if batch.min() < 0 or batch.max() > 2**16 - 1:
            raise MixlabError(
                f"{where} holds pixels from {batch.min()} to {batch.max()}; expected 0 to 255, or to 65535"
            )
        deep = deep or batch.max() > 255
        yield from batch.astype(np.uint16 if deep else np.uint8).reshape(-1, size, size, 1)


def _labels(path: Path, head: Head, config: DataConfig, where: str) -> tuple[str, list[Any]]:
    import pyarrow as pa

    table = pa.Table.from_batches(list(_read(path, head, head.others, pa.string(), where)))
    held = Table(path.parent, table.schema, {}, lambda name: iter(table.column(name).chunks))
    column, _ = columns.label_column(held, config, "", where)
    return column, columns.classes(held, column) or []


def _bare_label(path: Path, head: Head, config: DataConfig, where: str) -> str:
    """The column of classes of a file without a header."""
    ends = (head.names[0], head.names[-1])
    if config.label_column in head.names:
        return str(config.label_column)
    same = [True, True]
    first = None
    for batch in _batches(path, head, ends, where):
        first = batch[0] if first is None else first
        same = [bool(so_far and (batch[:, row] == first[row]).all()) for row, so_far in enumerate(same)]
    if config.label_column is None and same == [False, True]:
        return ends[0]
    if config.label_column is None and same == [True, False]:
        return ends[1]
    raise MixlabError(
        f"{where}: data.label_column: {path.name} has no header, and its classes can be column {ends[0]} or "
        f"{ends[1]}; name it, or write a header such as label,pixel0,pixel1,..."
    )


def _batches(path: Path, head: Head, names: Sequence[str], where: str) -> Iterator[Array]:
    """Batches of whole numbers, int64 (rows, columns)."""
    import pyarrow as pa

    for batch in _read(path, head, names, pa.float64(), where):
        values = np.stack([column.to_numpy(zero_copy_only=False) for column in batch.columns], axis=1)
        if not (values == np.rint(values)).all():
            raise MixlabError(
                f"{where}: {path.name}: expected whole numbers from 0 to 255, got fractions or empty cells; store grey "
                f"levels as they were"
            )
        if len(values):
            yield values.astype(np.int64)


def _read(path: Path, head: Head, names: Sequence[str], kind: Any, where: str) -> Iterator[Any]:
    from pyarrow import ArrowInvalid, csv

    reading = csv.ReadOptions(column_names=list(head.names), skip_rows=int(head.has_header))
    convert = csv.ConvertOptions(include_columns=list(names), column_types=dict.fromkeys(names, kind))
    try:
        with csv.open_csv(str(path), read_options=reading, convert_options=convert) as reader:
            yield from reader
    except ArrowInvalid as error:
        raise MixlabError(f"{where}: {path.name} cannot be read: {str(error).splitlines()[0][:150]}") from error
