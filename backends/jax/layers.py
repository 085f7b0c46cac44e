"""Layers in Flax, and the random choices of a step.

b batch   p pixels of a patch times image channels   s tokens   c channels   d hidden units of an MLP   k classes
"""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array

from backends.dropout import ELEMENT, FIRST, SECOND, SITE
from backends.models.folds import shapes, uses
from backends.specs import ModelSpec

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    # Made again for the gradient: the values that its formula would keep cost more to write and read.
    "gelu_tanh": jax.checkpoint(partial(jax.nn.gelu, approximate=True)),
    "gelu": jax.checkpoint(partial(jax.nn.gelu, approximate=False)),
    "relu": jax.nn.relu,
}

T = TypeVar("T")
Operation = Callable[[Array, Array, Array], Array]  # (x, kernel, bias) -> y


class Dropout(NamedTuple, Generic[T]):
    """The rate of dropout, in two numbers that are computed outside, in float64."""

    threshold: T  # uint32: round(rate * 2^24), see dropout.py
    factor: T  # of what is kept: 1 / (1 - rate), rounded to the precision of the parameters


@struct.dataclass
class Chance:
    """The random choices of one step; None: that part is off. See StepPlan and dropout.py."""

    sites: tuple[str, ...] = struct.field(pytree_node=False, default=())  # of dropout, see folds.dropout_sites
    branches: tuple[str, ...] = struct.field(pytree_node=False, default=())  # of stochastic depth, see folds.branches
    branch_scales: Array | None = None  # (branches, b)
    dropout_key: Array | None = None  # uint32
    dropout: Dropout[Array] | None = None
    first_row: Array | None = None  # uint32
    taps: dict[str, Array] | None = struct.field(pytree_node=False, default=None)  # values by layer, in order


def tap(x: Array, name: str, chance: Chance) -> Array:
    """The value itself, noted under its name where a forward pass is followed layer by layer."""
    if chance.taps is not None:
        chance.taps[name] = x
    return x


class Weights(nn.Module):
    """The parameters below a name, nested as their names are."""

    spec: ModelSpec

    @nn.compact
    def __call__(self) -> dict[str, Array]:
        """The layer's own parameters, by the last part of their names."""
        prefix = "".join(f"{name}/" for name in self.path)
        read = {own.removeprefix(prefix): held for own, held in uses(self.spec).items() if own.startswith(prefix)}
        own = {part: shapes(self.spec)[held] for part, held in read.items() if "/" not in part}
        return {part: self.param(part, nn.initializers.zeros, shape) for part, shape in own.items()}


def weights(module: nn.Module, name: str) -> SimpleNamespace:
    """The parameters of a layer of a module, as attributes."""
    return SimpleNamespace(**Weights(module.spec, name=name)())


def over_tokens(matrix_ds: Array, x_bsc: Array) -> Array:
    """A product with one matrix over the tokens, shared by all channels: (b, s, c) -> (b, d, c)."""
    return jnp.broadcast_to(matrix_ds, (len(x_bsc), *matrix_ds.shape)) @ x_bsc


def dense_tokens(x_bsc: Array, kernel_sd: Array, bias_d: Array) -> Array:
    """One Dense over the tokens, shared by all channels: (b, s, c) -> (b, d, c)."""
    return over_tokens(kernel_sd.T, x_bsc) + bias_d[:, None]


def dense_tokens_untied(x_bsc: Array, kernel_csd: Array, bias_cd: Array) -> Array:
    """A Dense over the tokens for each channel: (b, s, c) -> (b, d, c)."""
    y_cbd = x_bsc.transpose(2, 0, 1) @ kernel_csd + bias_cd[:, None, :]
    return y_cbd.transpose(1, 2, 0)


def dense_channels(x_bsc: Array, kernel_cd: Array, bias_d: Array) -> Array:
    """One Dense over the channels, shared by all tokens: (b, s, c) -> (b, s, d)."""
    y_nd = x_bsc.reshape(-1, x_bsc.shape[-1]) @ kernel_cd + bias_d
    return y_nd.reshape(*x_bsc.shape[:-1], -1)


def dense_channels_untied(x_bsc: Array, kernel_scd: Array, bias_sd: Array) -> Array:
    """A Dense over the channels for each token: (b, s, c) -> (b, s, d)."""
    y_sbd = x_bsc.swapaxes(0, 1) @ kernel_scd + bias_sd[:, None, :]
    return y_sbd.swapaxes(0, 1)


def dense_patches(x_bsp: Array, kernel_ppqc: Array, bias_c: Array) -> Array:
    """The stem: a Dense over the pixels of each patch, its kernel laid out as a convolution's: -> (b, s, c)."""
    return dense_channels(x_bsp, kernel_ppqc.reshape(-1, kernel_ppqc.shape[-1]), bias_c)


def dense(module: nn.Module, name: str, operation: Operation, x: Array) -> Array:
    """x @ kernel + bias along the axis that `operation` mixes, in the precision of x."""
    layer = weights(module, name)
    return operation(x, layer.kernel.astype(x.dtype), layer.bias.astype(x.dtype))


