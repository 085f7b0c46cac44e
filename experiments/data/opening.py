"""Raw images, opened by Pillow: their heads are read, their pixels not yet."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError, first_line
from experiments.data import depth
from experiments.data.raw import Raw, Split

if TYPE_CHECKING:  # Pillow takes part only where a source is read
    from PIL.Image import Image

PALE = {"L;2": 85, "L;4": 17}  # 8-bit value of the step of a pale grey; Pillow scales its pixels, not its transparency


def all_opened(split: Split, where: str) -> "Iterator[tuple[int, Raw, Image]]":
    for row, raw in enumerate(split.images()):
        try:
            image = opened(raw)
        except Exception as error:  # Pillow's decoders raise many types
            raise unreadable(split.name, row, raw, error, where) from error
        with image:
            yield row, raw, image


def opened(raw: Raw) -> "Image":
    """The image of a raw one, its head read.  Raises: many types, as Pillow's decoders do."""
    from PIL import Image

    if raw is None:
        raise ValueError("it is missing")
    if isinstance(raw, np.ndarray):
        shown = raw if raw.dtype == np.uint8 else (raw >> 8).astype(np.uint8)  # its size and channels are what counts
        return Image.fromarray(shown[..., 0] if shown.shape[-1] == 1 else shown)
    image = Image.open(BytesIO(raw) if isinstance(raw, bytes) else raw)
    if isinstance(image.info.get("transparency"), int):
        image.info["transparency"] *= PALE.get(depth.raw_mode(image), 1)
    return image


def may_be_transparent(image: "Image") -> bool:
    """Tell whether an image has an alpha channel, or declares a colour transparent."""
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def is_deep(raw: Raw, image: "Image") -> bool:
    """Tell whether a raw image has 16 bits a channel."""
    return raw.dtype != np.uint8 if isinstance(raw, np.ndarray) else depth.is_deep(image)


def deep_values(raw: Raw, image: "Image") -> tuple[Array, Array | None]:
    return depth.from_array(raw) if isinstance(raw, np.ndarray) else depth.values(image, lambda: opened(raw))


class Unreadable(MixlabError):
    """An image that cannot be read; `told`: which, and why, to list it with others."""

    told = ""


def unreadable(split: str, row: int, raw: Raw, error: Exception, where: str) -> Unreadable:
    """The sentence on an image that cannot be read."""
    reason = first_line(error).split(" <_io.BytesIO")[0]  # the rest says nothing to the reader
    file = f", {raw}," if isinstance(raw, str) else ""
    which = f"image {row} of split {split!r}{file}"
    found = Unreadable(f"{where}: data.source: {which} cannot be read ({reason}); replace or remove it")
    found.told = f"{raw if isinstance(raw, str) else which} ({reason})"
    return found


def all_unreadable(found: Sequence[Unreadable], most: int, where: str) -> MixlabError:
    """The sentence on all of them.  Args: most: from so many on, there may be more."""
    if len(found) == 1:
        return found[0]
    more = " or more" if len(found) >= most else ""
    told = ", ".join(one.told for one in found[:most])
    return MixlabError(
        f"{where}: data.source: {min(len(found), most)} images{more} cannot be read: {told}; replace or remove them"
    )
