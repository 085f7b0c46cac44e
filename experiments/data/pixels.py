"""Images by their number, as they lie in memory, in a file of arrays, or encoded. Any number of threads may read."""

import os
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from backends.arrays import Array, Shape
from backends.errors import MixlabError, first_line
from experiments.data import ahead, framing
from experiments.spec.config import DataConfig


class DataLost(MixlabError):
    """Images that were there when the trial was planned cannot be read any more; it is resumed where they are back."""


class Pixels(Protocol):
    """The images of a data set, those of the training split first."""

    form: str  # array: uint8 of one size; encoded: the bytes of image files
    shape: Shape | None  # (h, w, c) of each image; None: they have several sizes

    def __len__(self) -> int: ...

    def read(self, number: int) -> Array:
        """One image as it is stored, uint8 (h, w, c).  Raises: DataLost."""


class InMemory:
    """Images that are in memory.

    Args: images: uint8 (n, h, w, c); of several sizes a list of uint8 (h, w, c).
    """

    form = "array"

    def __init__(self, images: Array | Sequence[Array]):
        self.images = images
        self.shape: Shape | None = images.shape[1:] if isinstance(images, np.ndarray) else None

    def __len__(self) -> int:
        return len(self.images)

    def read(self, number: int) -> Array:
        image: Array = self.images[number]
        return image


class OnDisk:
    """Images of one size in an .npy file, read one by one.

    Not memory-mapped: of a file that another process has cut off, a read says so, and a map ends the process.
    """

    form = "array"

    def __init__(self, path: Path):
        """Open the file, to read alone.  Raises: OSError, ValueError: it is not there, or is no such file."""
        mapped: np.memmap[tuple[int, ...], np.dtype[np.uint8]] = np.load(path, mmap_mode="r")
        self.path, self.offset, self.num = path, mapped.offset, len(mapped)
        self.shape: Shape | None = mapped.shape[1:]
        self.num_bytes = mapped[0].nbytes
        self.file = os.open(path, os.O_RDONLY)

    def __len__(self) -> int:
        return self.num

    def read(self, number: int) -> Array:
        assert self.shape is not None
        data = read_at(self.file, self.num_bytes, self.offset + number * self.num_bytes, self.path)
        return np.frombuffer(data, np.uint8).reshape(self.shape)

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)


class Encoded:
    """Images as the bytes of image files, one after the other in one file, each decoded when it is read.

    Args:   offsets: int64 (n + 1,), where each begins, and the end.    channels: 1 or 3, of each image.
            shape: (h, w, c) of each image; None: they have several sizes.
    Raises: OSError: the file cannot be opened.
    """

    form = "encoded"

    def __init__(self, path: Path, offsets: Array, channels: int, shape: Shape | None):
        self.path, self.offsets, self.channels, self.shape = path, offsets, channels, shape
        self.file = os.open(path, os.O_RDONLY)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def read(self, number: int) -> Array:
        try:
            image = decode(self.encoded(number), self.channels)
        except DataLost:
            raise
        except Exception as error:  # Pillow's decoders raise many types
            why = first_line(error).split(" <_io.BytesIO")[0]
            raise DataLost(f"data: image {number} of {self.path} cannot be decoded ({why}); bring it back") from error
        if self.shape is not None and image.shape != self.shape:
            found = " x ".join(map(str, image.shape))
            raise DataLost(f"data: image {number} of {self.path} is of {found}, not as it was; bring it back")
        return image

    def encoded(self, number: int) -> bytes:
        """The bytes of one image's file.  Raises: DataLost."""
        start, end = self.offsets[number : number + 2].tolist()
        return read_at(self.file, end - start, start, self.path)

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)


class Framed:
    """Images as squares of one size, as evaluations index them; each is read and framed when it is asked for.

    Args: config: how they are framed; None: they are squares of this size already.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, pixels: Pixels, size: int, channels: int, config: DataConfig | None = None):
        self.pixels, self.config = pixels, config
        self.shape = (len(pixels), size, size, channels)
        self.idle: Callable[[], None] = lambda: None

    def asking(self, idle: Callable[[], None]) -> "Framed":
        """The same images; `idle` is called now and then while several are read, and may raise to end it."""
        other = copy(self)
        other.idle = idle
        return other

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, number: int) -> Array:
        """One image, uint8 (size, size, channels).  Raises: DataLost."""
        image = self.pixels.read(number)
        return image if self.config is None else framing.frame_array(image, self.shape[1], self.config)

    def __getitem__(self, index: Any) -> Array:
        """The images (b, size, size, channels) of a slice or of an array of numbers; of one number, one image."""
        places = range(len(self))
        if isinstance(index, slice):
            numbers: Sequence[int] = places[index]
        elif np.ndim(index) == 0:
            return self.read(places[int(index)])
        else:
            chosen = np.asarray(index)
            chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
            numbers = [places[number] for number in chosen.tolist()]
        return ahead.whole(self.read, self.shape[1:], numbers, self.idle)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("framed images are made when they are read")
        images = self[:]
        return images if dtype is None else images.astype(dtype)


def decoders() -> dict[str, str]:
    """Versions of what decodes images: of JPEG, another one may give other pixels."""
    import PIL
    from PIL import features

    return {"pillow": PIL.__version__, "libjpeg": str(features.version("libjpeg_turbo") or features.version("jpg"))}


def decode(content: bytes, channels: int) -> Array:
    """The pixels uint8 (h, w, channels) of an image file of 8 bits a channel without transparency.

    Raises: many types, as Pillow's decoders do.
    """
    from io import BytesIO

    from PIL import Image

    with Image.open(BytesIO(content)) as image:
        return framing.as_array(framing.upright(image), channels)


def read_at(file: int, num_bytes: int, offset: int, path: Path) -> bytes:
    """Read some bytes of an open file.  Raises: DataLost: they are not there, or cannot be read."""
    try:
        data = os.pread(file, num_bytes, offset)
    except OSError as error:
        raise DataLost(f"data: {path} cannot be read ({error.strerror}); bring it back") from error
    if len(data) != num_bytes:
        end, expected = os.fstat(file).st_size, f"expected byte {offset + num_bytes:,} or more"
        raise DataLost(f"data: {path} ends at byte {end:,}, {expected}; bring it back")
    return data
