"""Images by their number, as they lie in memory, in a file of arrays, or encoded. Any number of threads may read."""

import os
from pathlib import Path
from typing import Protocol

import numpy as np

from backends.arrays import Array, Shape
from backends.errors import MixlabError


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
    """Images of one size that are in memory.  Args: images: uint8 (n, h, w, c)."""

    form = "array"

    def __init__(self, images: Array):
        self.images = images
        self.shape: Shape | None = images.shape[1:]

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


def read_at(file: int, num_bytes: int, offset: int, path: Path) -> bytes:
    """Read some bytes of an open file.  Raises: DataLost: they are not there, or cannot be read."""
    try:
        data = os.pread(file, num_bytes, offset)
    except OSError as error:
        raise DataLost(f"data: {path} cannot be read ({error.strerror}); bring it back") from error
    if len(data) != num_bytes:
        expected = f"expected byte {offset + num_bytes:,}"
        raise DataLost(f"data: {path} ends at byte {offset + len(data):,}, {expected}; bring it back")
    return data
