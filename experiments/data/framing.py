"""Framing: how an image of any size becomes a square, squashed, or its middle cut out.

With `data.shorter_side` the shorter side is resized to so many pixels, the ratio of the sides is kept, and the middle
square of `data.image_size` is cut out, as timm and torchvision prepare images for an evaluation. Without it the image
is resized to the square, and its ratio is not kept.
"""

from typing import TYPE_CHECKING

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError
from experiments.spec.config import DataConfig

if TYPE_CHECKING:  # Pillow takes part only where a source is read
    from PIL.Image import Image


def check(config: DataConfig, where: str) -> None:
    """Check sizes and channels.

    Raises: MixlabError: `data.shorter_side` does not fit `data.image_size`, or no image has so many channels.
    """
    if config.image_channels == 2:
        raise MixlabError(f"{where}: data.image_channels: expected 1 (grey) or 3 (colour), got 2")
    if config.shorter_side is not None and (config.image_size is None or config.shorter_side < config.image_size):
        raise MixlabError(
            f"{where}: data.shorter_side: {config.shorter_side} needs a data.image_size, the square to cut out, that "
            f"is not larger; got {config.image_size}"
        )


def frame(image: "Image", size: int, config: DataConfig) -> "Image":
    """The image as a square of `size` pixels a side. Pillow's filters average over the source where it shrinks.

    Source: torchvision's Resize and CenterCrop, for `data.shorter_side`.
    """
    from PIL import Image

    resampling = Image.Resampling[config.interpolation.upper()]
    if config.shorter_side is None:
        return image if image.size == (size, size) else image.resize((size, size), resampling)
    short = min(image.size)
    width, height = (config.shorter_side * side // short for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), resampling)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def frame_array(pixels: Array, size: int, config: DataConfig) -> Array:
    """As `frame`, of uint8 (h, w, channels) to (size, size, channels)."""
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return np.asarray(frame(image, size, config)).reshape(size, size, pixels.shape[-1])


def upright(image: "Image") -> "Image":
    """An image of 8 bits without transparency, turned as its camera noted, in grey, a palette or red, green, blue."""
    from PIL import ImageOps

    ImageOps.exif_transpose(image, in_place=True)
    return image if image.mode in ("1", "L", "P", "RGB") else image.convert("RGB")


def as_array(image: "Image", channels: int) -> Array:
    """The pixels uint8 (h, w, channels): colour becomes grey by Pillow's "L" (ITU-R 601)."""
    mode, (width, height) = "L" if channels == 1 else "RGB", image.size
    return np.asarray(image if image.mode == mode else image.convert(mode)).reshape(height, width, channels)
