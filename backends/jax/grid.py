"""Tokens as places of a square grid in JAX, and constant tables.

b batch   h w rows and columns of pixels or tokens   s tokens   c channels
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.lax import slice_in_dim

from backends import arrays


def windows(images_bhwc: Array, size: int, stride: int) -> Array:
    """Square parts of images that overlap, in raster order: -> (b, s, size * size * channels); zeros lie outside.

    The first one begins stride // 2 pixels outside of the image.
    """
    before, num = stride // 2, images_bhwc.shape[1] // stride
    after = (num - 1) * stride + size - before - images_bhwc.shape[1]
    padded = jnp.pad(images_bhwc, [(0, 0), (before, after), (before, after), (0, 0)])
    pixels = np.arange(num)[:, None] * stride + np.arange(size)
    parts = padded[:, pixels][:, :, :, pixels].swapaxes(2, 3)
    return parts.reshape(padded.shape[0], num * num, -1)


def grid(x_bsc: Array) -> Array:
    """Tokens as a square: (b, h, w, c)."""
    b, s, c = x_bsc.shape
    return x_bsc.reshape(b, round(s**0.5), round(s**0.5), c)


def halved(x_bsc: Array) -> Array:
    """The mean over 2 x 2 tokens: (b, s, c) -> (b, s / 4, c)."""
    b, s, c = x_bsc.shape
    side = round(s**0.5) // 2
    return x_bsc.reshape(b, side, 2, side, 2, c).mean((2, 4)).reshape(b, side * side, c)


def shifted(x_bhwc: Array, axis: int, step: int) -> Array:
    """Values moved by one place along an axis, step 1 or -1; those at the edge that they leave stay too."""
    size = x_bhwc.shape[axis]
    first, last = slice_in_dim(x_bhwc, 0, 1, axis=axis), slice_in_dim(x_bhwc, size - 1, size, axis=axis)
    if step > 0:
        return jnp.concatenate([first, slice_in_dim(x_bhwc, 0, size - 1, axis=axis)], axis)
    return jnp.concatenate([slice_in_dim(x_bhwc, 1, size, axis=axis), last], axis)


def table(make: Callable[..., arrays.Array], *sizes: int, like: Array) -> Array:
    """A table of backends/models/tables.py, in the precision of an array."""
    return jnp.asarray(make(*sizes).astype(like.dtype))
