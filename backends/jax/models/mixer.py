"""MLP-Mixer in Flax.

b batch   p pixels of a patch times image channels   s tokens   c channels   k classes
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from backends.jax.layers import (
    Chance,
    dense,
    dense_channels,
    dense_channels_untied,
    dense_patches,
    layer_norm,
    mlp,
    patches,
    stochastic_depth,
    tap,
)
from backends.jax.models.mixing import TokenMixing
from backends.models.mixer_spec import MixerSpec


class ChannelMixing(nn.Module):
    """The MLP over channels: shared by all tokens, or one for each token."""

    spec: MixerSpec

    @nn.compact
    def __call__(self, x_bsc: Array, name: str, chance: Chance) -> Array:
        operation = dense_channels_untied if self.spec.channel_mixing == "untied" else dense_channels
        return mlp(self, operation, self.spec.activation, x_bsc, name, chance)


class MixerBlock(nn.Module):
    """x + token mixing of norm of x, then x + channel mixing of norm of x.  Source: arXiv 2105.01601, eq. 1."""

    spec: MixerSpec

    @nn.compact
    def __call__(self, x_bsc: Array, name: str, chance: Chance) -> Array:
        """The block's output (b, s, c).  Args: name: the block's, also where its weights are another block's."""
        token_mixing = TokenMixing(self.spec, name="token_mixing")
        channel_mixing = ChannelMixing(self.spec, name="channel_mixing")
        epsilon = self.spec.norm_epsilon
        y_bsc = tap(layer_norm(self, "LayerNorm_0", epsilon, x_bsc), f"{name}/LayerNorm_0", chance)
        y_bsc = token_mixing(y_bsc, f"{name}/token_mixing", chance)
        y_bsc = stochastic_depth(y_bsc, f"{name}/token_mixing/stochastic_depth", chance)
        x_bsc = tap(x_bsc + y_bsc, f"{name}/token_mixing", chance)
        y_bsc = tap(layer_norm(self, "LayerNorm_1", epsilon, x_bsc), f"{name}/LayerNorm_1", chance)
        y_bsc = channel_mixing(y_bsc, f"{name}/channel_mixing", chance)
        y_bsc = stochastic_depth(y_bsc, f"{name}/channel_mixing/stochastic_depth", chance)
        return tap(x_bsc + y_bsc, f"{name}/channel_mixing", chance)


class MlpMixer(nn.Module):
    """Images (b, h, w, channels) to logits (b, k) and features (b, c), both in at least float32."""

    spec: MixerSpec
    remat: bool = False

    @nn.compact
    def __call__(self, images_bhwc: Array, chance: Chance, dtype: DTypeLike) -> tuple[Array, Array]:
        spec = self.spec
        x_bsp = tap(patches(images_bhwc.astype(dtype), spec.patch_size), "patches", chance)
        x_bsc = tap(dense(self, "stem", dense_patches, x_bsp), "stem", chance)
        if spec.position_embedding == "learned":
            shape = (spec.num_tokens, spec.hidden_dim)
            position_sc = self.param("position_embedding", nn.initializers.zeros, shape)
            x_bsc = tap(x_bsc + position_sc.astype(dtype), "position_embedding", chance)
        block = nn.remat(MixerBlock, static_argnums=(2,)) if self.remat else MixerBlock
        num_modules = 1 if spec.share_blocks else spec.num_blocks
        blocks = [block(spec, name=f"MixerBlock_{i}") for i in range(num_modules)]
        for i in range(spec.num_blocks):
            x_bsc = blocks[0 if spec.share_blocks else i](x_bsc, f"MixerBlock_{i}", chance)
        if spec.pre_head_norm:
            normed_bsc = layer_norm(self, "pre_head_layer_norm", spec.norm_epsilon, x_bsc)
            x_bsc = tap(normed_bsc, "pre_head_layer_norm", chance)
        features_bc = tap(x_bsc.astype(jnp.promote_types(dtype, jnp.float32)).mean(1), "features", chance)
        return tap(dense(self, "head", dense_channels, features_bc), "head", chance), features_bc
