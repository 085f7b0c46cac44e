"""The ViT of big_vision in Flax, written after its structure, since big_vision is no package.

Source: google-research/big_vision 0127fb6b (Apache-2.0), models/vit.py: _Model with pool_type="gap", posemb="learn" and
rep_size=False. Names of parameters are its own.
"""

import flax.linen as nn
import jax

from backends.models.mixer_spec import MixerSpec


class MlpBlock(nn.Module):
    """Dense, GELU, Dense."""

    mlp_dim: int

    @nn.compact
    def __call__(self, x_bsc: jax.Array) -> jax.Array:
        dim, biases = x_bsc.shape[-1], nn.initializers.normal(stddev=1e-6)
        x_bsc = nn.Dense(self.mlp_dim, kernel_init=nn.initializers.xavier_uniform(), bias_init=biases)(x_bsc)
        return nn.Dense(dim, kernel_init=nn.initializers.xavier_uniform(), bias_init=biases)(nn.gelu(x_bsc))


class Encoder1DBlock(nn.Module):
    """Attention, then an MLP, each behind a norm and beside a skip-connection."""

    mlp_dim: int
    num_heads: int

    @nn.compact
    def __call__(self, x_bsc: jax.Array, deterministic: bool) -> jax.Array:
        y_bsc = nn.LayerNorm()(x_bsc)
        attention = nn.MultiHeadDotProductAttention(
            num_heads=self.num_heads, kernel_init=nn.initializers.xavier_uniform(), deterministic=deterministic
        )
        x_bsc = x_bsc + attention(y_bsc, y_bsc)
        return x_bsc + MlpBlock(self.mlp_dim)(nn.LayerNorm()(x_bsc))


class Encoder(nn.Module):
    """Blocks and a norm."""

    num_blocks: int
    mlp_dim: int
    num_heads: int

    @nn.compact
    def __call__(self, x_bsc: jax.Array, deterministic: bool) -> jax.Array:
        for i in range(self.num_blocks):
            x_bsc = Encoder1DBlock(self.mlp_dim, self.num_heads, name=f"encoderblock_{i}")(x_bsc, deterministic)
        return nn.LayerNorm(name="encoder_norm")(x_bsc)


class VisionTransformer(nn.Module):
    """Patches, a position embedding, blocks, a norm, the mean over tokens, a head."""

    model: MixerSpec

    @nn.compact
    def __call__(self, images_bhwc: jax.Array, *, train: bool) -> jax.Array:
        model, patch = self.model, (self.model.patch_size, self.model.patch_size)
        x_bhwc = nn.Conv(model.hidden_dim, patch, strides=patch, padding="VALID", name="embedding")(images_bhwc)
        x_bsc = x_bhwc.reshape(len(images_bhwc), model.num_patches, model.hidden_dim)
        positions = nn.initializers.normal(stddev=model.hidden_dim**-0.5)
        x_bsc = x_bsc + self.param("pos_embedding", positions, (1, model.num_patches, model.hidden_dim))
        encoder = Encoder(model.num_blocks, model.channels_mlp_dim, model.num_heads, name="Transformer")
        encoded = encoder(x_bsc, deterministic=not train)
        return nn.Dense(model.num_classes, kernel_init=nn.initializers.zeros, name="head")(encoded.mean(1))
