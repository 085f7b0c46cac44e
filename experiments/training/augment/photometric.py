"""Colour jitter, three-augment and random erasing: changes of an image that keep its pixels in their places."""

import math

import numpy as np

from backends.arrays import Array
from experiments.training.augment import pillow_forms
from experiments.training.augment.draws import between, log_between, whole

JITTERED = ("brightness", "contrast", "color")  # torchvision calls the last one saturation
JITTER_DRAWS = 2 * len(JITTERED)  # a factor and a place in the order, for each
THREE_DRAWS = 2  # which, and the radius of a blur
BLUR_RADIUS = (0.1, 2.0)  # pixels
SOLARIZE_THRESHOLD = 128
ERASING_TRIES = 10
ERASING_DRAWS = 1 + 2 * ERASING_TRIES + 2  # whether, area and aspect of each try, a place
ERASED_AREA = (0.02, 1 / 3)  # share of the image
ERASED_ASPECT = (0.3, 1 / 0.3)
ERASED = np.uint8(128)  # the middle of the levels, to the nearest one; theirs is 0 after normalizing


def color_jitter(image: Array, strength: float, u: Array) -> Array:
    """Brightness, contrast and saturation by factors in [1 - strength, 1 + strength], in an order that is drawn.

    Source: torchvision, ColorJitter(strength, strength, strength).
    """
    factors, order = u[: len(JITTERED)].tolist(), np.argsort(u[len(JITTERED) :], kind="stable").tolist()
    for i in order:
        factor = between(max(0.0, 1 - strength), 1 + strength, factors[i])
        image = pillow_forms.enhanced(image, JITTERED[i], factor)
    return image


def three_augment(image: Array, u: Array) -> Array:
    """The image in grey, solarized or blurred, one of them each time.

    Source: DeiT III (arXiv 2204.07118, section 3), facebookresearch/deit, augment.py.
    """
    which, radius = u.tolist()
    if which < 1 / 3:
        return pillow_forms.greyed(image)
    if which < 2 / 3:
        return pillow_forms.solarized(image, SOLARIZE_THRESHOLD)
    return pillow_forms.blurred(image, between(*BLUR_RADIUS, radius))


def erasing(image: Array, probability: float, u: Array) -> Array:
    """A grey box in the image with this probability; none where ten tries give none that fits.

    Source: arXiv 1708.04896, in timm's form (RandomErasing, mode const, one box).
    """
    height, width = image.shape[:2]
    if u[0] >= probability:
        return image
    for u_area, u_aspect in u[1:-2].reshape(-1, 2).tolist():
        area, aspect = height * width * between(*ERASED_AREA, u_area), log_between(*ERASED_ASPECT, u_aspect)
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            top, left = whole(height - h + 1, u[-2]), whole(width - w + 1, u[-1])
            image = image.copy()
            image[top : top + h, left : left + w] = ERASED
            return image
    return image
