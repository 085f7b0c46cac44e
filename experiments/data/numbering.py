"""Numbering of what a reader found: which splits take part, and the number of each class.

Names of classes sort as people count: where all are whole numbers, by value (2 before 10), else as text.
"""

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError, choices
from experiments.data.raw import Found, RawSource, RawSplit, Split
from experiments.data.words import canonical, in_order, listed, splits_in_order
from experiments.spec.config import DataConfig
from experiments.spec.values import shown

MISSING = ("nan", "na", "n/a", "none", "null", "nil", "?", "-")  # as programs write a value that is not there


def number(found: Found, config: DataConfig, where: str) -> RawSource:
    """The training and the test split with their classes numbered.

    Raises: MixlabError: a split is missing or has no classes, or a class is.
    """
    train_name, tests = _choose(config, found, where)
    train, notes = found.splits[train_name](), list(found.notes)
    values = _plain(train.values)
    _refuse_missing(train, values, config, where)
    names, numbers, class_notes = _classes(found, values)
    labels = _numbered(train, values, numbers, config, where)
    for name in found.unlabelled:
        notes.append(f"split {name!r} has no classes and is left out")
    test, passed = None, {train_name}
    for name in tests:
        raw = found.splits[name]()
        plain = _plain(raw.values)
        if config.test_split is None and len(plain) and all(value is None for value in plain):
            notes.append(f"split {name!r} has no classes ({len(plain):,} examples) and is left out")
            passed.add(name)
            continue
        _refuse_missing(raw, plain, config, where)
        passed.add(name)
        test = Split(raw.name, _numbered(raw, plain, numbers, config, where), raw.images)
        notes += _untrained(test, labels, config, where)
        break
    for name in splits_in_order(found.splits):
        if name not in passed:
            notes.append(f"split {name!r} is not used; data.train_split and data.test_split choose others")
    notes += [*class_notes, *_odd_names(names, config, where), *_without_examples(names, labels)]
    return RawSource(names, Split(train.name, labels, train.images), test, found.kind, tuple(notes))


def index_of(found: Found, classes: tuple[str, ...], values: Sequence[Any] | Array) -> Array:
    """The number of the class of each value, int64 (n,); -1: it has none."""
    numbers = {name: row for row, name in enumerate(classes)}
    if found.classes is None:
        return np.array([numbers.get(str(value), -1) for value in _plain(values)], np.int64)
    rows = [value if isinstance(value, int) else numbers.get(value, -1) for value in _plain(values)]
    return np.array([row if row < len(classes) else -1 for row in rows], np.int64)


def _choose(config: DataConfig, found: Found, where: str) -> tuple[str, list[str]]:
    """The name of the training split, and those to test on, the first choice first; none: examples are to be cut.

    Raises: MixlabError: a split that was asked for does not exist or has no classes, or one is to be both.
    """
    train = _named("train_split", config.train_split, config, found, where)
    if config.test_split is None:
        return train, [name for name in ("test", "validation") if name in found.splits and name != train]
    test = _named("test_split", config.test_split, config, found, where)
    if test == train:
        others = [name for name in found.splits if name != train]
        raise MixlabError(
            f"{where}: data.test_split: {config.test_split!r} is the training split; leave it out or take another, "
            f"{choices(config.test_split, others)}"
        )
    return train, [test]


def _named(field: str, name: str, config: DataConfig, found: Found, where: str) -> str:
    for split in (name, canonical(name) or name):
        if split in found.splits:
            return split
        if split in found.unlabelled:
            raise MixlabError(
                f"{where}: data.{field}: split {name!r} of {config.source!r} has no classes; "
                f"{choices(name, splits_in_order(found.splits))}"
            )
    known_splits = splits_in_order(found.splits)
    raise MixlabError(
        f"{where}: data.{field}: {config.source!r} has no split {shown(name)}; {choices(name, known_splits)}"
    )


def _plain(values: Sequence[Any] | Array) -> list[Any]:
    """Numbers as int where they are whole; None for what stands for no class: null, NaN, -1 and empty text."""
    items = values.tolist() if isinstance(values, np.ndarray) else values
    kinds = {type(value) for value in items}
    if kinds <= {str}:
        return [value or None for value in items]
    return [_plain_one(value) for value in items]


