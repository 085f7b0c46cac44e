"""Raw images to uint8 arrays of one size and one number of channels, through Pillow."""

from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from backends.contract import Array
from backends.errors import MixlabError
from experiments.data.framing import frame
from experiments.data.raw import Raw, RawSource, RawSplit
from experiments.spec import DataConfig

if TYPE_CHECKING:  # Pillow takes part only where a source is read
    from PIL.Image import Image

GREY_MODES = ("1", "L", "LA", "I;16", "I;16L", "I;16B", "I;16N")
SIXTEEN_BITS = "I;16"


def survey(source: RawSource, size: int | None, channels: int | None, where: str) -> tuple[int, int]:
    """The side in pixels and the channels of the decoded images: as given, else as they are in the source.

    The source is of colour if any image is; to know that, the heads of the images are read up to the first of colour.

    Raises: MixlabError: an image cannot be read.
    """
    for split in source.splits:
        for _, _, image in _opened(split, where):
            size = size or image.size[0]
            channels = channels or (None if image.mode in GREY_MODES else 3)
            if channels:
                return size, channels
    assert size is not None  # read_source lets no empty split pass
    return size, 1


def decode(split: RawSplit, size: int, channels: int, config: DataConfig, where: str) -> Iterator[Array]:
    """Each image as uint8 (size, size, channels).

    An image of another size becomes a square as framing.py says. Colour becomes grey by Pillow's "L" (ITU-R 601).

    Raises: MixlabError: an image cannot be read, or is of another size and `data.image_size` is not given.
    """
    for row, raw, image in _opened(split, where):
        if not config.image_size and image.size != (size, size):
            width, height = image.size
            raise MixlabError(
                f"{where}: data.image_size: image {row} of split {split.name!r} is {width} x {height} pixels and must "
                f"be {size} x {size}, square and as wide as the first; give a size that all are resized to, such as "
                f"{min(width, height)}"
            )
        try:
            pixels = _pixels(image, size, channels, config)
        except Exception as error:  # Pillow's decoders raise many types
            raise _unreadable(split, row, raw, error, where) from None
        yield pixels


def _opened(split: RawSplit, where: str) -> "Iterator[tuple[int, Raw, Image]]":
    for row, raw in enumerate(split.images()):
        try:
            image = _open(raw)
        except Exception as error:  # Pillow's decoders raise many types
            raise _unreadable(split, row, raw, error, where) from None
        with image:
            yield row, raw, image


def _open(raw: Raw) -> "Image":
    from PIL import Image

    if raw is None:
        raise ValueError("it is missing")
    if isinstance(raw, np.ndarray):
        return Image.fromarray(raw[..., 0] if raw.shape[-1] == 1 else raw)
    return Image.open(BytesIO(raw) if isinstance(raw, bytes) else raw)


def _pixels(image: "Image", size: int, channels: int, config: DataConfig) -> Array:
    from PIL import Image, ImageOps

    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith(SIXTEEN_BITS):
        # Pillow's own conversion to 8 bits cuts everything above 255 off.
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no fixed range")
    image = frame(image.convert("L" if channels == 1 else "RGB"), size, config)
    return np.asarray(image).reshape(size, size, channels)


def _unreadable(split: RawSplit, row: int, raw: Raw, error: Exception, where: str) -> MixlabError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    file = f", {raw}," if isinstance(raw, str) else ""
    return MixlabError(
        f"{where}: data.source: image {row} of split {split.name!r}{file} cannot be read ({reason}); "
        f"replace or remove it"
    )
