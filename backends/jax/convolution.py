"""Layers of convolutional networks in JAX: one function for each of backends/models/convolution.py.

b batch   h w pixels   c channels   q channels of a group   o channels that come out
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from backends.jax.layers import weights
from backends.models.convolution import Standardisation, Window


def convolution(
    module: nn.Module, name: str, window: Window, x_bhwc: Array, groups: int = 1, by: Standardisation | None = None
) -> Array:
    """A convolution, with a bias where there is one, in the precision of x.   by: how its kernel is standardised."""
    layer = weights(module, name)
    kernel_hwqo = layer.kernel if by is None else standardised(layer.kernel, by)
    y_bhwc = jax.lax.conv_general_dilated(
        x_bhwc,
        kernel_hwqo.astype(x_bhwc.dtype),
        (window.stride, window.stride),
        _pads(x_bhwc, window),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    if (bias_o := getattr(layer, "bias", None)) is not None:
        y_bhwc += bias_o.astype(x_bhwc.dtype)
    return y_bhwc


def standardised(kernel_hwqo: Array, by: Standardisation) -> Array:
    """The kernel with mean 0 and variance 1 for each output channel, in the precision of the parameters."""
    centred_hwqo = kernel_hwqo - kernel_hwqo.mean((0, 1, 2), keepdims=True)
    variance_111o = jnp.square(centred_hwqo).mean((0, 1, 2), keepdims=True)
    if by.in_root:
        return centred_hwqo * jax.lax.rsqrt(variance_111o + by.epsilon)
    return centred_hwqo / (jnp.sqrt(variance_111o) + by.epsilon)


def group_norm(module: nn.Module, name: str, groups: int, epsilon: float, x_bhwc: Array) -> Array:
    """Normalisation over the image and groups of neighbouring channels; statistics in at least float32."""
    layer = weights(module, name)
    b, h, w, c = x_bhwc.shape
    y_bhwgq = x_bhwc.astype(layer.scale.dtype).reshape(b, h, w, groups, c // groups)
    y_bhwgq = y_bhwgq - y_bhwgq.mean((1, 2, 4), keepdims=True)
    variance_b11g1 = jnp.square(y_bhwgq).mean((1, 2, 4), keepdims=True)
    y_bhwc = (y_bhwgq * jax.lax.rsqrt(variance_b11g1 + epsilon)).reshape(b, h, w, c) * layer.scale
    bias_c = getattr(layer, "bias", None)
    return (y_bhwc if bias_c is None else y_bhwc + bias_c).astype(x_bhwc.dtype)


def max_pool(window: Window, x_bhwc: Array) -> Array:
    """The largest number of each window; of equal ones the first has the gradient."""
    return nn.max_pool(x_bhwc, (window.size,) * 2, (window.stride,) * 2, _pads(x_bhwc, window))


def _pads(x_bhwc: Array, window: Window) -> tuple[tuple[int, int], tuple[int, int]]:
    """Pixels in front of the images and behind them, of rows and of columns."""
    return window.pads(x_bhwc.shape[1]), window.pads(x_bhwc.shape[2])
