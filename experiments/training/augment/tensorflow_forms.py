"""Operations on pixels as big_vision's TensorFlow code defines them, in NumPy: uint8 (h, w, c) in and out.

Source: google-research/big_vision, pp/autoaugment.py, and the kernels of TensorFlow and of TensorFlow Addons that it
calls. Sums of whole numbers that they take in float32 (grey levels, the smoothed image) are whole numbers here: what is
whole but for a rounding there may differ by one level. Theirs take colour images alone; here one channel is grey.
"""

import math
from typing import Any

import numpy as np
from PIL import ImageOps

from backends.arrays import Array
from experiments.training.augment.pillow import as_words, from_pillow, from_words, looked_up, to_pillow

LEVELS = np.arange(256)
PIECE = 2**14  # numbers that are computed at once; twice as fast as all of an image of 224 pixels
BELOW_HALF = np.nextafter(np.float32(0.5), np.float32(0))  # added, a cast rounds half up, and what is below half down
FILL = np.uint8(128)  # of what comes from outside of an image
FILLED: dict[int, Any] = {1: FILL, 4: np.uint32(0x80808080)}  # a pixel of it by its bytes; see as_words
GREY = np.array([2989, 5870, 1140], np.int32)  # ten-thousandths, tf.image.rgb_to_grayscale


def blend(ground: Array, image: Array, factor: float) -> Array:
    """From `ground` (factor 0) to the image (1) and beyond; fractions are cut off, as a cast to uint8 does."""
    first = ground.astype(np.float32)
    mixed = np.subtract(image, first, dtype=np.float32)
    mixed *= np.float32(factor)
    mixed += first
    return np.clip(mixed, 0, 255, out=mixed).astype(np.uint8)


def grey(image: Array) -> Array:
    """Grey levels, int32 (h, w, 1).  They are brought to [0, 1] and back by 255.5, so that white is 255."""
    return image.astype(np.int32) if image.shape[2] == 1 else (image @ GREY * 511 // 5_100_000)[..., None]


def color(image: Array, factor: float) -> Array:
    """More colour above 1, less below."""
    result = np.empty_like(image)
    for rows in bands(image):
        result[rows] = blend(grey(image[rows]), image[rows], factor)
    return result


def contrast(image: Array, factor: float, mended: bool) -> Array:
    """Away from a grey level or towards it: the image's mean, or, not mended, the number of its pixels / 256."""
    height, width = image.shape[:2]
    total = sum(int(grey(image[rows]).sum()) for rows in bands(image)) if mended else 0
    mean = (2 * total + height * width) // (2 * height * width) if mended else min(255, height * width // 256)
    return looked_up(image, blend(np.array(mean), LEVELS, factor))


def brightness(image: Array, factor: float) -> Array:
    """Darker below 1, lighter above."""
    return looked_up(image, blend(np.array(0), LEVELS, factor))


def sharpness(image: Array, factor: float) -> Array:
    """Away from the image smoothed over 3 x 3 pixels, or towards it; its border stays as it is."""
    result = image.copy()
    for rows in bands(image[1:-1]):
        around = image[rows.start : rows.stop + 2].astype(np.uint16)  # 13 times 255 fits
        columns = around[:-2] + around[1:-1] + around[2:]
        own = around[1:-1, 1:-1]
        smooth = (columns[:, :-2] + columns[:, 1:-1] + columns[:, 2:] + 4 * own) // 13
        result[rows.start + 1 : rows.stop + 1, 1:-1] = blend(smooth, own, factor)
    return result


def autocontrast(image: Array) -> Array:
    """Each channel stretched to all levels, in float32, so that its highest may become 254, as there."""
    tables = []
    for channel in to_pillow(image).split():
        low, high = np.array(channel.getextrema(), np.float32)
        scale = np.float32(255) / (high - low) if high > low else np.float32(1)
        offset = -low * scale if high > low else np.float32(0)
        tables.append(np.clip(LEVELS.astype(np.float32) * scale + offset, 0, 255).astype(np.uint8))
    return looked_up(image, np.concatenate(tables))


def equalize(image: Array) -> Array:
    """Each channel's levels spread evenly; Pillow's, whose whole numbers theirs are."""
    return from_pillow(ImageOps.equalize(to_pillow(image)))


def posterize(image: Array, bits: int) -> Array:
    """The upper bits; of none asked for one is kept, and from 8 on all, where their shift is by less than none."""
    shift = min(max(8 - bits, 0), 7)
    return image >> np.uint8(shift) << np.uint8(shift)


def solarize(image: Array, threshold: int) -> Array:
    """Levels from the threshold on inverted; 256 is 0 to a uint8, as there (big_vision's issue 110)."""
    return looked_up(image, np.where(threshold % 256 > LEVELS, LEVELS, 255 - LEVELS))


def solarize_add(image: Array, addition: int) -> Array:
    """Levels below 128 made lighter."""
    return looked_up(image, np.where(LEVELS < 128, np.minimum(LEVELS + addition, 255), LEVELS))


def cutout(image: Array, pad: int, u_row: float, u_column: float) -> Array:
    """A square of 2 pad pixels a side filled, around a pixel anywhere in the image, as far as it lies inside."""
    row, column = (int(u * side) for u, side in zip((u_row, u_column), image.shape[:2], strict=True))
    image = image.copy()
    image[max(0, row - pad) : row + pad, max(0, column - pad) : column + pad] = FILL
    return image


def rotate(image: Array, degrees: float) -> Array:
    """Around the middle; the nearest pixel."""
    turn, (height, width) = math.radians(degrees), image.shape[:2]
    cos, sin, right, low = math.cos(turn), math.sin(turn), width - 1, height - 1
    x0, y0 = (right - (cos * right - sin * low)) / 2, (low - (sin * right + cos * low)) / 2
    return warp(image, (cos, -sin, x0, sin, cos, y0))


def warp(image: Array, matrix: tuple[float, ...]) -> Array:
    """Each pixel (x, y) taken from the nearest one to (a x + b y + c, d x + e y + f), in float32; outside it is filled.

    Args: matrix: a, b, c, d, e, f.
    """
    a, b, c, d, e, f = np.array(matrix, np.float32)
    height, width = image.shape[:2]
    words, x = as_words(image), np.arange(width, dtype=np.float32)
    result = np.empty((height, width), words.dtype)
    for band in bands(image):
        y = np.arange(band.start, band.stop, dtype=np.float32)[:, None]
        columns, rows = a * x + b * y + c, d * x + e * y + f
        # std::round goes away from zero: what is half a pixel outside is outside.
        inside = (columns > -0.5) & (columns < width - 0.5) & (rows > -0.5) & (rows < height - 0.5)
        nearest = (rows + BELOW_HALF).astype(np.int32) * width + (columns + BELOW_HALF).astype(np.int32)
        result[band] = np.where(inside, words.take(np.where(inside, nearest, 0)), FILLED[words.itemsize])
    return from_words(result)


def bands(image: Array) -> list[slice]:
    """Slices of its rows so short that what is computed of one stays in the cache, and below what malloc maps anew."""
    height, row = image.shape[0], max(1, image[:1].size)
    step = max(1, PIECE // row)
    return [slice(top, min(top + step, height)) for top in range(0, height, step)]
