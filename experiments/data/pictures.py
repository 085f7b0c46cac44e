"""Raw images to uint8 arrays of one size and one number of channels, through Pillow.

Transparent pixels show `data.background`. Of several frames or pages the first is taken. Values of 16 bits are scaled
by the range that the whole source uses, or by `data.bits`. What was done to how many images is said in notes.
"""

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError
from experiments.data import depth
from experiments.data.framing import as_array, frame, upright
from experiments.data.opening import all_opened, deep_values, is_deep, may_be_transparent, unreadable
from experiments.data.raw import Raw, RawSource, Split
from experiments.spec.config import DataConfig
from experiments.spec.values import shown

if TYPE_CHECKING:  # Pillow takes part only where a source is read
    from PIL.Image import Image

Colour = tuple[int, int, int]
GREY_MODES = ("1", "L", "LA", *depth.GREY_MODES)


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


class NeedsRange(Exception):
    """An image of 16 bits was met where the range of all of them is not known."""


class Decoder:
    """The images of a source as uint8 (size, size, channels), and what there is to say of them afterwards.

    Sizes that are not given are those of the source: the side is that of the first image, and it is of colour if any
    image is. To know that, the heads of the images are read up to the first of colour.

    Another process gets it without the source: there it makes pixels of one image after the other.
    """

    def __init__(self, source: RawSource, config: DataConfig, where: str, keep: bool = False):
        """Find size and channels.

        Args:   keep: images stay as large as they are.
        Raises: MixlabError: an image cannot be read, or `data.background` is no colour.
        """
        self.source: RawSource | None = source
        self.config, self.where, self.keep = config, where, keep
        self.background = background(config, where)
        self.range: depth.Range | None = None  # of images of 16 bits; found when the first of them is met
        self.blended = self.framed = self.deep = self.total = 0
        self.size, self.channels = self._survey(source)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "source": None}

    def images(self) -> Iterator[Array]:
        """The images one by one, those of the training split first.

        An image of another size becomes a square as framing.py says. Colour becomes grey by Pillow's "L" (ITU-R 601).

        Raises: MixlabError: an image cannot be read, or is of another size and `data.image_size` is not given.
        """
        self.blended = self.framed = self.deep = self.total = 0
        assert self.source is not None
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

    def _survey(self, source: RawSource) -> tuple[int, int]:
        size, channels = self.config.image_size, self.config.image_channels
        if size and channels:
            return size, channels
        coloured = len(set(self.background)) > 1
        for split in source.splits:
            for _, _, image in all_opened(split, self.where):
                size = size or image.size[0]
                grey = image.mode in GREY_MODES and not (coloured and may_be_transparent(image))
                channels = channels or (None if grey else 3)
                if channels:
                    return size, channels
        assert size is not None  # read_source lets no empty split pass
        return size, 1

    def _decode(self, split: Split) -> Iterator[Array]:
        for row, raw, image in all_opened(split, self.where):
            yield self.decode(split.name, row, raw, image)

    def decode(self, split: str, row: int, raw: Raw, image: "Image") -> Array:
        """The pixels uint8 (h, w, channels) of an opened image.

        Args:   split, row: where it stands, for sentences.
        Raises: MixlabError: as of `images`.    NeedsRange: it is of 16 bits, and there is no source to survey.
        """
        size = self.size
        if not self.keep and not self.config.image_size and image.size != (size, size):
            width, height = image.size
            raise MixlabError(
                f"{self.where}: data.image_size: image {row} of split {split!r} is {width} x {height} pixels; "
                f"expected {size} x {size}, square and as wide as the first; give a size that all are resized "
                f"to, such as {min(width, height)}"
            )
        try:
            return self._pixels(raw, image)
        except (MixlabError, NeedsRange):
            raise
        except Exception as error:  # Pillow's decoders raise many types
            raise unreadable(split, row, raw, error, self.where) from error

    def _pixels(self, raw: Raw, image: "Image") -> Array:
        self.total += 1
        self.framed += bool(getattr(image, "is_animated", False))
        flat = self._scaled(raw, image) if is_deep(raw, image) else self._blended(image)
        if not self.keep:
            mode = "L" if self.channels == 1 else "RGB"
            # Pillow's convert to the same mode is a copy: a tenth of the time of a JPEG of 500 pixels
            flat = frame(flat if flat.mode == mode else flat.convert(mode), self.size, self.config)
        return as_array(flat, self.channels)

    def _blended(self, image: "Image") -> "Image":
        """An image of 8 bits, its transparent pixels on the background; as it is where every pixel is opaque."""
        from PIL import Image, ImageOps

        if image.mode == "F":
            raise ValueError("pixels of mode F have no fixed range")
        if not may_be_transparent(image):
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
        self.range = self.range or self.find_range()
        values, alpha = deep_values(raw, image)
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

    def find_range(self) -> depth.Range:
        """The range of values that all images of 16 bits use.

        Raises: MixlabError: a value exceeds `data.bits`.    NeedsRange: the source is not here.
        """
        if self.source is None:
            raise NeedsRange
        largest = largest_alpha = 0
        for split in self.source.splits:
            for row, raw, image in all_opened(split, self.where):
                try:
                    if not is_deep(raw, image):
                        continue
                    values, alpha = deep_values(raw, image)
                except Exception as error:  # Pillow's decoders raise many types
                    raise unreadable(split.name, row, raw, error, self.where) from error
                largest = max(largest, int(values.max()))
                largest_alpha = max(largest_alpha, 0 if alpha is None else int(alpha.max()))
                if self.config.bits and largest >= 2**self.config.bits:
                    raise MixlabError(
                        f"{self.where}: data.bits: image {row} of split {split.name!r} holds {largest:,}, which does "
                        f"not fit into {self.config.bits} bits; give {depth.bits_for(largest)} or more, or leave it out"
                    )
        return depth.Range(depth.bits_for(largest), depth.bits_for(largest_alpha), largest)
