"""Inception crops: a random part of an image, resized to a square; the boxes of TensorFlow and those of torchvision.

Both resize with Pillow's bilinear weights, which average over the part where it shrinks. big_vision's own resize does
not average (tf.image.resize without antialias); form `tf` is its box, not its resize.
"""

import math
from typing import NamedTuple

from PIL import Image

from backends.arrays import Array
from experiments.training.augment.draws import between, log_between, whole
from experiments.training.augment.pillow import from_pillow, to_pillow

TRIES = {"tf": 100, "torchvision": 10}
ASPECT_TF = (0.75, 1.33)
ASPECT_TORCHVISION = (3 / 4, 4 / 3)


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def num_draws(form: str) -> int:
    """The uniforms that a crop takes: two of each try, and two of the place."""
    return 2 * TRIES[form] + 2


def box(form: str, height: int, width: int, area: float, u: Array) -> Box:
    """The box of one crop.

    Args: height, width: of the image.    area: the least share of it.    u: num_draws(form) uniforms.
    """
    tries, place = u[:-2].reshape(-1, 2).tolist(), u[-2:].tolist()
    if form == "tf":
        return _box_tf(height, width, area, tries, place)
    return _box_torchvision(height, width, area, tries, place)


def _box_tf(height: int, width: int, least: float, tries: list[list[float]], place: list[float]) -> Box:
    """The aspect is uniform, then the height among the whole numbers at which the area fits; else the whole image.

    Source: TensorFlow, sample_distorted_bounding_box_op.cc, with no object to cover, as big_vision calls it. A box
    never lies at the last row or column that has room for it, as there. Differs: in float64, theirs in float32.
    """
    for u_aspect, u_height in tries:
        sides = _sides_tf(height, width, least, between(*ASPECT_TF, u_aspect), u_height)
        if sides:
            h, w = sides
            return Box(whole(height - h, place[0]), whole(width - w, place[1]), h, w)
    return Box(0, 0, height, width)


def _sides_tf(height: int, width: int, least: float, aspect: float, u: float) -> tuple[int, int] | None:
    """Height and width of a box of this aspect; None: none fits."""
    most_area, least_area = height * width, least * height * width
    low, high = round(math.sqrt(least_area / aspect)), round(math.sqrt(most_area / aspect))
    if round(high * aspect) > width:
        high = int((width + 0.5 - 1e-7) / aspect)
        high -= round(high * aspect) > width
    high = min(high, height)
    h = min(low, high)
    h += whole(high - h + 1, u)
    # A height that rounding took out of the area's range may be mended by one pixel.
    h += h * round(h * aspect) < least_area
    h -= h * round(h * aspect) > most_area
    w = round(h * aspect)
    fits = least_area <= h * w <= most_area and 0 < w <= width and 0 < h <= height
    return (h, w) if fits else None


def _box_torchvision(height: int, width: int, least: float, tries: list[list[float]], place: list[float]) -> Box:
    """Area and logarithm of the aspect are uniform; else the middle, as near to the image's aspect as is allowed.

    Source: torchvision, RandomResizedCrop.get_params.
    """
    for u_area, u_aspect in tries:
        area, aspect = height * width * between(least, 1.0, u_area), log_between(*ASPECT_TORCHVISION, u_aspect)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return Box(whole(height - h + 1, place[0]), whole(width - w + 1, place[1]), h, w)
    narrowest, widest = ASPECT_TORCHVISION
    h, w = height, width
    if width / height < narrowest:
        h = round(width / narrowest)
    elif width / height > widest:
        w = round(height * widest)
    return Box((height - h) // 2, (width - w) // 2, h, w)


def resized(image: Array, part: Box, size: int) -> Array:
    """A part of an image as a square, bit for bit what Pillow's resize with this box gives.

    At its border the weights reach over pixels of the image that lie just outside of the part. Libraries that cut
    first and resize then have no such pixels, and differ there.

    Args:   image: uint8 (h, w, c).
    Returns: uint8 (size, size, c).
    """
    edges = (part.left, part.top, part.left + part.width, part.top + part.height)
    # The whole image, though the weights do not reach far: Pillow chooses by its sides which axis comes first.
    return from_pillow(to_pillow(image).resize((size, size), Image.Resampling.BILINEAR, box=edges))
