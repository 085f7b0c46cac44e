"""ConvMixer in Flax, its batch norms folded to affines.

b batch   h w tokens a side   c channels   k classes
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from backends.jax.convolution import convolution
from backends.jax.layers import (
    ACTIVATIONS,
    Chance,
    dense,
    dense_channels,
    dropout,
    in_float32,
    stochastic_depth,
    tap,
    weights,
)
from backends.models.convmixer_layers import depthwise, stem
from backends.models.convmixer_spec import ConvMixerSpec


class TokenMixing(nn.Module):
    """A depthwise convolution."""

    spec: ConvMixerSpec

    @nn.compact
    def __call__(self, x_bhwc: Array, name: str, chance: Chance) -> Array:
        window, groups = depthwise(self.spec), self.spec.hidden_dim
        x_bhwc = tap(convolution(self, "depthwise", window, x_bhwc, groups), f"{name}/depthwise", chance)
        return activated(self, "activation", "affine", x_bhwc, name, chance)


class ChannelMixing(nn.Module):
    """One product over the channels."""

    spec: ConvMixerSpec

    @nn.compact
    def __call__(self, x_bhwc: Array, name: str, chance: Chance) -> Array:
        x_bhwc = tap(dense(self, "Dense_0", dense_channels, x_bhwc), f"{name}/Dense_0", chance)
        return activated(self, "activation", "affine", x_bhwc, name, chance)


def activated(module: nn.Module, activation: str, affine: str, x_bhwc: Array, name: str, chance: Chance) -> Array:
    """The activation, and behind it the affine that a batch norm is folded to, in at least float32.

    Args: activation, affine: names of the layers.    name: what stands before them in the names of their values.
    """
    layer, spec = weights(module, affine), module.spec
    assert isinstance(spec, ConvMixerSpec)
    x_bhwc = tap(in_float32(ACTIVATIONS[spec.activation])(x_bhwc), f"{name}/{activation}".lstrip("/"), chance)
    y_bhwc = x_bhwc.astype(layer.scale.dtype) * layer.scale + layer.bias
    return tap(y_bhwc.astype(x_bhwc.dtype), f"{name}/{affine}".lstrip("/"), chance)


class ConvMixerBlock(nn.Module):
    """x + token mixing of x, then channel mixing of x.  Source: arXiv 2201.09792, section 2."""

    spec: ConvMixerSpec

    @nn.compact
    def __call__(self, x_bhwc: Array, name: str, chance: Chance) -> Array:
        """The block's output (b, h, w, c).  Args: name: the block's."""
        token_mixing = TokenMixing(self.spec, name="token_mixing")
        channel_mixing = ChannelMixing(self.spec, name="channel_mixing")
        y_bhwc = token_mixing(x_bhwc, f"{name}/token_mixing", chance)
        y_bhwc = stochastic_depth(y_bhwc, f"{name}/token_mixing/stochastic_depth", chance)
        x_bhwc = tap(x_bhwc + y_bhwc, f"{name}/token_mixing", chance)
        return channel_mixing(x_bhwc, f"{name}/channel_mixing", chance)


class ConvMixer(nn.Module):
    """Images (b, h, w, channels) to logits (b, k) and features (b, c), both in at least float32."""

    spec: ConvMixerSpec
    remat: bool = False

    @nn.compact
    def __call__(self, images_bhwc: Array, chance: Chance, dtype: DTypeLike) -> tuple[Array, Array]:
        x_bhwc = tap(convolution(self, "stem", stem(self.spec), images_bhwc.astype(dtype)), "stem", chance)
        x_bhwc = activated(self, "stem_activation", "stem_affine", x_bhwc, "", chance)
        block = nn.remat(ConvMixerBlock, static_argnums=(2,)) if self.remat else ConvMixerBlock
        for i in range(self.spec.num_blocks):
            x_bhwc = block(self.spec, name=f"ConvMixerBlock_{i}")(x_bhwc, f"ConvMixerBlock_{i}", chance)
        x_bc = tap(x_bhwc.astype(jnp.promote_types(dtype, jnp.float32)).mean((1, 2)), "pooled", chance)
        features_bc = dropout(x_bc, "features", chance)
        return tap(dense(self, "head", dense_channels, features_bc), "head", chance), features_bc
