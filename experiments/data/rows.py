"""Rows of tables, one table for each split, as a reader gives them: the columns of images and of classes."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import compress
from typing import Any

from backends.errors import MixlabError
from experiments.data import columns
from experiments.data.raw import Found, Named, Raw, RawSplit
from experiments.data.table_files import Table
from experiments.data.words import canonical, listed, splits_in
from experiments.spec.config import DataConfig

SPLIT_COLUMN = ("split", "set", "subset", "partition", "phase", "data set", "data_set", "dataset", "usage")
FOLD_COLUMN = re.compile(r"(k|cv)?[ _-]?folds?|cv", re.IGNORECASE)
Tables = Mapping[str, Callable[[], Table]]  # by split


@dataclass(frozen=True)
class Chosen:
    """Names of columns. split: of one that says which split a row is of; None: there is none.

    passed: columns that could hold classes as well, but for their name or values.   weak: so it is with the one of
    classes itself.
    """

    image: str
    label: str
    split: str | None
    passed: tuple[str, ...]
    weak: bool


def found(kind: str, tables: Tables, config: DataConfig, where: str) -> Found:
    """The splits of tables; the columns are those of the training split's.

    Args:   tables: each is opened once however often it is called.
    Raises: MixlabError: no column holds images or classes, or several do.
    """
    first = _first(tables, config)
    chosen = choose(first, config, len(tables) == 1, where)
    remarks = [*_said(chosen), *_unread_splits(first, chosen)]
    splits: dict[str, Callable[[], RawSplit]]
    splits = {name: partial(_read, name, opens, first, chosen, where) for name, opens in tables.items()}
    words = _splits_of_rows(first, chosen) if len(tables) == 1 else []
    if words:
        splits = {word: partial(_cut, word, words, splits) for word in dict.fromkeys(words)}
        remarks.append(f"column {chosen.split or chosen.image!r} says the split of each row")
    return Found(kind, splits, first.names.get(chosen.label), tuple(remarks))


def choose(table: Table, config: DataConfig, alone: bool, where: str) -> Chosen:
    """Choose the columns of a table.

    Args:   alone: whether the table is the only one, so that a column may name the split of each row.
    """
    image = columns.image_column(table, config, where)
    split = (
        next((name for name in table.schema.names if _says_split(table, name, config, where)), None) if alone else None
    )
    others = table.without(split) if split else table
    label, passed = columns.label_column(others, config, image, where)
    weak = config.label_column is None and label not in table.names
    values = columns.classes(table, label) or [] if weak else []
    weak = bool(values) and not columns.is_truth(values) and columns.is_weak(label, values)
    return Chosen(image, label, split, tuple(passed), weak)


def image_of(tables: Tables, config: DataConfig, where: str) -> str:
    """The column of images."""
    return columns.image_column(_first(tables, config), config, where)


def _first(tables: Tables, config: DataConfig) -> Table:
    """The table of the training split, else of any."""
    name = config.train_split if config.train_split in tables else canonical(config.train_split) or ""
    return tables.get(name, next(iter(tables.values())))()


def _splits_of_rows(table: Table, chosen: Chosen) -> list[str]:
    """The split of each row by the column that says it, or by the folders that paths begin with; empty: by neither."""
    if chosen.split:
        names = [str(value) for value in table.values(chosen.split)]
    elif columns.is_path(table, chosen.image):
        names = [os.path.normpath(value).partition("/")[0] for value in table.values(chosen.image)]
    else:
        return []
    words = [word for name in names if (word := canonical(name))]
    return words if len(words) == len(names) else []


def _says_split(table: Table, column: str, config: DataConfig, where: str) -> bool:
    """Tell whether a column names the split of each row. Raises: MixlabError: it does so in some rows alone."""
    if column.lower() not in SPLIT_COLUMN or column == config.label_column:
        return False
    distinct = dict.fromkeys(table.values(column))
    others = [value for value in distinct if not (isinstance(value, str) and canonical(value))]
    if others and len(others) < len(distinct):
        shown = listed([repr(value) for value in others], 3)
        raise MixlabError(
            f"{where}: data.source: column {column!r} holds split words and others: {shown}; write train, validation "
            f"or test in each row, leave the other rows out, or rename the column to ignore it"
        )
    return bool(distinct) and not others


def _said(chosen: Chosen) -> Iterator[str]:
    if chosen.passed:
        yield f"column {chosen.label!r} is the class; not taken: {listed(chosen.passed)}"
    if chosen.weak:
        yield f"column {chosen.label!r} is the class for want of another; its name or values are not those of classes"


def _unread_splits(table: Table, chosen: Chosen) -> Iterator[str]:
    """A note on columns whose names say the split of each row, or its fold, and which are not read for it."""
    used = (chosen.image, chosen.label, chosen.split)
    unread = [name for name in table.schema.names if name not in used and _names_splits(name)]
    if unread:
        yield (
            f"not read, though the name may say the split of each row: {listed(unread)}; a column 'split' with train, "
            f"validation or test in each row would be read"
        )


def _names_splits(name: str) -> bool:
    words = re.sub("(?<=[a-z])(?=[A-Z])", "_", name)  # isTrain
    return bool(splits_in(words) or FOLD_COLUMN.fullmatch(name) or name.lower() in SPLIT_COLUMN)


def _read(name: str, opens: Callable[[], Table], first: Table, chosen: Chosen, where: str) -> RawSplit:
    table = opens()
    for column in (chosen.image, chosen.label):
        if column in table.schema.names and table.names.get(column) != first.names.get(column):
            raise MixlabError(
                f"{where}: data.label_column: {column!r} of split {name!r} has other classes than in the training "
                f"split; save both with the same ones"
            )
    if chosen.image not in table.schema.names:
        raise MixlabError(
            f"{where}: data.image_column: split {name!r} has no column {chosen.image!r}; its columns: "
            f"{listed(table.schema.names, 10)}"
        )
    if chosen.label in table.schema.names:
        values = columns.classes(table, chosen.label)
        if values is None:
            raise MixlabError(
                f"{where}: data.label_column: expected whole numbers or words in {chosen.label!r} of split {name!r}, "
                f"got neither; name another column"
            )
        if columns.holds_text(table, chosen.image):
            _refuse_two_classes(name, table.values(chosen.image), values, where)
    else:
        values = [None for batch in table.batches(chosen.image) for _ in range(len(batch))]
    return RawSplit(name, values, partial(_images, table, chosen.image, where), chosen.label)


def _refuse_two_classes(split: str, paths: list[Any], values: list[Any], where: str) -> None:
    """Refuse images that have rows of several classes. Raises: MixlabError."""
    first: dict[str, Any] = {}
    for path, value in zip(paths, values, strict=True):
        first_value = first.setdefault(os.path.normpath(path or ""), value)
        if path and first_value != value:
            raise MixlabError(
                f"{where}: data.label_column: image {path!r} of split {split!r} has rows of two classes, "
                f"{first_value!r} and {value!r}; keep one row for each image"
            )


def _cut(word: str, words: list[str], splits: Mapping[str, Callable[[], RawSplit]]) -> RawSplit:
    """The rows of one split of a table that holds several."""
    whole, mask = next(iter(splits.values()))(), [one == word for one in words]
    return RawSplit(word, list(compress(whole.values, mask)), lambda: compress(whole.images(), mask), whole.column)


def _images(table: Table, column: str, where: str) -> Iterator[Raw]:
    for batch in table.batches(column):
        for value in batch.to_pylist():
            yield _raw(value, table, column, where)


def _raw(value: Any, table: Table, column: str, where: str) -> Raw:
    if isinstance(value, dict):
        content, path = value["bytes"], value.get("path")
        value = Named.of(content, path) if content and isinstance(path, str) and path else content or path
    if isinstance(value, str):
        return os.path.join(table.folder, value)  # noqa: PTH118 - of a million paths
    if value is None or isinstance(value, bytes):
        return value
    raise MixlabError(
        f"{where}: data.image_column: expected images in {column!r}, got {type(value).__name__}; name another column"
    )
