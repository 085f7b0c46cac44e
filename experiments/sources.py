"""Where examples come from: digits, the synthetic source, or a Hugging Face data set (experiments/folders.py).

A source is read into labels and raw images. Nothing heavy is imported before a source has to be read.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backends.contract import Array
from backends.errors import MixlabError, choices
from experiments.spec import DataConfig
from experiments.streams import integers

BUILT_IN = ("digits", "synthetic")
HUB_FOLDER = "hub"  # in the data cache: what came over the network is kept
SYNTHETIC_VERSION = "synthetic-1"  # raise the number when the same fields would draw other pixels

SIZE, CHANNELS = 32, 3  # of synthetic images where none are given
# Coarse cells a side of a blob field. Prototype and distractor are such fields, so no filter tells them apart.
CELLS = 4
# Weights of 8-bit draws, in 1/128. At these the nearest class mean is right for 72 to 80 % of 200 test images (three
# seeds, 1,000 colour images of 32 x 32, ten classes): neither hopeless nor done at once.
PROTOTYPE_WEIGHT, BLOB_WEIGHT, NOISE_WEIGHT = 28, 72, 28

Raw = bytes | str | Array | None  # an encoded image, the path of its file, its pixels (uint8), or nothing


@dataclass(frozen=True, eq=False)
class RawSplit:
    """One split. `images()` gives the raw images in the order of `labels`, anew at each call."""

    name: str
    labels: Array  # int32 (n,)
    images: Callable[[], Iterator[Raw]]


@dataclass(frozen=True, eq=False)
class RawSource:
    num_classes: int
    train: RawSplit
    test: RawSplit | None  # none: test examples are to be cut from the training split

    @property
    def splits(self) -> list[RawSplit]:
        return [self.train, self.test] if self.test else [self.train]


def read_source(config: DataConfig, scratch: Path, where: str) -> RawSource:
    """Labels and raw images of both splits.

    Args:   scratch: folder for working files, which must outlive the result.
    Raises: MixlabError: the source, a split or a column is missing or of no use.  OSError: `scratch` is full.
    """
    if config.source == "digits":
        source = _digits(config, where)
    elif config.source == "synthetic":
        source = _synthetic(config, where)
    else:
        from experiments import folders

        source = folders.read(config, scratch, where)
    for split in source.splits:
        if not len(split.labels):
            raise MixlabError(f"{where}: data.source: split {split.name!r} of {config.source!r} has no examples")
    if len(np.unique(source.train.labels)) < 2:
        raise MixlabError(
            f"{where}: data.source: all examples of split {source.train.name!r} of {config.source!r} are of one "
            f"class; at least 2 classes are needed"
        )
    return source


def choose_splits(config: DataConfig, names: Iterable[str], where: str) -> tuple[str, str | None]:
    """Names of the training and the test split; None where test examples are to be cut from the training split.

    Raises: MixlabError: a split that was asked for does not exist, or one is to be both.
    """
    names = list(names)
    for field, name in (("train_split", config.train_split), ("test_split", config.test_split)):
        if name is not None and name not in names:
            raise MixlabError(f"{where}: data.{field}: {config.source!r} has no split {name!r}; {choices(name, names)}")
    if config.test_split == config.train_split:
        others = [name for name in names if name != config.train_split]
        raise MixlabError(
            f"{where}: data.test_split: {config.test_split!r} is the training split; leave it out or take another, "
            f"{choices(config.test_split, others)}"
        )
    usual = [name for name in ("test", "validation") if name in names and name != config.train_split]
    return config.train_split, config.test_split or next(iter(usual), None)


def _digits(config: DataConfig, where: str) -> RawSource:
    choose_splits(config, ["train"], where)
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    return RawSource(10, RawSplit("train", digits.target.astype(np.int32), lambda: iter(pixels)), None)


def _synthetic(config: DataConfig, where: str) -> RawSource:
    choose_splits(config, ["train"], where)
    labels = np.arange(config.num_examples, dtype=np.int32) % config.num_classes
    split = RawSplit("train", labels, lambda: _synthetic_images(config, labels))
    return RawSource(config.num_classes, split, None)


def _synthetic_images(config: DataConfig, labels: Array) -> Iterator[Array]:
    """Each image is its class's field of blobs, a stronger field of its own, and noise.

    All arithmetic is on whole numbers, so that every machine draws the same pixels.
    """
    size, channels, seed = config.image_size or SIZE, config.image_channels or CHANNELS, config.split_seed
    coarse = (CELLS, CELLS, channels)
    prototypes = integers(seed, "synthetic/prototypes", 0, config.num_classes, coarse, 256)
    spread = _spread(size)
    for row, label in enumerate(labels):
        blobs = integers(seed, "synthetic/blobs", row, 1, coarse, 256)[0]
        noise = integers(seed, "synthetic/noise", row, 1, (size, size, channels), 256)[0]
        cells = PROTOTYPE_WEIGHT * prototypes[label] + BLOB_WEIGHT * blobs
        rows = np.einsum("hi,ijc->hjc", spread, cells)
        smooth = np.einsum("wj,hjc->hwc", spread, rows) // 64**2
        yield ((smooth + NOISE_WEIGHT * noise) // 128).clip(0, 255).astype(np.uint8)


def _spread(size: int) -> Array:
    """Weights int64 (size, CELLS), in 1/64, of linear interpolation between the centres of the cells."""
    # Twice the distance of a pixel's centre from the first cell's centre, times size, stays a whole number.
    place = (2 * np.arange(size) + 1) * CELLS - size
    place = place.clip(0, 2 * size * (CELLS - 1))
    distance = np.abs(place[:, None] - 2 * size * np.arange(CELLS)[None, :])
    weights: Array = (64 * (2 * size - distance).clip(0)) // (2 * size)
    return weights
