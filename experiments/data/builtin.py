"""Sources that need no files: the digits of scikit-learn, and synthetic images."""

from collections.abc import Iterator

import numpy as np

from backends.arrays import Array
from experiments.data.raw import Found, RawSplit
from experiments.spec.config import DataConfig
from experiments.streams import integers

BUILT_IN = ("digits", "synthetic")
SYNTHETIC_VERSION = "synthetic-1"  # raise the number when the same fields would draw other pixels

SIZE, CHANNELS = 32, 3  # of synthetic images where none are given
# Coarse cells a side of a blob field. Prototype and distractor are such fields, so no filter tells them apart.
CELLS = 4
# Weights of 8-bit draws, in 1/128. At these the nearest class mean is right for 72 to 80 % of 200 test images (three
# seeds, 1,000 colour images of 32 x 32, ten classes): neither hopeless nor done at once.
PROTOTYPE_WEIGHT, BLOB_WEIGHT, NOISE_WEIGHT = 28, 72, 28


def digits() -> Found:
    def read() -> RawSplit:
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
        return RawSplit("train", digits.target, lambda: iter(pixels))

    return Found("digits", {"train": read})


def synthetic(config: DataConfig) -> Found:
    labels = np.arange(config.num_examples, dtype=np.int32) % config.num_classes
    split = RawSplit("train", labels, lambda: _synthetic_images(config, labels))
    return Found("synthetic", {"train": lambda: split}, tuple(str(row) for row in range(config.num_classes)))


def _synthetic_images(config: DataConfig, labels: Array) -> Iterator[Array]:
    """Images that are their class's field of blobs, a stronger field of their own, and noise.

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
