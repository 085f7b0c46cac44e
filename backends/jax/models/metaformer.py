"""MetaFormers in stages, in Flax.

b batch   h w pixels   c channels   d hidden units of an MLP   k classes
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from backends.jax.convolution import convolution, group_norm
from backends.jax.layers import (
    Chance,
    dense,
    dense_channels,
    dropout,
    layer_norm,
    mlp,
    stochastic_depth,
    tap,
    weights,
)
from backends.jax.models.mixing import neighbours
from backends.models.metaformer_layers import DOWNSAMPLING, EPSILON, GROUP_EPSILON, stem
from backends.models.metaformer_spec import MetaFormerSpec


class Branch(nn.Module):
    """What stands in a residual branch behind its norm, in a block of this stage."""

    spec: MetaFormerSpec
    stage: int


class TokenMixing(Branch):
    """Pooling, or nothing, between places of the image."""

    @nn.compact
    def __call__(self, x_bhwc: Array, y_bhwc: Array, name: str, chance: Chance) -> Array:
        """The sum of x and of what becomes of y, its norm."""
        if self.spec.mixers[self.stage] == "pooling":
            y_bhwc = tap(neighbours(y_bhwc), f"{name}/pooling", chance)
        return added(self, x_bhwc, y_bhwc, name, chance)


class ChannelMixing(Branch):
    """The MLP over channels."""

    @nn.compact
    def __call__(self, x_bhwc: Array, y_bhwc: Array, name: str, chance: Chance) -> Array:
        """The sum of x and of what becomes of y, its norm."""
        if self.spec.is_baseline:
            y_bhwc = star_mlp(self, y_bhwc, name, chance)
        else:
            y_bhwc = mlp(self, dense_channels, "gelu", y_bhwc, name, chance)
        return added(self, x_bhwc, y_bhwc, name, chance)


def star_mlp(module: nn.Module, x_bhwc: Array, name: str, chance: Chance) -> Array:
    """The MLP of the baselines: products without biases, StarReLU between them."""
    x_bhwd = tap(product(module, "Dense_0", x_bhwc), f"{name}/Dense_0", chance)
    x_bhwd = tap(star_relu(module, "activation", x_bhwd), f"{name}/activation", chance)
    x_bhwd = dropout(x_bhwd, f"{name}/dropout_0", chance)
    x_bhwc = tap(product(module, "Dense_1", x_bhwd), f"{name}/Dense_1", chance)
    return dropout(x_bhwc, f"{name}/dropout_1", chance)


def product(module: nn.Module, name: str, x_bhwc: Array) -> Array:
    """x @ kernel over the channels, in the precision of x."""
    kernel_cd = weights(module, name).kernel.astype(x_bhwc.dtype)
    return (x_bhwc.reshape(-1, x_bhwc.shape[-1]) @ kernel_cd).reshape(*x_bhwc.shape[:-1], -1)


def star_relu(module: nn.Module, name: str, x: Array) -> Array:
    """s relu(x)^2 + b, in at least float32.  Source: arXiv 2210.13452, eq. 7, with s and b trained."""
    layer = weights(module, name)
    return (layer.scale * jnp.square(jax.nn.relu(x.astype(layer.scale.dtype))) + layer.bias).astype(x.dtype)


def scaled(module: nn.Module, name: str, x_bhwc: Array) -> Array:
    """The product with a factor for each channel, in the precision of x."""
    return x_bhwc * weights(module, name).scale.astype(x_bhwc.dtype)


def added(module: Branch, x_bhwc: Array, y_bhwc: Array, name: str, chance: Chance) -> Array:
    """The sum of x and a branch, with the factors that the stage has: of the branch, and of the skip-connection."""
    if module.spec.layer_scale > 0:
        y_bhwc = tap(scaled(module, "layer_scale", y_bhwc), f"{name}/layer_scale", chance)
    y_bhwc = stochastic_depth(y_bhwc, f"{name}/stochastic_depth", chance)
    if module.stage in module.spec.scaled_stages:
        x_bhwc = tap(scaled(module, "residual_scale", x_bhwc), f"{name}/residual_scale", chance)
    return tap(x_bhwc + y_bhwc, name, chance)


class MetaFormerBlock(nn.Module):
    """x + token mixing of norm of x, then x + channel mixing of norm of x.  Source: arXiv 2111.11418, eq. 2 and 3."""

    spec: MetaFormerSpec
    stage: int

    @nn.compact
    def __call__(self, x_bhwc: Array, name: str, chance: Chance) -> Array:
        """The block's output (b, h, w, c).  Args: name: the block's."""
        token_mixing = TokenMixing(self.spec, self.stage, name="token_mixing")
        channel_mixing = ChannelMixing(self.spec, self.stage, name="channel_mixing")
        epsilon = GROUP_EPSILON[self.spec.metaformer]
        y_bhwc = tap(group_norm(self, "GroupNorm_0", 1, epsilon, x_bhwc), f"{name}/GroupNorm_0", chance)
        x_bhwc = token_mixing(x_bhwc, y_bhwc, f"{name}/token_mixing", chance)
        y_bhwc = tap(group_norm(self, "GroupNorm_1", 1, epsilon, x_bhwc), f"{name}/GroupNorm_1", chance)
        return channel_mixing(x_bhwc, y_bhwc, f"{name}/channel_mixing", chance)


class Stage(nn.Module):
    """A convolution that halves the image, where the stage has one, and blocks."""

    spec: MetaFormerSpec
    stage: int
    remat: bool

    @nn.compact
    def __call__(self, x_bhwc: Array, name: str, chance: Chance) -> Array:
        """The stage's output (b, h, w, c).  Args: name: the stage's."""
        if self.spec.is_halved(self.stage):
            if self.spec.is_baseline:
                normed_bhwc = layer_norm(self, "downsampling_norm", EPSILON, x_bhwc)
                x_bhwc = tap(normed_bhwc, f"{name}/downsampling_norm", chance)
            x_bhwc = tap(convolution(self, "downsampling", DOWNSAMPLING, x_bhwc), f"{name}/downsampling", chance)
        block = nn.remat(MetaFormerBlock, static_argnums=(2,)) if self.remat else MetaFormerBlock
        for i in range(self.spec.depths[self.stage]):
            inner = f"MetaFormerBlock_{i}"
            x_bhwc = block(self.spec, self.stage, name=inner)(x_bhwc, f"{name}/{inner}", chance)
        return x_bhwc


class MetaFormer(nn.Module):
    """Images (b, h, w, channels) to logits (b, k) and features (b, c), both in at least float32."""

    spec: MetaFormerSpec
    remat: bool = False

    @nn.compact
    def __call__(self, images_bhwc: Array, chance: Chance, dtype: DTypeLike) -> tuple[Array, Array]:
        x_bhwc = tap(convolution(self, "stem", stem(self.spec), images_bhwc.astype(dtype)), "stem", chance)
        if self.spec.is_baseline:
            x_bhwc = tap(layer_norm(self, "stem_norm", EPSILON, x_bhwc), "stem_norm", chance)
        for stage in range(self.spec.num_stages):
            x_bhwc = Stage(self.spec, stage, self.remat, name=f"Stage_{stage}")(x_bhwc, f"Stage_{stage}", chance)
        x_bc = tap(x_bhwc.astype(jnp.promote_types(dtype, jnp.float32)).mean((1, 2)), "pooled", chance)
        features_bc = tap(layer_norm(self, "pre_head_layer_norm", EPSILON, x_bc), "pre_head_layer_norm", chance)
        return tap(dense(self, "head", dense_channels, features_bc), "head", chance), features_bc
