"""Raw sources: what a reader gives of one, and what is made of it: splits, classes of examples, raw images.

A reader is a module with

    KIND: str                                                   # for sentences, such as "class folders"
    def finds(tree: Tree) -> bool                               # whether the files are of its kind, by their names
    def read(tree: Tree, config: DataConfig, scratch: Path, where: str) -> Found

which sources.IN_ORDER names. It numbers no classes, chooses no splits and checks no labels: numbering.py does that once
for all. A source that is one file comes as a tree of that file alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backends.arrays import Array

Raw = bytes | str | Array | None  # an encoded image, the path of its file, its pixels (uint8 h, w, c), or nothing


class Named(bytes):
    """The bytes of an image's file, with the name that the source has for it."""

    name: str

    @classmethod
    def of(cls, content: bytes, name: str) -> "Named":
        named = cls(content)
        named.name = name
        return named


def name_of(raw: Raw) -> str | None:
    """The name of an image's file; None: the source has none for it."""
    return raw if isinstance(raw, str) else raw.name if isinstance(raw, Named) else None


@dataclass(frozen=True, eq=False)
class RawSplit:
    """A split as it lies in the source. `images()` gives the raw images in the order of `values`, anew at each call.

    values: what stands for the class of each example: its name, or its number (in `Found.classes` where those are
            given); None or -1: not known.   column: where they come from, for sentences.
    """

    name: str
    values: Sequence[Any] | Array
    images: Callable[[], Iterator[Raw]]
    column: str = ""


@dataclass(frozen=True, eq=False)
class Found:
    """The findings of a reader in a source.

    splits:     by canonical name (train, validation, test; others as they are called); a split is read when it is
                called, so one that nobody asked for is never read.
    classes:    names in the order of their numbers, where the source itself says them; else the values decide.
    notes:      what was ignored or understood in a way that the user should know: each a sentence without a stop.
    unlabelled: splits that are there without classes.
    """

    kind: str
    splits: Mapping[str, Callable[[], RawSplit]]
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Split:
    """A split with its classes numbered. `images()` gives the raw images in the order of `labels`, anew each time."""

    name: str
    labels: Array  # int32 (n,)
    images: Callable[[], Iterator[Raw]]


@dataclass(frozen=True, eq=False)
class RawSource:
    """A source whose splits are chosen and whose classes are numbered.

    classes: names in the order of their numbers.   notes: those of the reader and of the numbering.
    """

    classes: tuple[str, ...]
    train: Split
    test: Split | None  # none: test examples are to be cut from the training split
    kind: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def splits(self) -> list[Split]:
        return [self.train, self.test] if self.test else [self.train]
