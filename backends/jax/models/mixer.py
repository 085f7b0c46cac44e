"""MLP-Mixer in Flax, and every model that is its block with other token mixing.

b batch   p pixels of a patch times image channels   s tokens   c channels   k classes
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from backends.jax.grid import halved, table, windows
from backends.jax.layers import (
    Chance,
    dense,
    dense_channels,
    dense_channels_untied,
    dense_patches,
    layer_scale,
    mlp,
    norm,
    patches,
    stochastic_depth,
    tap,
)
from backends.jax.models.mixing import TokenMixing
from backends.models import mixing, tables
from backends.models.mixer_layers import NORM_NAMES, PRE_HEAD
from backends.models.mixer_spec import MixerSpec


class ChannelMixing(nn.Module):
    """The MLP over channels: shared by all tokens, or one for each token."""

    spec: MixerSpec

    @nn.compact
    def __call__(self, x_bsc: Array, name: str, chance: Chance) -> Array:
        operation = dense_channels_untied if self.spec.channel_mixing == "untied" else dense_channels
        x_bsc = mlp(self, operation, self.spec.activation, x_bsc, name, chance)
        return layer_scale(self, x_bsc, f"{name}/layer_scale", chance) if self.spec.layer_scale else x_bsc


class MixerBlock(nn.Module):
    """x + token mixing of norm of x, then x + channel mixing of norm of x.  Source: arXiv 2105.01601, eq. 1."""

    spec: MixerSpec
    i: int

    @nn.compact
    def __call__(self, x_bsc: Array, name: str, chance: Chance) -> Array:
        """The block's output (b, s, c).  Args: name: the block's."""
        spec, operator = self.spec, self.spec.mixing_of(self.i)
        parts: list[nn.Module] = [TokenMixing(spec, operator, name="token_mixing")]
        if not mixing.is_alone(spec, operator):
            parts.append(ChannelMixing(spec, name="channel_mixing"))
        for i, part in enumerate(parts):
            x_bsc = self._branch(x_bsc, i, part, name, chance)
        return x_bsc

    def _branch(self, x_bsc: Array, i: int, part: nn.Module, block: str, chance: Chance) -> Array:
        """A skip-connection around a part of the block, with its norm before the part, or behind the sum."""
        name, is_post = f"{block}/{part.name}", self.spec.norm_place == "post"
        y_bsc = x_bsc if is_post else self._norm(x_bsc, i, block, chance)
        y_bsc = part(y_bsc, name, chance)
        y_bsc = stochastic_depth(y_bsc, f"{name}/stochastic_depth", chance)
        if y_bsc.shape != x_bsc.shape:
            x_bsc = tap(halved(x_bsc), f"{name}/skip", chance)
        x_bsc = tap(x_bsc + y_bsc, name, chance)
        return self._norm(x_bsc, i, block, chance) if is_post else x_bsc

    def _norm(self, x_bsc: Array, i: int, block: str, chance: Chance) -> Array:
        spec, name = self.spec, f"{NORM_NAMES[self.spec.norm]}_{i}"
        return tap(norm(self, name, spec.norm, spec.norm_epsilon, x_bsc), f"{block}/{name}", chance)


class MlpMixer(nn.Module):
    """Images (b, h, w, channels) to logits (b, k) and features (b, c), both in at least float32."""

    spec: MixerSpec
    remat: bool = False

    @nn.compact
    def __call__(self, images_bhwc: Array, chance: Chance, dtype: DTypeLike) -> tuple[Array, Array]:
        spec = self.spec
        x_bsc = self._first_tokens(images_bhwc.astype(dtype), chance)
        block = nn.remat(MixerBlock, static_argnums=(2,)) if self.remat else MixerBlock
        for i in range(spec.num_blocks):
            x_bsc = block(spec, i, name=f"MixerBlock_{i}")(x_bsc, f"MixerBlock_{i}", chance)
        if spec.pre_head_norm:
            name = PRE_HEAD[spec.norm]
            x_bsc = tap(norm(self, name, spec.norm, spec.norm_epsilon, x_bsc), name, chance)
        features_bc = self._features(x_bsc.astype(jnp.promote_types(dtype, jnp.float32)), chance)
        return tap(dense(self, "head", dense_channels, features_bc), "head", chance), features_bc

    def _first_tokens(self, images_bhwc: Array, chance: Chance) -> Array:
        """What enters the first block: tokens with their positions, and the class token where there is one."""
        spec, size = self.spec, self.spec.patch_size
        overlap = spec.stem == "overlap"
        x_bsp = windows(images_bhwc, spec.stem_size, size) if overlap else patches(images_bhwc, size)
        x_bsc = tap(dense(self, "stem", dense_patches, tap(x_bsp, "patches", chance)), "stem", chance)
        is_cls, has_position = spec.pool == "cls", spec.num_positions == spec.num_tokens
        if is_cls and has_position:
            x_bsc = self._with_cls(x_bsc, chance)
        if spec.position_embedding == "learned":
            shape = (spec.num_positions, spec.hidden_dim)
            position_sc = self.param("position_embedding", nn.initializers.zeros, shape)
            x_bsc = tap(x_bsc + position_sc.astype(x_bsc.dtype), "position_embedding", chance)
        if spec.position_embedding == "sincos2d":
            waves_sc = table(tables.sincos2d, spec.image_size // size, spec.hidden_dim, like=x_bsc)
            x_bsc = tap(x_bsc + waves_sc, "position_embedding", chance)
        return self._with_cls(x_bsc, chance) if is_cls and not has_position else x_bsc

    def _with_cls(self, x_bsc: Array, chance: Chance) -> Array:
        token_c = self.param("cls_token", nn.initializers.zeros, (self.spec.hidden_dim,)).astype(x_bsc.dtype)
        token_b1c = jnp.broadcast_to(token_c, (len(x_bsc), 1, len(token_c)))
        return tap(jnp.concatenate([token_b1c, x_bsc], 1), "cls_token", chance)

    def _features(self, x_bsc: Array, chance: Chance) -> Array:
        """What enters the head: the mean over tokens or the class token, behind the representation layer."""
        pooled_bc = x_bsc[:, 0] if self.spec.pool == "cls" else x_bsc.mean(1)
        if not self.spec.representation:
            return tap(pooled_bc, "features", chance)
        x_bc = dense(self, "representation", dense_channels, tap(pooled_bc, "pooled", chance))
        return tap(jnp.tanh(tap(x_bc, "representation", chance)), "features", chance)
