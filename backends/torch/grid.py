"""Tokens as places of a square grid in PyTorch, and constant tables.

b batch   h w rows and columns of pixels or tokens   s tokens   c channels
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from backends.arrays import Array


def windows(images_bhwc: Tensor, size: int, stride: int) -> Tensor:
    """Square parts of images that overlap, in raster order: -> (b, s, size * size * channels); zeros lie outside.

    The first one begins stride // 2 pixels outside of the image.
    """
    before, num = stride // 2, images_bhwc.shape[1] // stride
    after = (num - 1) * stride + size - before - images_bhwc.shape[1]
    padded = F.pad(images_bhwc, (0, 0, before, after, before, after))
    pixels = torch.arange(num, device=padded.device)[:, None] * stride + torch.arange(size, device=padded.device)
    parts = padded[:, pixels][:, :, :, pixels].transpose(2, 3)
    return parts.reshape(padded.shape[0], num * num, -1)


def grid(x_bsc: Tensor) -> Tensor:
    """Tokens as a square: (b, h, w, c)."""
    b, s, c = x_bsc.shape
    return x_bsc.reshape(b, round(s**0.5), round(s**0.5), c)


def halved(x_bsc: Tensor) -> Tensor:
    """The mean over 2 x 2 tokens: (b, s, c) -> (b, s / 4, c)."""
    b, s, c = x_bsc.shape
    side = round(s**0.5) // 2
    return x_bsc.reshape(b, side, 2, side, 2, c).mean((2, 4)).reshape(b, side * side, c)


def shifted(x_bhwc: Tensor, axis: int, step: int) -> Tensor:
    """Values moved by one place along an axis, step 1 or -1; those at the edge that they leave stay too."""
    size = x_bhwc.shape[axis]
    first, last = x_bhwc.narrow(axis, 0, 1), x_bhwc.narrow(axis, size - 1, 1)
    if step > 0:
        return torch.cat([first, x_bhwc.narrow(axis, 0, size - 1)], axis)
    return torch.cat([x_bhwc.narrow(axis, 1, size - 1), last], axis)


def table(make: Callable[..., Array], *sizes: int, like: Tensor) -> Tensor:
    """A table of backends/models/tables.py, in the precision and on the device of a tensor."""
    if torch.compiler.is_compiling():  # it is traced, and there is no tensor to keep
        return torch.from_numpy(make(*sizes)).to(like.device, like.dtype)
    return _table(make, sizes, like.dtype, like.device)


@lru_cache(maxsize=64)
def _table(make: Callable[..., Array], sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.from_numpy(make(*sizes)).to(device, dtype)
