"""MLP-Mixer in Flax.

b batch   p pixels of a patch times image channels   s tokens   c channels   d hidden units of an MLP   k classes
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax import Array
from jax.typing import DTypeLike

from backends.dropout import dropout_site
from backends.models.folds import MIXINGS, shapes
from backends.specs import ModelSpec

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    # made again for the gradient: what its formula would keep costs more to write and read
    "gelu_tanh": jax.checkpoint(partial(jax.nn.gelu, approximate=True)),
    "gelu": jax.checkpoint(partial(jax.nn.gelu, approximate=False)),
    "relu": jax.nn.relu,
}

Operation = Callable[[Array, Array, Array], Array]  # (x, kernel, bias) -> y


@struct.dataclass
class Chance:
    """The random choices of one step; None: that part is off. See StepPlan and dropout.dropout_site."""

    branch_scales: Array | None = None  # (num_blocks, 2, b)
    dropout_key: Array | None = None  # uint32
    dropout_rate: Array | None = None  # float64
    taps: dict[str, Array] | None = struct.field(pytree_node=False, default=None)  # values by operation, in order


def tap(x: Array, name: str, chance: Chance) -> Array:
    """The value itself, noted under its name where a forward pass is followed operation by operation."""
    if chance.taps is not None:
        chance.taps[name] = x
    return x


def dense_tokens(x_bsc: Array, kernel_sd: Array, bias_d: Array) -> Array:
    """One Dense over the tokens, shared by all channels: (b, s, c) -> (b, d, c)."""
    kernel_bds = jnp.broadcast_to(kernel_sd.T, (len(x_bsc), *kernel_sd.T.shape))
    return kernel_bds @ x_bsc + bias_d[:, None]


def dense_tokens_untied(x_bsc: Array, kernel_csd: Array, bias_cd: Array) -> Array:
    """A Dense over the tokens for each channel: (b, s, c) -> (b, d, c)."""
    y_cbd = x_bsc.transpose(2, 0, 1) @ kernel_csd + bias_cd[:, None, :]
    return y_cbd.transpose(1, 2, 0)


def dense_channels(x_bsc: Array, kernel_cd: Array, bias_d: Array) -> Array:
    """One Dense over the channels, shared by all tokens: (b, s, c) -> (b, s, d)."""
    y_nd = x_bsc.reshape(-1, x_bsc.shape[-1]) @ kernel_cd + bias_d
    return y_nd.reshape(*x_bsc.shape[:-1], -1)


def dense_patches(x_bsp: Array, kernel_ppqc: Array, bias_c: Array) -> Array:
    """The stem: a Dense over the pixels of each patch, its kernel laid out as a convolution's: -> (b, s, c)."""
    return dense_channels(x_bsp, kernel_ppqc.reshape(-1, kernel_ppqc.shape[-1]), bias_c)


def dense_channels_untied(x_bsc: Array, kernel_scd: Array, bias_sd: Array) -> Array:
    """A Dense over the channels for each token: (b, s, c) -> (b, s, d)."""
    y_sbd = x_bsc.swapaxes(0, 1) @ kernel_scd + bias_sd[:, None, :]
    return y_sbd.swapaxes(0, 1)


def in_float32(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """A function that rounds once, at its end, where its argument is narrower than float32."""
    return lambda x: function(x.astype(jnp.promote_types(x.dtype, jnp.float32))).astype(x.dtype)


def dropout(x: Array, site: int, chance: Chance) -> Array:
    """Zero elements by the hash of dropout.dropout_site, and rescale the rest."""
    if chance.dropout_key is None:
        return x
    assert chance.dropout_rate is not None  # it comes with the key
    bits = jnp.arange(x.size, dtype=jnp.uint32).reshape(x.shape)
    bits = bits * jnp.uint32(0x9E3779B9) + (chance.dropout_key + jnp.uint32(site * 0x85EBCA6B % 2**32))
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x21F0AAAD)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0xD35A2D97)
    bits = bits ^ (bits >> 15)
    kept = (bits >> 8) >= jnp.round(chance.dropout_rate * 2**24).astype(jnp.uint32)
    return x * (kept.astype(x.dtype) * (1 / (1 - chance.dropout_rate)).astype(x.dtype))


