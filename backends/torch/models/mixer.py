"""MLP-Mixer in PyTorch.

b batch   p pixels of a patch times image channels   s tokens   c channels   k classes
"""

import torch
from torch import Tensor, nn

from backends.models.mixer_spec import MixerSpec
from backends.torch.layers import (
    Chance,
    Weights,
    again,
    dense,
    dense_channels,
    dense_channels_untied,
    dense_patches,
    layer_norm,
    mlp,
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
        return mlp(self, operation, self.spec.activation, x_bsc, name, chance)


class MixerBlock(nn.Module):
    """x + token mixing of norm of x, then x + channel mixing of norm of x.  Source: arXiv 2105.01601, eq. 1."""

    def __init__(self, spec: MixerSpec, name: str):
        super().__init__()
        self.epsilon = spec.norm_epsilon
        self.LayerNorm_0 = Weights(spec, f"{name}/LayerNorm_0")
        self.token_mixing = TokenMixing(spec, f"{name}/token_mixing")
        self.LayerNorm_1 = Weights(spec, f"{name}/LayerNorm_1")
        self.channel_mixing = ChannelMixing(spec, f"{name}/channel_mixing")

    def forward(self, x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
        """The block's output (b, s, c).  Args: name: the block's, also where its weights are another block's."""
        y_bsc = tap(layer_norm(self, "LayerNorm_0", self.epsilon, x_bsc), f"{name}/LayerNorm_0", chance)
        y_bsc = self.token_mixing(y_bsc, f"{name}/token_mixing", chance)
        y_bsc = stochastic_depth(y_bsc, f"{name}/token_mixing/stochastic_depth", chance)
        x_bsc = tap(x_bsc + y_bsc, f"{name}/token_mixing", chance)
        y_bsc = tap(layer_norm(self, "LayerNorm_1", self.epsilon, x_bsc), f"{name}/LayerNorm_1", chance)
        y_bsc = self.channel_mixing(y_bsc, f"{name}/channel_mixing", chance)
        y_bsc = stochastic_depth(y_bsc, f"{name}/channel_mixing/stochastic_depth", chance)
        return tap(x_bsc + y_bsc, f"{name}/channel_mixing", chance)


class MlpMixer(nn.Module):
    """Images (b, h, w, channels) to logits (b, k) and features (b, c), both in at least float32."""

    position_embedding: Tensor

    def __init__(self, spec: MixerSpec, remat: bool = False):
        super().__init__()
        self.spec, self.remat = spec, remat
        self.stem = Weights(spec, "stem")
        if spec.position_embedding == "learned":
            self.position_embedding = nn.Parameter(torch.empty(spec.num_tokens, spec.hidden_dim))
        for i in range(1 if spec.share_blocks else spec.num_blocks):
            self.add_module(f"MixerBlock_{i}", MixerBlock(spec, f"MixerBlock_{i}"))
        if spec.pre_head_norm:
            self.pre_head_layer_norm = Weights(spec, "pre_head_layer_norm")
        self.head = Weights(spec, "head")

    def forward(self, images_bhwc: Tensor, chance: Chance, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        spec = self.spec
        x_bsp = tap(patches(images_bhwc.to(dtype), spec.patch_size), "patches", chance)
        x_bsc = tap(dense(self, "stem", dense_patches, x_bsp), "stem", chance)
        if spec.position_embedding == "learned":
            x_bsc = tap(x_bsc + self.position_embedding.to(dtype), "position_embedding", chance)
        for i in range(spec.num_blocks):
            block, name = self.get_submodule(f"MixerBlock_{0 if spec.share_blocks else i}"), f"MixerBlock_{i}"
            x_bsc = again(block, x_bsc, name, chance) if self.remat else block(x_bsc, name, chance)
        if spec.pre_head_norm:
            normed_bsc = layer_norm(self, "pre_head_layer_norm", spec.norm_epsilon, x_bsc)
            x_bsc = tap(normed_bsc, "pre_head_layer_norm", chance)
        features_bc = tap(x_bsc.to(weights(self, "head").kernel.dtype).mean(1), "features", chance)
        return tap(dense(self, "head", dense_channels, features_bc), "head", chance), features_bc
