"""Images of 16 bits a channel: the values as they were written, which conversions to 8 bits cut or shift away.

Pillow keeps grey of 16 bits. Of colour it keeps the upper byte only, so such a file is decoded twice: as its raw mode
says, and in the other order of bytes, which gives the lower one.
"""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.arrays import Array

if TYPE_CHECKING:  # Pillow takes part only where a source is read
    from PIL.Image import Image

GREY_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # "I": what older Pillow makes of PNGs, and newer of some TIFFs
MOST = 2**16 - 1
_RAW_MODE = re.compile(r"(RGB|RGBA|RGBX|RGBa|LA|CMYK);16([BLN])")
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


@dataclass(frozen=True)
class Range:
    """Largest values of a source's images of 16 bits, as numbers of bits."""

    bits: int
    alpha_bits: int
    largest: int


def is_deep(image: "Image") -> bool:
    """Tell whether an image that was opened and not yet loaded has more than 8 bits a channel.

    Raises: ValueError: its bits lie in an order that nothing here can read.
    """
    if image.mode in GREY_MODES or _RAW_MODE.fullmatch(raw_mode(image)):
        return True
    if image.format == "TIFF" and max(np.atleast_1d(_tag(image, 258, 8))) > 8 and image.mode != "F":
        raise ValueError("it has 16 bits a channel, one channel after the other; store them pixel by pixel")
    if image.format == "PPM" and image.mode == "RGB" and _largest_of_ppm(image) > 255:
        raise ValueError("it is a PPM of 16 bits a channel, which Mixlab does not read; store it as PNG")
    return False


def values(image: "Image", again: Callable[[], "Image"]) -> tuple[Array, Array | None]:
    """Values int32 (h, w, 1 or 3) and, where there is one, alpha int32 (h, w), turned as EXIF says.

    Args:   again: opens the same image anew.
    Raises: ValueError: values that do not fit into 16 bits, or a form of colour that is not read.
    """
    matched = _RAW_MODE.fullmatch(raw_mode(image))
    transparent = image.info.get("transparency")
    if matched is None:
        return from_array(_turned(image)[..., None], transparent)
    form, order = matched.groups()
    if form in ("RGBa", "CMYK"):
        raise ValueError(f"it is {form} of 16 bits a channel, which Mixlab does not read; store it as RGB or RGBA")
    with again() as second:
        if form == "LA":  # two channels of two bytes are read as four of one
            _set_raw_mode(second, "RGBA")
            upper_lower = _turned(second)
            return from_array(256 * upper_lower[..., ::2] + upper_lower[..., 1::2], transparent)
        _set_raw_mode(second, f"{form};16{_OTHER_ORDER[order]}")
        return from_array(256 * _turned(image) + _turned(second), transparent)


def from_array(pixels: Array, transparent: Any = None) -> tuple[Array, Array | None]:
    """The values and the alpha of an array (h, w, c), as of `values`. Of 2 or 4 channels the last is alpha.

    Args: transparent: the value, or the three values, that a file declares to be transparent.
    """
    pixels = pixels.astype(np.int32)
    if pixels.min() < 0 or pixels.max() > MOST:
        raise ValueError(f"expected values from 0 to {MOST}, got {pixels.min()} to {pixels.max()}")
    if pixels.shape[-1] in (2, 4):
        return pixels[..., :-1], pixels[..., -1]
    if transparent is None:
        return pixels, None
    return pixels, np.where((pixels == np.array(transparent)).all(-1), 0, MOST).astype(np.int32)


def bits_for(largest: int) -> int:
    """The fewest bits, 8 at least, that hold a value."""
    return max(8, int(largest).bit_length())


def _turned(image: "Image") -> Array:
    from PIL import ImageOps

    ImageOps.exif_transpose(image, in_place=True)
    return np.asarray(image).astype(np.int64)


def raw_mode(image: "Image") -> str:
    """The order of pixels in the file, as Pillow names it; "" if it names none."""
    tiles = getattr(image, "tile", None)
    arguments: Any = tiles[0][3] if tiles else ""
    mode = arguments if isinstance(arguments, str) else (arguments or [""])[0]
    return mode if isinstance(mode, str) else ""


def _set_raw_mode(image: Any, mode: str) -> None:
    def changed(arguments: Any) -> Any:
        return mode if isinstance(arguments, str) else (mode, *arguments[1:])

    image.tile = [tile._replace(args=changed(tile.args)) for tile in image.tile]


def _largest_of_ppm(image: Any) -> int:
    arguments = image.tile[0][3]
    return 255 if isinstance(arguments, str) else int(arguments[1])


def _tag(image: Any, number: int, default: int) -> Any:
    return image.tag_v2.get(number, default)
