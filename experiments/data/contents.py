"""Contents of a source as its files have them: every split, its classes with counts, its images by size and mode."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from backends.arrays import Array
from experiments.data import prepared
from experiments.data.fingerprints import check_is_there, source_tree
from experiments.data.numbering import index_of, number
from experiments.data.raw import Found, Raw, RawSplit
from experiments.data.sources import HUB_FOLDER, find
from experiments.data.words import splits_in_order
from experiments.spec.config import DataConfig

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # Pillow's name of pixels, by channels


@dataclass(frozen=True, eq=False)
class SplitContents:
    """The contents of one split.

    counts: int64 (classes,).   others: examples whose class is missing or is none of the training split's.

    images: their number by size and mode, such as ("32 x 32", "RGB").
    """

    name: str
    counts: Array
    others: int
    images: "Counter[tuple[str, str]]"


@dataclass(frozen=True, eq=False)
class Contents:
    """The contents of a source.

    train, test: the splits that a trial would take; test None: its examples are cut from the training split.
    form: of prepared data, how its images are stored and how it was made; empty: of another source.
    """

    kind: str
    classes: tuple[str, ...]
    splits: tuple[SplitContents, ...]
    train: str
    test: str | None
    notes: tuple[str, ...]
    form: tuple[str, ...] = ()


def contents(config: DataConfig, cache: Path, where: str) -> Contents:
    """Read all labels and the heads of all images.

    Args:   cache: folder of decoded images, in which what comes from the hub is kept.
    Raises: MixlabError: the source cannot be read, or can be read in two ways.
    """
    if held := prepared.find(config.source, where):
        return _of_prepared(held)
    tree = source_tree(config.source, where)
    check_is_there(config, tree, cache, where)
    found = find(config, tree, cache / HUB_FOLDER, where)
    source = number(found, config, where)
    splits = [_of_split(found.splits[name](), found, source.classes) for name in splits_in_order(found.splits)]
    notes = (*(tree.notes() if tree else ()), *source.notes)
    test = source.test.name if source.test else None
    return Contents(found.kind, source.classes, tuple(splits), source.train.name, test, notes)


def _of_prepared(held: prepared.Prepared) -> Contents:
    """What the small files of prepared data say; no image is read."""
    own, recipe, labels, sizes = held.description, held.description.recipe, held.labels, held.sizes
    asked = str(recipe.get("train_split") or "train"), str(recipe.get("test_split") or "test")
    train, test = [*own.splits, *asked[len(own.splits) :]]
    splits = []
    for name, part in ((train, slice(own.num_train)), (test, slice(own.num_train, own.num))):
        if len(labels[part]):
            found, numbers = np.unique(sizes[part], axis=0, return_counts=True)
            words = [(f"{width} x {height}", MODES[own.image_channels]) for height, width in found.tolist()]
            images = Counter(dict(zip(words, numbers.tolist(), strict=True)))
            splits.append(SplitContents(name, np.bincount(labels[part], minlength=own.num_classes), 0, images))
    return Contents(own.kind, own.classes, tuple(splits), train, test if own.num_test else None, own.notes, held.told())


def _of_split(split: RawSplit, found: Found, classes: tuple[str, ...]) -> SplitContents:
    numbers = index_of(found, classes, split.values)
    numbered = numbers[numbers >= 0]
    counts = np.bincount(numbered, minlength=len(classes))
    return SplitContents(split.name, counts, len(numbers) - len(numbered), _heads(split.images()))


def _heads(images: Iterable[Raw]) -> "Counter[tuple[str, str]]":
    from PIL import Image

    counts: Counter[tuple[str, str]] = Counter()
    for raw in images:
        if isinstance(raw, np.ndarray):
            size, mode = raw.shape[1::-1], MODES.get(raw.shape[2] if raw.ndim == 3 else 1, f"{raw.shape[-1]} channels")
        elif raw is None:
            counts["missing", ""] += 1
            continue
        else:
            try:
                with Image.open(BytesIO(raw) if isinstance(raw, bytes) else raw) as image:
                    size, mode = image.size, image.mode
            except Exception:  # Pillow's decoders raise many types
                counts["unreadable", ""] += 1
                continue
        counts[f"{size[0]} x {size[1]}", mode] += 1
    return counts
