"""ConvMixer in PyTorch, its batch norms folded to affines.

b batch   h w tokens a side   c channels   k classes
"""

import torch
from torch import Tensor, nn

from backends.models.convmixer_layers import depthwise, stem
from backends.models.convmixer_spec import ConvMixerSpec
from backends.torch.convolution import convolution
from backends.torch.layers import (
    ACTIVATIONS,
    Chance,
    Weights,
    again,
    dense,
    dense_channels,
    dropout,
    stochastic_depth,
    tap,
    weights,
)


class TokenMixing(Weights):
    """A depthwise convolution."""

    spec: ConvMixerSpec

    def forward(self, x_bhwc: Tensor, name: str, chance: Chance) -> Tensor:
        window, groups = depthwise(self.spec), self.spec.hidden_dim
        x_bhwc = tap(convolution(self, "depthwise", window, x_bhwc, groups), f"{name}/depthwise", chance)
        return activated(self, "activation", "affine", x_bhwc, name, chance)


class ChannelMixing(Weights):
    """One product over the channels."""

    spec: ConvMixerSpec

    def forward(self, x_bhwc: Tensor, name: str, chance: Chance) -> Tensor:
        x_bhwc = tap(dense(self, "Dense_0", dense_channels, x_bhwc), f"{name}/Dense_0", chance)
        return activated(self, "activation", "affine", x_bhwc, name, chance)


def activated(module: nn.Module, activation: str, affine: str, x_bhwc: Tensor, name: str, chance: Chance) -> Tensor:
    """The activation, and behind it the affine that a batch norm is folded to, in at least float32.

    Args: activation, affine: names of the layers.    name: what stands before them in the names of their values.
    """
    layer, spec = weights(module, affine), module.spec
    assert isinstance(spec, ConvMixerSpec)
    x_bhwc = tap(ACTIVATIONS[spec.activation](x_bhwc), f"{name}/{activation}".lstrip("/"), chance)
    y_bhwc = x_bhwc.to(layer.scale.dtype) * layer.scale + layer.bias
    return tap(y_bhwc.to(x_bhwc.dtype), f"{name}/{affine}".lstrip("/"), chance)


class ConvMixerBlock(nn.Module):
    """x + token mixing of x, then channel mixing of x.  Source: arXiv 2201.09792, section 2."""

    def __init__(self, spec: ConvMixerSpec, name: str):
        super().__init__()
        self.token_mixing = TokenMixing(spec, f"{name}/token_mixing")
        self.channel_mixing = ChannelMixing(spec, f"{name}/channel_mixing")

    def forward(self, x_bhwc: Tensor, name: str, chance: Chance) -> Tensor:
        """The block's output (b, h, w, c).  Args: name: the block's."""
        y_bhwc = self.token_mixing(x_bhwc, f"{name}/token_mixing", chance)
        y_bhwc = stochastic_depth(y_bhwc, f"{name}/token_mixing/stochastic_depth", chance)
        x_bhwc = tap(x_bhwc + y_bhwc, f"{name}/token_mixing", chance)
        return self.channel_mixing(x_bhwc, f"{name}/channel_mixing", chance)


class ConvMixer(nn.Module):
    """Images (b, h, w, channels) to logits (b, k) and features (b, c), both in at least float32."""

    def __init__(self, spec: ConvMixerSpec, remat: bool = False):
        super().__init__()
        self.spec, self.remat = spec, remat
        self.stem = Weights(spec, "stem")
        self.stem_affine = Weights(spec, "stem_affine")
        for i in range(spec.num_blocks):
            self.add_module(f"ConvMixerBlock_{i}", ConvMixerBlock(spec, f"ConvMixerBlock_{i}"))
        self.head = Weights(spec, "head")

    def forward(self, images_bhwc: Tensor, chance: Chance, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        x_bhwc = tap(convolution(self, "stem", stem(self.spec), images_bhwc.to(dtype)), "stem", chance)
        x_bhwc = activated(self, "stem_activation", "stem_affine", x_bhwc, "", chance)
        for i in range(self.spec.num_blocks):
            block, name = self.get_submodule(f"ConvMixerBlock_{i}"), f"ConvMixerBlock_{i}"
            x_bhwc = again(block, x_bhwc, name, chance) if self.remat else block(x_bhwc, name, chance)
        x_bc = tap(x_bhwc.to(weights(self, "head").kernel.dtype).mean((1, 2)), "pooled", chance)
        features_bc = dropout(x_bc, "features", chance)
        return tap(dense(self, "head", dense_channels, features_bc), "head", chance), features_bc
