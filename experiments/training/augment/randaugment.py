"""RandAugment: some operations on an image, one after the other, each drawn anew with replacement.

Source: arXiv 1909.13719, in the two forms that are in use; see tensorflow_forms.py and pillow_forms.py.
"""

from collections.abc import Callable
from functools import cache, partial

import numpy as np

from backends.arrays import Array
from experiments.spec.config import RandAugmentConfig
from experiments.training.augment import pillow_forms, tensorflow_forms

NUM_DRAWS = 4  # of each operation: which, its sign, and a place
LAST_BIN = 30  # torchvision's num_magnitude_bins is 31; magnitudes between two bins lie on the same line
Operation = Callable[[Array, float, list[float]], Array]  # of an image, 1 or -1, and two uniforms for a place


def randaugment(image: Array, config: RandAugmentConfig, u: Array) -> Array:
    """The image after all operations.  Args: u: config.num * NUM_DRAWS uniforms."""
    each = list(operations(config.style, config.magnitude).values())
    for which, sign, *place in u.reshape(-1, NUM_DRAWS).tolist():
        image = each[int(which * len(each))](image, 1.0 if sign < 0.5 else -1.0, place)
    return image


@cache
def operations(style: str, magnitude: float) -> dict[str, Operation]:
    """The operations of a style by their names, in its code's order."""
    if style == "torchvision":
        return _torchvision(magnitude)
    return _big_vision(magnitude, mended=style == "fixed")


def _plain(operation: Callable[[Array], Array]) -> Operation:
    """An operation that draws nothing."""
    return lambda image, sign, place: operation(image)


def _signed(operation: Callable[[Array, float], Array], size: float) -> Operation:
    """An operation of a size whose sign is drawn."""
    return lambda image, sign, place: operation(image, sign * size)


def _big_vision(magnitude: float, mended: bool) -> dict[str, Operation]:
    """big_vision's 16; there is no identity, and the probability that it draws is not used.

    Source: google-research/big_vision, pp/autoaugment.py, level_to_arg and distort_image_with_randaugment.
    """
    tf, level = tensorflow_forms, magnitude / 10
    factor, shift = level * 1.8 + 0.1, level * 100
    return {
        "AutoContrast": _plain(tf.autocontrast),
        "Equalize": _plain(tf.equalize),
        "Invert": _plain(lambda image: 255 - image),
        "Rotate": _signed(tf.rotate, level * 30),
        "Posterize": _plain(partial(tf.posterize, bits=int(level * 4))),
        "Solarize": _plain(partial(tf.solarize, threshold=int(level * 256))),
        "Color": _plain(partial(tf.color, factor=factor)),
        "Contrast": _plain(partial(tf.contrast, factor=factor, mended=mended)),
        "Brightness": _plain(partial(tf.brightness, factor=factor)),
        "Sharpness": _plain(partial(tf.sharpness, factor=factor)),
        "ShearX": _signed(lambda image, by: tf.warp(image, (1, by, 0, 0, 1, 0)), level * 0.3),
        "ShearY": _signed(lambda image, by: tf.warp(image, (1, 0, 0, by, 1, 0)), level * 0.3),
        "TranslateX": _signed(lambda image, by: tf.warp(image, (1, 0, by, 0, 1, 0)), shift),
        "TranslateY": _signed(lambda image, by: tf.warp(image, (1, 0, 0, 0, 1, by)), shift),
        "Cutout": lambda image, sign, place: tf.cutout(image, int(level * 40), *place),
        "SolarizeAdd": _plain(partial(tf.solarize_add, addition=int(level * 110))),
    }


def _torchvision(magnitude: float) -> dict[str, Operation]:
    """torchvision's 14.  Source: torchvision, transforms/autoaugment.py, RandAugment._augmentation_space, _apply_op."""
    pil, bits = pillow_forms, 8 - round(magnitude / (LAST_BIN / 4))

    def enhance(what: str) -> Operation:
        return _signed(lambda image, by: pil.enhanced(image, what, 1 + by), on_line(0.9, magnitude))

    def translate(axis: int) -> Operation:
        def translated(image: Array, sign: float) -> Array:
            by = -int(sign * on_line(150 / 331 * image.shape[1 - axis], magnitude))
            return pil.transformed(image, (1, 0, by, 0, 1, 0) if axis == 0 else (1, 0, 0, 0, 1, by))

        return _signed(translated, 1)

    shear, threshold = on_line(0.3, magnitude), float(np.float32(255) - np.float32(on_line(255, magnitude)))
    return {
        "Identity": _plain(lambda image: image),
        "ShearX": _signed(lambda image, by: pil.transformed(image, (1, by, 0, 0, 1, 0)), shear),
        "ShearY": _signed(lambda image, by: pil.transformed(image, (1, 0, 0, by, 1, 0)), shear),
        "TranslateX": translate(0),
        "TranslateY": translate(1),
        "Rotate": _signed(pil.rotated, on_line(30, magnitude)),
        "Brightness": enhance("brightness"),
        "Color": enhance("color"),
        "Contrast": enhance("contrast"),
        "Sharpness": enhance("sharpness"),
        "Posterize": _plain(partial(pil.posterized, bits=bits)),
        "Solarize": _plain(partial(pil.solarized, threshold=threshold)),
        "AutoContrast": _plain(pil.autocontrasted),
        "Equalize": _plain(pil.equalized),
    }


def on_line(last: float, magnitude: float) -> float:
    """The size at a magnitude, on the line from 0 at bin 0 to `last` at the last bin, in float32 as torch.linspace."""
    step = np.float32(last) / np.float32(LAST_BIN)
    if magnitude <= LAST_BIN / 2:
        return float(step * np.float32(magnitude))
    return float(np.float32(last) - step * np.float32(LAST_BIN - magnitude))
