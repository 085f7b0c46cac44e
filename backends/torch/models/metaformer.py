"""MetaFormers in stages, in PyTorch.

b batch   h w pixels   c channels   d hidden units of an MLP   k classes
"""

import torch
from torch import Tensor, nn

from backends.models.metaformer_layers import DOWNSAMPLING, EPSILON, GROUP_EPSILON, stem
from backends.models.metaformer_spec import MetaFormerSpec
from backends.torch.convolution import convolution, group_norm
from backends.torch.layers import (
    Chance,
    Weights,
    again,
    dense,
    dense_channels,
    dropout,
    layer_norm,
    mlp,
    stochastic_depth,
    tap,
    weights,
)
from backends.torch.models.mixing import neighbours


class Branch(Weights):
    """What stands in a residual branch behind its norm, in a block of this stage."""

    spec: MetaFormerSpec

    def __init__(self, spec: MetaFormerSpec, name: str, stage: int):
        super().__init__(spec, name)
        self.stage = stage


class TokenMixing(Branch):
    """Pooling, or nothing, between places of the image."""

    def forward(self, x_bhwc: Tensor, y_bhwc: Tensor, name: str, chance: Chance) -> Tensor:
        """The sum of x and of what becomes of y, its norm."""
        if self.spec.mixers[self.stage] == "pooling":
            y_bhwc = tap(neighbours(y_bhwc), f"{name}/pooling", chance)
        return added(self, x_bhwc, y_bhwc, name, chance)


class ChannelMixing(Branch):
    """The MLP over channels."""

    def forward(self, x_bhwc: Tensor, y_bhwc: Tensor, name: str, chance: Chance) -> Tensor:
        """The sum of x and of what becomes of y, its norm."""
        if self.spec.is_baseline:
            y_bhwc = star_mlp(self, y_bhwc, name, chance)
        else:
            y_bhwc = mlp(self, dense_channels, "gelu", y_bhwc, name, chance)
        return added(self, x_bhwc, y_bhwc, name, chance)


def star_mlp(module: nn.Module, x_bhwc: Tensor, name: str, chance: Chance) -> Tensor:
    """The MLP of the baselines: products without biases, StarReLU between them."""
    x_bhwd = tap(product(module, "Dense_0", x_bhwc), f"{name}/Dense_0", chance)
    x_bhwd = tap(star_relu(module, "activation", x_bhwd), f"{name}/activation", chance)
    x_bhwd = dropout(x_bhwd, f"{name}/dropout_0", chance)
    x_bhwc = tap(product(module, "Dense_1", x_bhwd), f"{name}/Dense_1", chance)
    return dropout(x_bhwc, f"{name}/dropout_1", chance)


def product(module: nn.Module, name: str, x_bhwc: Tensor) -> Tensor:
    """x @ kernel over the channels, in the precision of x."""
    kernel_cd = weights(module, name).kernel.to(x_bhwc.dtype)
    return (x_bhwc.reshape(-1, x_bhwc.shape[-1]) @ kernel_cd).reshape(*x_bhwc.shape[:-1], -1)


def star_relu(module: nn.Module, name: str, x: Tensor) -> Tensor:
    """s relu(x)^2 + b, in at least float32.  Source: arXiv 2210.13452, eq. 7, with s and b trained."""
    layer = weights(module, name)
    return (layer.scale * torch.relu(x.to(layer.scale.dtype)).square() + layer.bias).to(x.dtype)


def scaled(module: nn.Module, name: str, x_bhwc: Tensor) -> Tensor:
    """The product with a factor for each channel, in the precision of x."""
    return x_bhwc * weights(module, name).scale.to(x_bhwc.dtype)


def added(module: Branch, x_bhwc: Tensor, y_bhwc: Tensor, name: str, chance: Chance) -> Tensor:
    """The sum of x and a branch, with the factors that the stage has: of the branch, and of the skip-connection."""
    if module.spec.layer_scale > 0:
        y_bhwc = tap(scaled(module, "layer_scale", y_bhwc), f"{name}/layer_scale", chance)
    y_bhwc = stochastic_depth(y_bhwc, f"{name}/stochastic_depth", chance)
    if module.stage in module.spec.scaled_stages:
        x_bhwc = tap(scaled(module, "residual_scale", x_bhwc), f"{name}/residual_scale", chance)
    return tap(x_bhwc + y_bhwc, name, chance)


