"""Raw images to uint8 arrays of one size and one number of channels, through Pillow.

Transparent pixels show `data.background`. Of several frames or pages the first is taken. Values of 16 bits are scaled
by the range that the whole source uses, or by `data.bits`. What was done to how many images is said in notes.
"""

from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError, first_line
from experiments.data import depth
from experiments.data.framing import frame, upright
from experiments.data.raw import Raw, RawSource, Split
from experiments.spec.config import DataConfig
from experiments.spec.values import shown

if TYPE_CHECKING:  # Pillow takes part only where a source is read
    from PIL.Image import Image

Colour = tuple[int, int, int]
GREY_MODES = ("1", "L", "LA", *depth.GREY_MODES)
PALE = {"L;2": 85, "L;4": 17}  # 8-bit value of the step of a pale grey; Pillow scales its pixels, not its transparency


def background(config: DataConfig, where: str) -> Colour:
    """Red, green and blue of `data.background`: a grey level, a name, or a hexadecimal number after `#`.

    Raises: MixlabError: it is none.
    """
    text = str(config.background).strip()
    if text == "black":
        return 0, 0, 0  # a plan does without Pillow
    from PIL import ImageColor

    if text.isdecimal() and int(text) < 256:
        return (int(text),) * 3
    with suppress(ValueError):
        colour = ImageColor.getrgb(text)
        if len(colour) == 3:
            return colour
    raise MixlabError(
        f"{where}: data.background: expected a grey level from 0 to 255, a name such as white, or red, green and "
        f"blue such as '#ff8000', got {shown(config.background)}"
    )


