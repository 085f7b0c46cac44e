"""Operations on pixels as torchvision defines them for images of Pillow: uint8 (h, w, c) in and out, 1 channel or 3."""

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from backends.arrays import Array
from experiments.training.augment.pillow import from_pillow, to_pillow

ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "color": ImageEnhance.Color,
    "sharpness": ImageEnhance.Sharpness,
}


def enhanced(image: Array, what: str, factor: float) -> Array:
    """Less of it below 1, more above.  Args: what: of ENHANCERS."""
    return from_pillow(ENHANCERS[what](to_pillow(image)).enhance(factor))


def transformed(image: Array, matrix: tuple[float, ...]) -> Array:
    """Each pixel from the nearest one to (a x + b y + c, d x + e y + f), between the pixels' corners; outside is black.

    Source: torchvision, functional_pil.affine.
    """
    given = to_pillow(image)
    return from_pillow(given.transform(given.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST))


def rotated(image: Array, degrees: float) -> Array:
    """Turned to the left around the middle; the nearest pixel, and black from outside."""
    return from_pillow(to_pillow(image).rotate(degrees, Image.Resampling.NEAREST))


def posterized(image: Array, bits: int) -> Array:
    """The upper bits."""
    return from_pillow(ImageOps.posterize(to_pillow(image), bits))


def solarized(image: Array, threshold: float) -> Array:
    """Levels from the threshold on inverted."""
    return from_pillow(ImageOps.solarize(to_pillow(image), threshold))  # type: ignore[arg-type]


def autocontrasted(image: Array) -> Array:
    """Each channel stretched to all levels."""
    return from_pillow(ImageOps.autocontrast(to_pillow(image)))


def equalized(image: Array) -> Array:
    """Each channel's levels spread evenly."""
    return from_pillow(ImageOps.equalize(to_pillow(image)))


def greyed(image: Array) -> Array:
    """All channels the grey level."""
    given = to_pillow(image)
    return from_pillow(given.convert("L").convert(given.mode))


def blurred(image: Array, radius: float) -> Array:
    """Pillow's Gaussian blur, three box blurs one after the other."""
    return from_pillow(to_pillow(image).filter(ImageFilter.GaussianBlur(radius)))
