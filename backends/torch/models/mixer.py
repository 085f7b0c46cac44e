"""MLP-Mixer in PyTorch, and every model that is its block with other token mixing.

b batch   p pixels of a patch times image channels   s tokens   c channels   k classes
"""

import torch
from torch import Tensor, nn

from backends.models import mixing, tables
from backends.models.mixer_layers import NORM_NAMES, PRE_HEAD
from backends.models.mixer_spec import MixerSpec
from backends.torch.grid import halved, table, windows
from backends.torch.layers import (
    Chance,
    Weights,
    again,
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
    weights,
)
from backends.torch.models.mixing import TokenMixing


class ChannelMixing(Weights):
    """The MLP over channels: shared by all tokens, or one for each token."""

    spec: MixerSpec

    def forward(self, x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
        operation = dense_channels_untied if self.spec.channel_mixing == "untied" else dense_channels
        x_bsc = mlp(self, operation, self.spec.activation, x_bsc, name, chance)
        return layer_scale(self, x_bsc, f"{name}/layer_scale", chance) if self.spec.layer_scale else x_bsc


class MixerBlock(nn.Module):
    """x + token mixing of norm of x, then x + channel mixing of norm of x.  Source: arXiv 2105.01601, eq. 1."""

    def __init__(self, spec: MixerSpec, i: int):
        super().__init__()
        self.spec, name, operator = spec, f"MixerBlock_{i}", spec.mixing_of(i)
        self.parts = ["token_mixing"] if mixing.is_alone(spec, operator) else ["token_mixing", "channel_mixing"]
        self.token_mixing = TokenMixing(spec, f"{name}/token_mixing", operator)
        if len(self.parts) > 1:
            self.channel_mixing = ChannelMixing(spec, f"{name}/channel_mixing")
        for j in range(len(self.parts)):
            self.add_module(f"{NORM_NAMES[spec.norm]}_{j}", Weights(spec, f"{name}/{NORM_NAMES[spec.norm]}_{j}"))

    def forward(self, x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
        """The block's output (b, s, c).  Args: name: the block's."""
        for i, part in enumerate(self.parts):
            x_bsc = self._branch(x_bsc, i, part, name, chance)
        return x_bsc

    def _branch(self, x_bsc: Tensor, i: int, part: str, block: str, chance: Chance) -> Tensor:
        """A skip-connection around a part of the block, with its norm before the part, or behind the sum."""
        name, is_post = f"{block}/{part}", self.spec.norm_place == "post"
        y_bsc = x_bsc if is_post else self._norm(x_bsc, i, block, chance)
        y_bsc = self.get_submodule(part)(y_bsc, name, chance)
        y_bsc = stochastic_depth(y_bsc, f"{name}/stochastic_depth", chance)
        if y_bsc.shape != x_bsc.shape:
            x_bsc = tap(halved(x_bsc), f"{name}/skip", chance)
        x_bsc = tap(x_bsc + y_bsc, name, chance)
        return self._norm(x_bsc, i, block, chance) if is_post else x_bsc

    def _norm(self, x_bsc: Tensor, i: int, block: str, chance: Chance) -> Tensor:
        spec, name = self.spec, f"{NORM_NAMES[self.spec.norm]}_{i}"
        return tap(norm(self, name, spec.norm, spec.norm_epsilon, x_bsc), f"{block}/{name}", chance)


class MlpMixer(nn.Module):
    """Images (b, h, w, channels) to logits (b, k) and features (b, c), both in at least float32."""

    cls_token: Tensor
    position_embedding: Tensor

    def __init__(self, spec: MixerSpec, remat: bool = False):
        super().__init__()
        self.spec, self.remat = spec, remat
        self.stem = Weights(spec, "stem")
        if spec.pool == "cls":
            self.cls_token = nn.Parameter(torch.empty(spec.hidden_dim))
        if spec.position_embedding == "learned":
            self.position_embedding = nn.Parameter(torch.empty(spec.num_positions, spec.hidden_dim))
        for i in range(spec.num_blocks):
            self.add_module(f"MixerBlock_{i}", MixerBlock(spec, i))
        if spec.pre_head_norm:
            self.add_module(PRE_HEAD[spec.norm], Weights(spec, PRE_HEAD[spec.norm]))
        if spec.representation:
            self.representation = Weights(spec, "representation")
        self.head = Weights(spec, "head")

    def forward(self, images_bhwc: Tensor, chance: Chance, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        spec = self.spec
        x_bsc = self._first_tokens(images_bhwc.to(dtype), chance)
        for i in range(spec.num_blocks):
            block, name = self.get_submodule(f"MixerBlock_{i}"), f"MixerBlock_{i}"
            x_bsc = again(block, x_bsc, name, chance) if self.remat else block(x_bsc, name, chance)
        if spec.pre_head_norm:
            name = PRE_HEAD[spec.norm]
            x_bsc = tap(norm(self, name, spec.norm, spec.norm_epsilon, x_bsc), name, chance)
        features_bc = self._features(x_bsc.to(weights(self, "head").kernel.dtype), chance)
        return tap(dense(self, "head", dense_channels, features_bc), "head", chance), features_bc

    def _first_tokens(self, images_bhwc: Tensor, chance: Chance) -> Tensor:
        """What enters the first block: tokens with their positions, and the class token where there is one."""
        spec, size = self.spec, self.spec.patch_size
        overlap = spec.stem == "overlap"
        x_bsp = windows(images_bhwc, spec.stem_size, size) if overlap else patches(images_bhwc, size)
        x_bsc = tap(dense(self, "stem", dense_patches, tap(x_bsp, "patches", chance)), "stem", chance)
        is_cls, has_position = spec.pool == "cls", spec.num_positions == spec.num_tokens
        if is_cls and has_position:
            x_bsc = self._with_cls(x_bsc, chance)
        if spec.position_embedding == "learned":
            x_bsc = tap(x_bsc + self.position_embedding.to(x_bsc.dtype), "position_embedding", chance)
        if spec.position_embedding == "sincos2d":
            waves_sc = table(tables.sincos2d, spec.image_size // size, spec.hidden_dim, like=x_bsc)
            x_bsc = tap(x_bsc + waves_sc, "position_embedding", chance)
        return self._with_cls(x_bsc, chance) if is_cls and not has_position else x_bsc

    def _with_cls(self, x_bsc: Tensor, chance: Chance) -> Tensor:
        token_b1c = self.cls_token.to(x_bsc.dtype).expand(x_bsc.shape[0], 1, -1)
        return tap(torch.cat([token_b1c, x_bsc], 1), "cls_token", chance)

    def _features(self, x_bsc: Tensor, chance: Chance) -> Tensor:
        """What enters the head: the mean over tokens or the class token, behind the representation layer."""
        pooled_bc = x_bsc[:, 0] if self.spec.pool == "cls" else x_bsc.mean(1)
        if not self.spec.representation:
            return tap(pooled_bc, "features", chance)
        x_bc = dense(self, "representation", dense_channels, tap(pooled_bc, "pooled", chance))
        return tap(torch.tanh(tap(x_bc, "representation", chance)), "features", chance)