def _plain_one(value: Any) -> Any:
    if value is None or value != value or value in (-1, ""):
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _classes(found: Found, values: list[Any]) -> tuple[tuple[str, ...], Mapping[Any, int], list[str]]:
    """Names in order, the number of each by what stands for it, and notes."""
    if found.classes is not None:
        by_name: dict[Any, int] = {name: row for row, name in enumerate(found.classes)}
        return found.classes, {row: row for row in by_name.values()} | by_name, []
    seen = set(values)
    if all(isinstance(value, str) for value in seen):
        order: list[Any] = in_order(list(seen))
    else:
        order = sorted(seen, key=lambda value: (isinstance(value, str), value))
    names, notes = tuple(str(value) for value in order), []
    if not any(isinstance(value, str) for value in order) and order != list(range(len(order))):
        notes.append(f"class numbers {listed(order)} are numbered anew from 0 to {len(order) - 1}")
    return names, {value: row for row, value in enumerate(order)}, notes


def _odd_names(names: Sequence[str], config: DataConfig, where: str) -> Iterator[str]:
    """Notes on names that may be slips: alike but for case or spaces, or words for a value that is missing.

    Raises: MixlabError: two are one text in two codings.
    """
    for same in _alike(names, lambda name: unicodedata.normalize("NFC", name)):
        raise MixlabError(
            f"{where}: data.source: {config.source!r} has the class {same[0]!r} in two codings of Unicode, {same[0]!a} "
            f"and {same[1]!a}; rename one, so that both are one class"
        )
    alike = _alike(names, lambda name: " ".join(name.casefold().split()))
    if alike:
        shown = listed([" and ".join(map(repr, same)) for same in alike], 3)
        yield f"names of classes that differ in case or spaces alone are different classes: {shown}"
    if missing := [name for name in names if name.strip().lower() in MISSING]:
        yield f"names of classes that may stand for a missing value are taken as names: {listed(missing)}"


def _alike(names: Sequence[str], key: Callable[[str], str]) -> list[list[str]]:
    """Names of one key, where there are several."""
    by_key: dict[str, list[str]] = {}
    for name in names:
        by_key.setdefault(key(name), []).append(name)
    return [same for same in by_key.values() if len(same) > 1]


def _without_examples(names: Sequence[str], labels: Array) -> Iterator[str]:
    empty = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0).tolist()
    if len(empty):
        yield f"{len(empty):,} of {len(names):,} classes have no training examples: {listed([names[i] for i in empty])}"


def _untrained(test: Split, trained: Array, config: DataConfig, where: str) -> Iterator[str]:
    """A note on test examples of classes that are not trained on. Raises: MixlabError: all of them are."""
    strange = int((~np.isin(test.labels, trained)).sum())
    if strange and strange == len(test.labels):
        raise MixlabError(
            f"{where}: data.test_split: no example of split {test.name!r} of {config.source!r} is of a class that the "
            f"training split has; name another split, or none to cut test examples from it"
        )
    if strange:
        yield f"{strange:,} of {len(test.labels):,} examples of split {test.name!r} are of classes never trained on"


def _refuse_missing(split: RawSplit, values: list[Any], config: DataConfig, where: str) -> None:
    """Refuse a split of which some examples have no class. Raises: MixlabError."""
    rows = [row for row, value in enumerate(values) if value is None]
    if rows:
        raise MixlabError(
            f"{_place(split, config, where)}: {len(rows):,} of {len(values):,} examples of split {split.name!r} have "
            f"no class (null, NaN or -1), the first in row {rows[0]}; remove them, or name another column or split"
        )


def _numbered(split: RawSplit, values: list[Any], numbers: Mapping[Any, int], config: DataConfig, where: str) -> Array:
    try:
        return np.array([numbers[value] for value in values], np.int32)
    except (KeyError, TypeError) as error:
        row = next(row for row, value in enumerate(values) if not isinstance(value, str | int) or value not in numbers)
        names = [name for name, _ in sorted(numbers.items(), key=lambda item: item[1])]
        raise MixlabError(
            f"{_place(split, config, where)} of split {split.name!r}: expected a class of the training split, got "
            f"{values[row]!r} in row {row}; allowed: {listed(names, 10)}"
        ) from error


def _place(split: RawSplit, config: DataConfig, where: str) -> str:
    return (
        f"{where}: data.label_column: {split.column!r}" if split.column else f"{where}: data.source: {config.source!r}"
    )
