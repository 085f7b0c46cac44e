"""Names of splits and of image files, the order of names of classes, and lists of names in sentences."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

SPLIT_WORDS = {
    "train": ("train", "training", "trainset"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "testset", "eval"),
}
# Suffixes of the files that Pillow reads.
IMAGE_TYPES = set("avif bmp dib gif j2k jfif jp2 jpe jpeg jpg pbm pgm png pnm ppm tga tif tiff webp".split())  # noqa: SIM905
SHOWN = 5  # names in a sentence


def canonical(name: str) -> str | None:
    """The split that a word stands for, in any case; None: it is no such word."""
    return next((split for split, words in SPLIT_WORDS.items() if name.lower() in words), None)


def splits_in(name: str) -> set[str]:
    """The splits whose words stand in a name, parted by anything that is no letter."""
    return {split for word in re.split(r"[^A-Za-z]+", name) if (split := canonical(word))}


def splits_in_order(names: Iterable[str]) -> list[str]:
    """Names of splits in order: training, validation, test, then others as they come."""
    names = list(names)
    return [name for name in SPLIT_WORDS if name in names] + [name for name in names if name not in SPLIT_WORDS]


def in_order(names: Sequence[str]) -> list[str]:
    """Names as people count."""
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def listed(names: Sequence[Any], shown: int = SHOWN) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(str(name) for name in names[:shown]) + more


def is_image(name: str) -> bool:
    """Tell whether the suffix of a file's name is that of an image."""
    return name.rpartition(".")[2].lower() in IMAGE_TYPES and "." in name
