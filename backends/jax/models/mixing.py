"""Token mixing in Flax: one function for each operator of backends/models/mixing.py.

b batch   s tokens   c channels   h heads   d channels of a head
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from backends.jax.convolution import convolution
from backends.jax.grid import grid, shifted, table
from backends.jax.layers import (
    ACTIVATIONS,
    Chance,
    Operation,
    dense,
    dense_channels,
    dense_tokens,
    dense_tokens_untied,
    dropout,
    in_float32,
    layer_norm,
    layer_scale,
    mlp,
    over_tokens,
    tap,
    weights,
)
from backends.models import tables
from backends.models.convolution import Window
from backends.models.mixer_spec import TOKEN_MIXING, MixerSpec
from backends.models.mixing import GATE_EPSILON


def tied(mixing: "TokenMixing", x_bsc: Array, name: str, chance: Chance) -> Array:
    """One MLP over the tokens for all channels."""
    return _mlp(mixing, dense_tokens, x_bsc, name, chance)


def untied(mixing: "TokenMixing", x_bsc: Array, name: str, chance: Chance) -> Array:
    """An MLP over the tokens for each channel."""
    return _mlp(mixing, dense_tokens_untied, x_bsc, name, chance)


def grouped(mixing: "TokenMixing", x_bsc: Array, name: str, chance: Chance) -> Array:
    """One MLP over the tokens of G neighbouring channels: row s G + g of column j is channel j G + g of token s."""
    (b, s, c), groups = x_bsc.shape, mixing.spec.token_groups
    x = x_bsc.reshape(b, s, c // groups, groups).swapaxes(2, 3).reshape(b, s * groups, c // groups)
    x = _mlp(mixing, dense_tokens, x, name, chance)
    return x.reshape(b, -1, groups, c // groups).swapaxes(2, 3).reshape(b, -1, c)


def grouped_views(mixing: "TokenMixing", x_bsc: Array, name: str, chance: Chance) -> Array:
    """Grouped token mixing of learned linear views of the channels."""
    kernel_cc = weights(mixing, "views").kernel.astype(x_bsc.dtype)
    x_bsc = (x_bsc.reshape(-1, x_bsc.shape[-1]) @ kernel_cc).reshape(x_bsc.shape)
    return grouped(mixing, tap(x_bsc, f"{name}/views", chance), name, chance)


def attention(mixing: "TokenMixing", x_bsc: Array, name: str, chance: Chance) -> Array:
    """Self-attention of several heads; channel h D + d of a product is number d of head h."""

    def product(part: str, x_bsc: Array) -> Array:
        return tap(dense(mixing, part, dense_channels, x_bsc), f"{name}/{part}", chance)

    query, key, value = (_heads(product(part, x_bsc), mixing.spec.num_heads) for part in ("query", "key", "value"))
    y_bsc = _attend(query, key, value).reshape(x_bsc.shape)
    return dropout(product("out", tap(y_bsc, f"{name}/heads", chance)), f"{name}/dropout", chance)


def _heads(x_bsc: Array, num: int) -> Array:
    b, s, c = x_bsc.shape
    return x_bsc.reshape(b, s, num, c // num)


def _attend(query_bshd: Array, key_bshd: Array, value_bshd: Array) -> Array:
    """The mean of the values of all tokens, weighted by the softmax of the scaled scores, in at least float32."""
    wide = jnp.promote_types(query_bshd.dtype, jnp.float32)  # jax.nn.dot_product_attention has float32 always
    scores_bhst = jnp.einsum("bshd,bthd->bhst", query_bshd, key_bshd, preferred_element_type=wide)
    probabilities_bhst = jax.nn.softmax(scores_bhst * query_bshd.shape[-1] ** -0.5).astype(value_bshd.dtype)
    return jnp.einsum("bhst,bthd->bshd", probabilities_bhst, value_bshd)


def gating(mixing: "TokenMixing", x_bsc: Array, name: str, chance: Chance) -> Array:
    """The block of gMLP: Dense, activation, a gate that mixes tokens, Dense."""
    x_bsd = tap(dense(mixing, "Dense_0", dense_channels, x_bsc), f"{name}/Dense_0", chance)
    x_bsd = tap(in_float32(ACTIVATIONS[mixing.spec.activation])(x_bsd), f"{name}/activation", chance)
    gated_bsd, gate_bsd = jnp.split(dropout(x_bsd, f"{name}/dropout_0", chance), 2, -1)
    gate_bsd = tap(layer_norm(mixing, "gate_norm", GATE_EPSILON, gate_bsd), f"{name}/gate_norm", chance)
    gate_bsd = tap(dense(mixing, "gate", dense_tokens, gate_bsd), f"{name}/gate", chance)
    y_bsd = tap(gated_bsd * gate_bsd, f"{name}/gated", chance)
    y_bsc = tap(dense(mixing, "Dense_1", dense_channels, y_bsd), f"{name}/Dense_1", chance)
    return dropout(y_bsc, f"{name}/dropout_1", chance)


def linear(mixing: "TokenMixing", x_bsc: Array, name: str, chance: Chance) -> Array:
    """One Dense over the tokens for all channels."""
    return tap(dense(mixing, "Dense_0", dense_tokens, x_bsc), f"{name}/Dense_0", chance)


def pooling(mixing: "TokenMixing", x_bsc: Array, name: str, chance: Chance) -> Array:
    """The mean of the 3 x 3 tokens around each, those outside not counted, minus the token itself."""
    return tap(neighbours(grid(x_bsc)).reshape(x_bsc.shape), f"{name}/pooling", chance)


def neighbours(x_bhwc: Array) -> Array:
    """The mean of the 3 x 3 places around each, those outside not counted, minus the place itself."""

    def sums(x: Array) -> Array:
        return nn.pooling.pool(x, 0.0, jax.lax.add, (3, 3), (1, 1), "SAME")

    # Not nn.avg_pool, whose counts are of float64 where that is allowed, and make all that follows float64.
    wide_bhwc = x_bhwc.astype(jnp.promote_types(x_bhwc.dtype, jnp.float32))
    return (sums(wide_bhwc) / sums(jnp.ones_like(wide_bhwc))).astype(x_bhwc.dtype) - x_bhwc


def identity(mixing: "TokenMixing", x_bsc: Array, name: str, chance: Chance) -> Array:
    """The tokens as they are."""
    return x_bsc


def fourier(mixing: "TokenMixing", x_bsc: Array, name: str, chance: Chance) -> Array:
    """The real part of the Fourier transform over tokens and channels: cosines of both, minus sines of both."""
    _, s, c = x_bsc.shape
    cosines_ss, sines_ss, cosines_cc, sines_cc = (
        table(make, size, like=x_bsc) for size in (s, c) for make in (tables.cosines, tables.sines)
    )
    y_bsc = over_tokens(cosines_ss, x_bsc @ cosines_cc) - over_tokens(sines_ss, x_bsc @ sines_cc)
    return tap(y_bsc, f"{name}/fourier", chance)


def random(mixing: "TokenMixing", x_bsc: Array, name: str, chance: Chance) -> Array:
    """One product with a constant random matrix (S out, S in)."""
    matrix_ts = weights(mixing, "random").matrix.astype(x_bsc.dtype)
    return tap(over_tokens(matrix_ts, x_bsc), f"{name}/random", chance)


def depthwise(mixing: "TokenMixing", x_bsc: Array, name: str, chance: Chance) -> Array:
    """A convolution k x k over the grid for each channel, zeros outside."""
    window, channels = Window(mixing.spec.kernel_size), x_bsc.shape[-1]
    y_bhwc = convolution(mixing, "depthwise", window, grid(x_bsc), channels)
    return tap(y_bhwc.reshape(x_bsc.shape), f"{name}/depthwise", chance)


def shift(mixing: "TokenMixing", x_bsc: Array, name: str, chance: Chance) -> Array:
    """Four groups of neighbouring channels, each shifted by one token: down, up, right, left; edges keep their own."""
    down, up, right, left = jnp.split(grid(x_bsc), 4, -1)
    moved = [shifted(down, 1, 1), shifted(up, 1, -1), shifted(right, 2, 1), shifted(left, 2, -1)]
    return tap(jnp.concatenate(moved, -1).reshape(x_bsc.shape), f"{name}/shift", chance)


def _mlp(mixing: "TokenMixing", operation: Operation, x_bsc: Array, name: str, chance: Chance) -> Array:
    return mlp(mixing, operation, mixing.spec.activation, x_bsc, name, chance)


# Each value of the field is the name of its function.
OPERATORS: dict[str, Callable[["TokenMixing", Array, str, Chance], Array]] = {
    name: globals()[name] for name in TOKEN_MIXING
}


class TokenMixing(nn.Module):
    """The operator over tokens of one block."""

    spec: MixerSpec
    operator: str

    @nn.compact
    def __call__(self, x_bsc: Array, name: str, chance: Chance) -> Array:
        x_bsc = OPERATORS[self.operator](self, x_bsc, name, chance)
        return layer_scale(self, x_bsc, f"{name}/layer_scale", chance) if self.spec.layer_scale else x_bsc