class Dense(nn.Module):
    """x @ kernel + bias along the axis that `operation` mixes, in the precision of x."""

    spec: ModelSpec
    operation: Operation

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel, bias = (parameter(self, self.spec, part) for part in ("kernel", "bias"))
        return self.operation(x, kernel.astype(x.dtype), bias.astype(x.dtype))


def parameter(module: nn.Module, spec: ModelSpec, part: str) -> Array:
    """A parameter of a module; its shape is that of folds.shapes."""
    value: Array = module.param(part, nn.initializers.zeros, shapes(spec)["/".join((*module.path, part))])
    return value


class LayerNorm(nn.Module):
    """Normalisation over the channels with centred variance; statistics in at least float32."""

    spec: ModelSpec

    @nn.compact
    def __call__(self, x_bsc: Array) -> Array:
        scale_c, bias_c = (parameter(self, self.spec, part) for part in ("scale", "bias"))
        y_bsc = x_bsc.astype(scale_c.dtype)
        y_bsc = y_bsc - y_bsc.mean(-1, keepdims=True)
        variance_bs1 = jnp.square(y_bsc).mean(-1, keepdims=True)
        y_bsc = y_bsc * jax.lax.rsqrt(variance_bs1 + self.spec.norm_epsilon) * scale_c + bias_c
        return y_bsc.astype(x_bsc.dtype)


class MlpBlock(nn.Module):
    """Dense, activation, Dense."""

    spec: ModelSpec

    def mlp(self, x: Array, operation: Operation, block: int, mixing: int, chance: Chance) -> Array:
        name, activation = f"MixerBlock_{block}/{MIXINGS[mixing]}", in_float32(ACTIVATIONS[self.spec.activation])
        x = tap(Dense(self.spec, operation, name="Dense_0")(x), f"{name}/Dense_0", chance)
        x = tap(activation(x), f"{name}/activation", chance)
        x = tap(dropout(x, dropout_site(block, mixing, 0), chance), f"{name}/dropout_0", chance)
        x = tap(Dense(self.spec, operation, name="Dense_1")(x), f"{name}/Dense_1", chance)
        return tap(dropout(x, dropout_site(block, mixing, 1), chance), f"{name}/dropout_1", chance)


class Views(nn.Module):
    """A linear map of the channels: the G learned maps C -> C / G side by side."""

    spec: ModelSpec

    @nn.compact
    def __call__(self, x_bsc: Array) -> Array:
        kernel_cc = parameter(self, self.spec, "kernel").astype(x_bsc.dtype)
        return (x_bsc.reshape(-1, x_bsc.shape[-1]) @ kernel_cc).reshape(x_bsc.shape)


