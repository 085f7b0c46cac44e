"""The bits of a state as one number, by which two runs of a trial are compared."""

import zlib
from collections.abc import Mapping

import numpy as np

from backends.arrays import Array


def crc(state: Mapping[str, Array]) -> str:
    """CRC-32 in 8 hexadecimal digits: of each array, by name, its name, its type and its numbers in row-major order."""
    number = 0
    for name in sorted(state):
        array = np.ascontiguousarray(state[name])
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        number = zlib.crc32(f"{name} {array.dtype.str} ".encode(), number)
        number = zlib.crc32(array.reshape(-1).view(np.uint8).data, number)
    return f"{number:08x}"
