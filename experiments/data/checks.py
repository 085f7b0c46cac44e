"""Checks of decoded images: one colour that stands for several classes, and images that are equal."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from backends.arrays import Array
from experiments.data.words import listed

BYTES = 8  # of a hash: among a million images, two that differ share one with probability 3e-8
TOO_MANY = 0.01  # share of test examples that equal a training example from which a report marks the number


@dataclass(frozen=True)
class Repeats:
    """Examples of a trial that equal, pixel by pixel, one that it trains on."""

    test: int
    validation: int
    num_test: int
    num_validation: int

    def note(self) -> str | None:
        """A sentence without a stop; None where there are none."""
        parts = [
            f"{equal:,} of {num:,} {name} examples ({equal / num:.1%})"
            for name, equal, num in (
                ("test", self.test, self.num_test),
                ("validation", self.validation, self.num_validation),
            )
            if equal
        ]
        return f"{' and '.join(parts)} equal a training example pixel by pixel" if parts else None


class Watch:
    """A watch on the images of a source, each on its way to the disk."""

    def __init__(self, labels: Array):
        self.labels = labels
        self.hashes = np.zeros(len(labels), np.uint64)
        self.constants: dict[tuple[int, ...], list[int]] = {}  # examples by the one colour of all their pixels

    def through(self, images: Iterable[Array]) -> Iterator[Array]:
        for row, image in enumerate(images):
            self.hashes[row] = hash_of(image)
            self.note(row, colour_of(image))
            yield image

    def note(self, row: int, colour: tuple[int, ...] | None) -> None:
        """Note the one colour of all pixels of an image; None: it has several."""
        if colour is not None:
            self.constants.setdefault(colour, []).append(row)

    def notes(self, classes: Sequence[str]) -> Iterator[str]:
        """A sentence without a stop on colours that fill the images of several classes."""
        shared = {colour: rows for colour, rows in self.constants.items() if len(np.unique(self.labels[rows])) > 1}
        if not shared:
            return
        numbers = np.unique(self.labels[list(chain(*shared.values()))])
        names = listed([classes[number] for number in numbers])
        one = len(shared) == 1
        yield (
            f"{sum(map(len, shared.values())):,} images of {len(numbers):,} classes ({names}) are nothing but one "
            f"colour, {listed(list(map(_in_words, shared)), 3)}, {'' if one else 'each of several classes, '}so "
            f"nothing tells these classes apart there"
        )


def hash_of(image: Array) -> int:
    return int.from_bytes(hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=BYTES).digest(), "little")


def digest_of(image: Array) -> bytes:
    """16 bytes that are equal for images of equal height, width, channels and pixels: their XXH3.

    No secret is kept by it, and 10 million images that differ share one with probability 1e-25. A SHA-256 of the pixels
    took a third of the time of decoding them.
    """
    import xxhash  # which a plan does without

    digest = xxhash.xxh3_128(" ".join(map(str, image.shape)).encode() + b"\n")
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def colour_of(image: Array) -> tuple[int, ...] | None:
    """The colour that all pixels of an image have; None: there are several."""
    first = image[0, 0]
    is_constant = (image[0] == first).all() and (image == first).all()  # nearly always the first row tells
    return tuple(first.tolist()) if is_constant else None


def repeats(hashes: Array, train: Array, validation: Array, test: Array) -> Repeats:
    """Count examples that equal one that is trained on.

    Args:   hashes: uint64 (n,) of all examples.    train, validation, test: indices into them.
    """
    seen = np.unique(hashes[train])
    test_equal, validation_equal = (int(np.isin(hashes[part], seen).sum()) for part in (test, validation))
    return Repeats(test_equal, validation_equal, len(test), len(validation))


def _in_words(colour: tuple[int, ...]) -> str:
    if len(set(colour)) > 1:
        return f"red, green and blue {' '.join(map(str, colour))}"
    return {0: "black", 255: "white"}.get(colour[0], f"grey {colour[0]}")
