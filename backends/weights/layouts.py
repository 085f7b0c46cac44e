"""Layouts of a file's arrays: how they become parameters in the canonical layout, and back, the same numbers."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends.arrays import Array

Arrays = tuple[Array, ...]


@dataclass(frozen=True)
class Layout:
    """Some arrays of a file that are some parameters of a model.

    axes: how many each of the arrays has.   read: (*arrays) -> parameters.   write: (model, *parameters) -> arrays; the
    spec tells what a parameter's own shape does not, such as the number of heads.
    """

    axes: tuple[int, ...]
    read: Callable[..., Arrays]
    write: Callable[..., Arrays]


def single(axes: int, read: Callable[[Array], Array], write: Callable[[Array], Array]) -> Layout:
    """The layout of one array that is one parameter."""
    return Layout((axes,), lambda x: (read(x),), lambda model, x: (write(x),))


def leading(ones: int, axes: int) -> Layout:
    """One array with so many axes of size 1 in front of those of the parameter."""
    return single(ones + axes, lambda x: _without(x, ones), lambda x: x.reshape((1,) * ones + x.shape))


def _without(x: Array, ones: int) -> Array:
    if x.shape[:ones] != (1,) * ones:
        raise ValueError(f"its first {ones} axes have a size of 1")
    return x.reshape(x.shape[ones:])


def _pointwise(x: Array) -> Array:
    if x.shape[2:] != (1, 1):
        raise ValueError("it is a product at each place, with a window of 1 x 1")
    return x[:, :, 0, 0].T


def _same(x: Array) -> Array:
    return x


def _read_patches(kernel: Array) -> Array:
    """Turn (C, P P c) into (P, P, c, C). At most one of c = 3 and c = 1 makes P a whole number."""
    hidden, pixels = kernel.shape
    for channels in (3, 1):
        side = math.isqrt(pixels // channels)
        if side * side * channels == pixels:
            return kernel.T.reshape(side, side, channels, hidden)
    raise ValueError(f"{pixels} inputs are no square patch of 3 or 1 channels")


VECTOR = single(1, _same, _same)
DENSE = single(2, _same, _same)
HWIO = single(4, _same, _same)
LINEAR = single(2, np.transpose, np.transpose)  # (out, in)
CONV1D = single(3, lambda x: x.squeeze(2).T, lambda x: x.T[:, :, None])  # (out, in, 1)
CONV2D = single(4, lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))  # (out, in, h, w)
PATCHES = single(2, _read_patches, lambda x: x.reshape(-1, x.shape[3]).T)  # (C, P P c)
POINTWISE = single(4, _pointwise, lambda x: x.T[:, :, None, None])  # (out, in, 1, 1)
CHANNELS = leading(2, 1)  # (1, 1, C)
POSITIONS = leading(1, 2)  # (1, S, C)

# Attention with an axis for the heads: kernels (C, H, D) and (H, D, C), biases (H, D); and what one has in one, where
# the rows of query come first, then those of key, then those of value: (3 C, C) and (3 C).


def _heads(model: Any) -> int:
    return int(model.num_heads)


TO_HEADS = Layout((3,), lambda x: (x.reshape(len(x), -1),), lambda m, x: (x.reshape(len(x), _heads(m), -1),))
HEADS = Layout((2,), lambda x: (x.reshape(-1),), lambda m, x: (x.reshape(_heads(m), -1),))
FROM_HEADS = Layout((3,), lambda x: (x.reshape(-1, x.shape[2]),), lambda m, x: (x.reshape(_heads(m), -1, x.shape[1]),))


def _thirds(x: Array) -> list[Array]:
    if len(x) % 3:
        raise ValueError("query, key and value together have a number of rows that 3 divides")
    return np.split(x, 3)


FUSED = Layout(
    (2,),
    lambda x: tuple(part.T for part in _thirds(x)),
    lambda m, *parts: (np.concatenate([part.T for part in parts]),),
)
FUSED_BIAS = Layout((1,), lambda x: tuple(_thirds(x)), lambda m, *parts: (np.concatenate(parts),))


# A batch norm with its stored statistics and its count of batches, which is an affine when it predicts.
EPSILON = 1e-5  # added to the variance.  Source: torch.nn.BatchNorm2d


def _fold(weight: Array, bias: Array, mean: Array, variance: Array, count: Array) -> Arrays:
    """The scale and bias, in float64 as far as the statistics change them."""
    if (variance.astype(np.float64) <= -EPSILON).any():
        raise ValueError("a variance is not negative")
    root = np.sqrt(variance.astype(np.float64) + EPSILON)
    if (root == 1).all() and not mean.any():
        return weight, bias
    scale = weight / root
    return scale, bias - mean * scale


def _unfold(model: Any, scale: Array, bias: Array) -> Arrays:
    """Statistics that change nothing: a mean of 0, and in float64 a variance and EPSILON that are 1."""
    variance = np.full(scale.shape, 1 - EPSILON)
    return scale, bias, np.zeros(scale.shape, scale.dtype), variance, np.array(0, np.int64)


BATCH_NORM = Layout((1, 1, 1, 1, 0), _fold, _unfold)