class TokenMixing(MlpBlock):
    """The MLP over tokens: shared by all channels, one for each channel, or shared by groups of channels.

    Grouping reshapes (s, c) to (s G, c / G): row s G + g of column j is channel j G + g of token s, so that G
    neighbouring columns are concatenated. With learned views a linear map of the channels comes first.
    """

    @nn.compact
    def __call__(self, x: Array, block: int, mixing: int, chance: Chance) -> Array:
        operation = dense_tokens_untied if self.spec.token_mixing == "untied" else dense_tokens
        if self.spec.token_mixing == "grouped_views":
            x = tap(Views(self.spec, name="views")(x), f"MixerBlock_{block}/{MIXINGS[mixing]}/views", chance)
        if self.spec.token_groups == 1:
            return self.mlp(x, operation, block, mixing, chance)
        (b, s, c), groups = x.shape, self.spec.token_groups
        x = x.reshape(b, s, c // groups, groups).swapaxes(2, 3).reshape(b, s * groups, c // groups)
        x = self.mlp(x, operation, block, mixing, chance)
        return x.reshape(b, s, groups, c // groups).swapaxes(2, 3).reshape(b, s, c)


class ChannelMixing(MlpBlock):
    """The MLP over channels: shared by all tokens, or one for each token."""

    @nn.compact
    def __call__(self, x: Array, block: int, mixing: int, chance: Chance) -> Array:
        operation = dense_channels_untied if self.spec.channel_mixing == "untied" else dense_channels
        return self.mlp(x, operation, block, mixing, chance)


class MixerBlock(nn.Module):
    """x + token mixing of norm of x, then x + channel mixing of norm of x.  Source: arXiv 2105.01601, eq. 1."""

    spec: ModelSpec

    @nn.compact
    def __call__(self, x_bsc: Array, block: int, chance: Chance) -> Array:
        token_mixing = TokenMixing(self.spec, name="token_mixing")
        channel_mixing = ChannelMixing(self.spec, name="channel_mixing")
        y_bsc = tap(LayerNorm(self.spec, name="LayerNorm_0")(x_bsc), f"MixerBlock_{block}/LayerNorm_0", chance)
        y_bsc = scale_branch(token_mixing(y_bsc, block, 0, chance), block, 0, chance)
        x_bsc = tap(x_bsc + y_bsc, f"MixerBlock_{block}/token_mixing", chance)
        y_bsc = tap(LayerNorm(self.spec, name="LayerNorm_1")(x_bsc), f"MixerBlock_{block}/LayerNorm_1", chance)
        y_bsc = scale_branch(channel_mixing(y_bsc, block, 1, chance), block, 1, chance)
        return tap(x_bsc + y_bsc, f"MixerBlock_{block}/channel_mixing", chance)


def scale_branch(x_bsc: Array, block: int, mixing: int, chance: Chance) -> Array:
    """Stochastic depth: multiply the branch of each example by the plan's factor."""
    if chance.branch_scales is None:
        return x_bsc
    factors_b11 = chance.branch_scales[block, mixing][:, None, None].astype(x_bsc.dtype)
    return tap(x_bsc * factors_b11, f"MixerBlock_{block}/{MIXINGS[mixing]}/stochastic_depth", chance)


class MlpMixer(nn.Module):
    """Images (b, h, w, channels) to logits (b, k) and features (b, c), both in at least float32."""

    spec: ModelSpec
    remat: bool = False

    @nn.compact
    def __call__(self, images_bhwc: Array, chance: Chance, dtype: DTypeLike) -> tuple[Array, Array]:
        spec = self.spec
        x_bsp = tap(patches(images_bhwc.astype(dtype), spec.patch_size), "patches", chance)
        x_bsc = tap(Dense(spec, dense_patches, name="stem")(x_bsp), "stem", chance)
        if spec.position_embedding == "learned":
            x_bsc = tap(x_bsc + parameter(self, spec, "position_embedding").astype(dtype), "position_embedding", chance)
        num_modules = 1 if spec.share_blocks else spec.num_blocks
        block = nn.remat(MixerBlock, static_argnums=(2,)) if self.remat else MixerBlock
        blocks = [block(spec, name=f"MixerBlock_{i}") for i in range(num_modules)]
        for i in range(spec.num_blocks):
            x_bsc = blocks[0 if spec.share_blocks else i](x_bsc, i, chance)
        if spec.pre_head_norm:
            x_bsc = tap(LayerNorm(spec, name="pre_head_layer_norm")(x_bsc), "pre_head_layer_norm", chance)
        features_bc = tap(x_bsc.astype(jnp.promote_types(dtype, jnp.float32)).mean(1), "features", chance)
        return tap(Dense(spec, dense_channels, name="head")(features_bc), "head", chance), features_bc


def patches(images_bhwc: Array, size: int) -> Array:
    """Cut images into patches in raster order: (b, h, w, channels) -> (b, s, size * size * channels)."""
    b, h, w, channels = images_bhwc.shape
    grid = images_bhwc.reshape(b, h // size, size, w // size, size, channels).swapaxes(2, 3)
    return grid.reshape(b, (h // size) * (w // size), size * size * channels)