def layer_norm(module: nn.Module, name: str, epsilon: float, x_bsc: Array) -> Array:
    """Normalisation over the channels with centred variance; statistics in at least float32."""
    layer = weights(module, name)
    y_bsc = x_bsc.astype(layer.scale.dtype)
    y_bsc = y_bsc - y_bsc.mean(-1, keepdims=True)
    variance_bs1 = jnp.square(y_bsc).mean(-1, keepdims=True)
    y_bsc = y_bsc * jax.lax.rsqrt(variance_bs1 + epsilon) * layer.scale
    bias_c = getattr(layer, "bias", None)  # some norms have none
    return (y_bsc if bias_c is None else y_bsc + bias_c).astype(x_bsc.dtype)


def affine(module: nn.Module, name: str, x_bsc: Array) -> Array:
    """A scale and a bias for each channel, in at least float32."""
    layer = weights(module, name)
    return (x_bsc.astype(layer.scale.dtype) * layer.scale + layer.bias).astype(x_bsc.dtype)


def rms_norm(module: nn.Module, name: str, epsilon: float, x_bsc: Array) -> Array:
    """Division by the root mean square over the channels; statistics in at least float32."""
    layer = weights(module, name)
    y_bsc = x_bsc.astype(layer.scale.dtype)
    square_bs1 = jnp.square(y_bsc).mean(-1, keepdims=True)
    return (y_bsc * jax.lax.rsqrt(square_bs1 + epsilon) * layer.scale).astype(x_bsc.dtype)


def norm(module: nn.Module, name: str, kind: str, epsilon: float, x_bsc: Array) -> Array:
    """The norm that `model.norm` names."""
    if kind == "affine":
        return affine(module, name, x_bsc)
    return (rms_norm if kind == "rms" else layer_norm)(module, name, epsilon, x_bsc)


def layer_scale(module: nn.Module, x_bsc: Array, name: str, chance: Chance) -> Array:
    """Multiply each channel of a branch by its factor."""
    return tap(x_bsc * weights(module, "layer_scale").scale.astype(x_bsc.dtype), name, chance)


def mlp(module: nn.Module, operation: Operation, activation: str, x: Array, name: str, chance: Chance) -> Array:
    """Dense, activation, Dense, with dropout behind the activation and the second Dense."""
    x = tap(dense(module, "Dense_0", operation, x), f"{name}/Dense_0", chance)
    x = tap(in_float32(ACTIVATIONS[activation])(x), f"{name}/activation", chance)
    x = dropout(x, f"{name}/dropout_0", chance)
    x = tap(dense(module, "Dense_1", operation, x), f"{name}/Dense_1", chance)
    return dropout(x, f"{name}/dropout_1", chance)


def in_float32(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """A function that rounds once, at its end, where its argument is narrower than float32; PyTorch's GELU does so."""
    return lambda x: function(x.astype(jnp.promote_types(x.dtype, jnp.float32))).astype(x.dtype)


def dropout(x: Array, name: str, chance: Chance) -> Array:
    """Zero elements by the hash of dropout.py, and rescale the rest."""
    return tap(x if chance.dropout_key is None else x * _factors(x, name, chance), name, chance)


def _factors(x: Array, name: str, chance: Chance) -> Array:
    """What dropout multiplies each element of x with: 0, or 1 / (1 - rate)."""
    assert chance.dropout_key is not None and chance.dropout is not None  # they come together
    bits = jnp.arange(x.size, dtype=jnp.uint32).reshape(x.shape)
    site, key = jnp.uint32(chance.sites.index(name) * SITE % 2**32), chance.dropout_key
    if chance.first_row is not None:
        key = key + chance.first_row * jnp.uint32(x[0].size * ELEMENT % 2**32)  # elements before the microbatch
    bits = bits * jnp.uint32(ELEMENT) + (key + site)
    bits = (bits ^ (bits >> 16)) * jnp.uint32(FIRST)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(SECOND)
    bits = bits ^ (bits >> 15)
    kept = (bits >> 8) >= chance.dropout.threshold
    return kept.astype(x.dtype) * chance.dropout.factor.astype(x.dtype)


def stochastic_depth(x: Array, name: str, chance: Chance) -> Array:
    """Multiply the branch of each example by the plan's factor."""
    if chance.branch_scales is None:
        return x
    factors_b = chance.branch_scales[chance.branches.index(name)].astype(x.dtype)
    return tap(x * factors_b.reshape(-1, *[1] * (x.ndim - 1)), name, chance)


def patches(images_bhwc: Array, size: int) -> Array:
    """Cut images into patches in raster order: (b, h, w, channels) -> (b, s, size * size * channels)."""
    b, h, w, channels = images_bhwc.shape
    grid = images_bhwc.reshape(b, h // size, size, w // size, size, channels).swapaxes(2, 3)
    return grid.reshape(b, (h // size) * (w // size), size * size * channels)