class Decoder:
    """The images of a source as uint8 (size, size, channels), and what there is to say of them afterwards.

    Sizes that are not given are those of the source: the side is that of the first image, and it is of colour if any
    image is. To know that, the heads of the images are read up to the first of colour.
    """

    def __init__(self, source: RawSource, config: DataConfig, where: str):
        """Find size and channels. Raises: MixlabError: an image cannot be read, or `data.background` is no colour."""
        self.source, self.config, self.where = source, config, where
        self.background = background(config, where)
        self.range: depth.Range | None = None  # of images of 16 bits; found when the first of them is met
        self.blended = self.framed = self.deep = self.total = 0
        self.size, self.channels = self._survey()

    def images(self) -> Iterator[Array]:
        """The images one by one, those of the training split first.

        An image of another size becomes a square as framing.py says. Colour becomes grey by Pillow's "L" (ITU-R 601).

        Raises: MixlabError: an image cannot be read, or is of another size and `data.image_size` is not given.
        """
        self.blended = self.framed = self.deep = self.total = 0
        return chain(*map(self._decode, self.source.splits))

    def notes(self) -> tuple[str, ...]:
        """Notes on what the user may not expect to be done to images, with their numbers; after `images` has ended."""
        of = f"of {self.total:,} images"
        notes = []
        if self.blended:
            notes.append(
                f"{self.blended:,} {of} have transparent pixels, which show data.background ({self.config.background})"
            )
        if self.framed:
            notes.append(f"{self.framed:,} {of} have several frames or pages, of which the first is taken")
        if self.range:
            bits, why = self._bits(), "" if self.config.bits else f", as the largest value is {self.range.largest:,}"
            notes.append(f"{self.deep:,} {of} have 16 bits a channel; 0 to {2**bits - 1:,} is their range{why}")
        return tuple(notes)

    def _survey(self) -> tuple[int, int]:
        size, channels = self.config.image_size, self.config.image_channels
        if size and channels:
            return size, channels
        coloured = len(set(self.background)) > 1
        for split in self.source.splits:
            for _, _, image in _opened(split, self.where):
                size = size or image.size[0]
                grey = image.mode in GREY_MODES and not (coloured and _may_be_transparent(image))
                channels = channels or (None if grey else 3)
                if channels:
                    return size, channels
        assert size is not None  # read_source lets no empty split pass
        return size, 1

    def _decode(self, split: Split) -> Iterator[Array]:
        size = self.size
        for row, raw, image in _opened(split, self.where):
            if not self.config.image_size and image.size != (size, size):
                width, height = image.size
                raise MixlabError(
                    f"{self.where}: data.image_size: image {row} of split {split.name!r} is {width} x {height} pixels; "
                    f"expected {size} x {size}, square and as wide as the first; give a size that all are resized "
                    f"to, such as {min(width, height)}"
                )
            try:
                yield self._pixels(raw, image)
            except MixlabError:
                raise
            except Exception as error:  # Pillow's decoders raise many types
                raise _unreadable(split, row, raw, error, self.where) from error

    def _pixels(self, raw: Raw, image: "Image") -> Array:
        self.total += 1
        self.framed += bool(getattr(image, "is_animated", False))
        flat = self._scaled(raw, image) if _is_deep(raw, image) else self._blended(image)
        flat = frame(flat.convert("L" if self.channels == 1 else "RGB"), self.size, self.config)
        return np.asarray(flat).reshape(self.size, self.size, self.channels)

    def _blended(self, image: "Image") -> "Image":
        """An image of 8 bits, its transparent pixels on the background; as it is where every pixel is opaque."""
        from PIL import Image, ImageOps

        if image.mode == "F":
            raise ValueError("pixels of mode F have no fixed range")
        if not _may_be_transparent(image):
            return upright(image)
        ImageOps.exif_transpose(image, in_place=True)
        pixels = np.asarray(image.convert("RGBA"))
        if pixels[..., 3].min() == 255:
            return image.convert("L" if image.mode in GREY_MODES else "RGB")
        self.blended += 1
        return Image.fromarray(self._over(pixels[..., :3], pixels[..., 3] / 255))

    def _scaled(self, raw: Raw, image: "Image") -> "Image":
        """An image of 16 bits, as one of 8."""
        from PIL import Image

        self.deep += 1
        self.range = self.range or self._find_range()
        values, alpha = _deep_values(raw, image)
        scaled = values * (255 / (2 ** self._bits() - 1))
        if alpha is None or alpha.min() == 2**self.range.alpha_bits - 1:
            whole = np.rint(scaled).astype(np.uint8)
            return Image.fromarray(whole[..., 0] if whole.shape[-1] == 1 else whole)
        self.blended += 1
        return Image.fromarray(self._over(scaled, alpha / (2**self.range.alpha_bits - 1)))

    def _over(self, pixels: Array, alpha: Array) -> Array:
        """Colour uint8 (h, w, 3) of pixels (h, w, 1 or 3) of which the share `alpha` (h, w) covers the background."""
        cover = alpha[..., None]
        mixed: Array = np.rint(pixels * cover + np.array(self.background) * (1 - cover)).astype(np.uint8)
        return mixed

    def _bits(self) -> int:
        assert self.range is not None
        return self.config.bits or self.range.bits

    def _find_range(self) -> depth.Range:
        """The range of values that all images of 16 bits use.

        Raises: MixlabError: a value exceeds `data.bits`.
        """
        largest = largest_alpha = 0
        for split in self.source.splits:
            for row, raw, image in _opened(split, self.where):
                try:
                    if not _is_deep(raw, image):
                        continue
                    values, alpha = _deep_values(raw, image)
                except Exception as error:  # Pillow's decoders raise many types
                    raise _unreadable(split, row, raw, error, self.where) from error
                largest = max(largest, int(values.max()))
                largest_alpha = max(largest_alpha, 0 if alpha is None else int(alpha.max()))
                if self.config.bits and largest >= 2**self.config.bits:
                    raise MixlabError(
                        f"{self.where}: data.bits: image {row} of split {split.name!r} holds {largest:,}, which does "
                        f"not fit into {self.config.bits} bits; give {depth.bits_for(largest)} or more, or leave it out"
                    )
        return depth.Range(depth.bits_for(largest), depth.bits_for(largest_alpha), largest)


def _opened(split: Split, where: str) -> "Iterator[tuple[int, Raw, Image]]":
    for row, raw in enumerate(split.images()):
        try:
            image = _open(raw)
        except Exception as error:  # Pillow's decoders raise many types
            raise _unreadable(split, row, raw, error, where) from error
        with image:
            yield row, raw, image


def _open(raw: Raw) -> "Image":
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


def _may_be_transparent(image: "Image") -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def _is_deep(raw: Raw, image: "Image") -> bool:
    return raw.dtype != np.uint8 if isinstance(raw, np.ndarray) else depth.is_deep(image)


def _deep_values(raw: Raw, image: "Image") -> tuple[Array, Array | None]:
    return depth.from_array(raw) if isinstance(raw, np.ndarray) else depth.values(image, lambda: _open(raw))


def _unreadable(split: Split, row: int, raw: Raw, error: Exception, where: str) -> MixlabError:
    reason = first_line(error).split(" <_io.BytesIO")[0]  # the rest says nothing to the reader
    file = f", {raw}," if isinstance(raw, str) else ""
    return MixlabError(
        f"{where}: data.source: image {row} of split {split.name!r}{file} cannot be read ({reason}); "
        f"replace or remove it"
    )
