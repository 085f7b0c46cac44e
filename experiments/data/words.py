"""Names of splits, the order of names of classes, and lists of names in sentences."""

from collections.abc import Sequence
from typing import Any

SPLIT_WORDS = {
    "train": ("train", "training", "trainset"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "testset", "eval"),
}
SHOWN = 5  # names in a sentence


def canonical(name: str) -> str | None:
    """The split that a word stands for, in any case; None: it is no such word."""
    return next((split for split, words in SPLIT_WORDS.items() if name.lower() in words), None)


def in_order(names: Sequence[str]) -> list[str]:
    """Names as people count."""
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def listed(names: Sequence[Any], shown: int = SHOWN) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(str(name) for name in names[:shown]) + more