class MetaFormerBlock(nn.Module):
    """x + token mixing of norm of x, then x + channel mixing of norm of x.  Source: arXiv 2111.11418, eq. 2 and 3."""

    def __init__(self, spec: MetaFormerSpec, name: str, stage: int):
        super().__init__()
        self.epsilon = GROUP_EPSILON[spec.metaformer]
        self.GroupNorm_0 = Weights(spec, f"{name}/GroupNorm_0")
        self.token_mixing = TokenMixing(spec, f"{name}/token_mixing", stage)
        self.GroupNorm_1 = Weights(spec, f"{name}/GroupNorm_1")
        self.channel_mixing = ChannelMixing(spec, f"{name}/channel_mixing", stage)

    def forward(self, x_bhwc: Tensor, name: str, chance: Chance) -> Tensor:
        """The block's output (b, h, w, c).  Args: name: the block's."""
        y_bhwc = tap(group_norm(self, "GroupNorm_0", 1, self.epsilon, x_bhwc), f"{name}/GroupNorm_0", chance)
        x_bhwc = self.token_mixing(x_bhwc, y_bhwc, f"{name}/token_mixing", chance)
        y_bhwc = tap(group_norm(self, "GroupNorm_1", 1, self.epsilon, x_bhwc), f"{name}/GroupNorm_1", chance)
        return self.channel_mixing(x_bhwc, y_bhwc, f"{name}/channel_mixing", chance)


class Stage(nn.Module):
    """A convolution that halves the image, where the stage has one, and blocks."""

    def __init__(self, spec: MetaFormerSpec, name: str, stage: int, remat: bool):
        super().__init__()
        self.spec, self.stage, self.remat = spec, stage, remat
        self.downsampling_norm = Weights(spec, f"{name}/downsampling_norm")
        self.downsampling = Weights(spec, f"{name}/downsampling")
        for i in range(spec.depths[stage]):
            self.add_module(f"MetaFormerBlock_{i}", MetaFormerBlock(spec, f"{name}/MetaFormerBlock_{i}", stage))

    def forward(self, x_bhwc: Tensor, name: str, chance: Chance) -> Tensor:
        """The stage's output (b, h, w, c).  Args: name: the stage's."""
        if self.spec.is_halved(self.stage):
            if self.spec.is_baseline:
                normed_bhwc = layer_norm(self, "downsampling_norm", EPSILON, x_bhwc)
                x_bhwc = tap(normed_bhwc, f"{name}/downsampling_norm", chance)
            x_bhwc = tap(convolution(self, "downsampling", DOWNSAMPLING, x_bhwc), f"{name}/downsampling", chance)
        for i in range(self.spec.depths[self.stage]):
            block, inner = self.get_submodule(f"MetaFormerBlock_{i}"), f"{name}/MetaFormerBlock_{i}"
            x_bhwc = again(block, x_bhwc, inner, chance) if self.remat else block(x_bhwc, inner, chance)
        return x_bhwc


class MetaFormer(nn.Module):
    """Images (b, h, w, channels) to logits (b, k) and features (b, c), both in at least float32."""

    def __init__(self, spec: MetaFormerSpec, remat: bool = False):
        super().__init__()
        self.spec = spec
        self.stem = Weights(spec, "stem")
        self.stem_norm = Weights(spec, "stem_norm")
        for stage in range(spec.num_stages):
            self.add_module(f"Stage_{stage}", Stage(spec, f"Stage_{stage}", stage, remat))
        self.pre_head_layer_norm = Weights(spec, "pre_head_layer_norm")
        self.head = Weights(spec, "head")

    def forward(self, images_bhwc: Tensor, chance: Chance, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        x_bhwc = tap(convolution(self, "stem", stem(self.spec), images_bhwc.to(dtype)), "stem", chance)
        if self.spec.is_baseline:
            x_bhwc = tap(layer_norm(self, "stem_norm", EPSILON, x_bhwc), "stem_norm", chance)
        for stage in range(self.spec.num_stages):
            x_bhwc = self.get_submodule(f"Stage_{stage}")(x_bhwc, f"Stage_{stage}", chance)
        x_bc = tap(x_bhwc.to(weights(self, "head").kernel.dtype).mean((1, 2)), "pooled", chance)
        features_bc = tap(layer_norm(self, "pre_head_layer_norm", EPSILON, x_bc), "pre_head_layer_norm", chance)
        return tap(dense(self, "head", dense_channels, features_bc), "head", chance), features_bc
