"""Images of Pillow and arrays: uint8 (h, w, c) with one channel or three."""

import numpy as np
from PIL import Image

from backends.arrays import Array


def to_pillow(image: Array) -> Image.Image:
    """The image of an array uint8 (h, w, c); c is 1 or 3."""
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def from_pillow(image: Image.Image) -> Array:
    """The array uint8 (h, w, c) of an image of mode L or RGB."""
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def looked_up(image: Array, table: Array) -> Array:
    """The image with each level replaced.  Args: table: (256,) for all channels, or (c * 256,), of 0 to 255."""
    levels = table.tolist() * (image.shape[2] if len(table) == 256 else 1)
    return from_pillow(to_pillow(image).point(levels))
