"""MLP-Mixer in PyTorch.

b batch   p pixels of a patch times image channels   s tokens   c channels   d hidden units of an MLP   k classes
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from backends.dropout import dropout_site
from backends.models.folds import MIXINGS, shapes
from backends.specs import ModelSpec

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
}

Operation = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x, kernel, bias) -> y


@dataclass(frozen=True)
class Chance:
    """The random choices of one step; None: that part is off. See StepPlan and dropout.dropout_site."""

    branch_scales: Tensor | None = None  # (num_blocks, 2, b)
    dropout_key: Tensor | None = None  # int32, the bits of the plan's uint32
    dropout_rate: float = 0.0
    taps: dict[str, Tensor] | None = None  # values of this pass by operation, in its order


def tap(x: Tensor, name: str, chance: Chance) -> Tensor:
    """The value itself, noted under its name where a forward pass is followed operation by operation."""
    if chance.taps is not None:
        chance.taps[name] = x
    return x


def dense_tokens(x_bsc: Tensor, kernel_sd: Tensor, bias_d: Tensor) -> Tensor:
    """One Dense over the tokens, shared by all channels: (b, s, c) -> (b, d, c)."""
    y_bdc = kernel_sd.T.expand(len(x_bsc), -1, -1) @ x_bsc
    y_bdc += bias_d[:, None]  # in place, here and below: a pass over memory less
    return y_bdc


def dense_tokens_untied(x_bsc: Tensor, kernel_csd: Tensor, bias_cd: Tensor) -> Tensor:
    """A Dense over the tokens for each channel: (b, s, c) -> (b, d, c)."""
    y_cbd = x_bsc.permute(2, 0, 1).contiguous() @ kernel_csd  # which the product would do several times, and slower
    y_cbd += bias_cd[:, None, :]
    return ContiguousGradient.apply(y_cbd).permute(1, 2, 0)


class ContiguousGradient(torch.autograd.Function):
    """The value itself, whose gradient is brought into its order in memory once for all who use it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous()


def dense_channels(x_bsc: Tensor, kernel_cd: Tensor, bias_d: Tensor) -> Tensor:
    """One Dense over the channels, shared by all tokens: (b, s, c) -> (b, s, d)."""
    y_nd = x_bsc.reshape(-1, x_bsc.shape[-1]) @ kernel_cd
    y_nd += bias_d
    return y_nd.reshape(*x_bsc.shape[:-1], -1)


def dense_patches(x_bsp: Tensor, kernel_ppqc: Tensor, bias_c: Tensor) -> Tensor:
    """The stem: a Dense over the pixels of each patch, its kernel laid out as a convolution's: -> (b, s, c)."""
    return dense_channels(x_bsp, kernel_ppqc.flatten(0, 2), bias_c)


def dense_channels_untied(x_bsc: Tensor, kernel_scd: Tensor, bias_sd: Tensor) -> Tensor:
    """A Dense over the channels for each token: (b, s, c) -> (b, s, d)."""
    y_sbd = x_bsc.transpose(0, 1) @ kernel_scd
    y_sbd += bias_sd[:, None, :]
    return y_sbd.transpose(0, 1)


def dropout(x: Tensor, site: int, chance: Chance) -> Tensor:
    """Zero elements by the hash of dropout.dropout_site, and rescale the rest."""
    if chance.dropout_key is None:
        return x
    # int32 products wrap as uint32 ones do; a right shift of int32 copies the sign, so the copies are masked off.
    bits = torch.arange(x.numel(), dtype=torch.int64, device=x.device).to(torch.int32).reshape(x.shape)
    bits = bits * _int32(0x9E3779B9) + (chance.dropout_key + _int32(site * 0x85EBCA6B))
    bits = (bits ^ (bits >> 16 & 0xFFFF)) * _int32(0x21F0AAAD)
    bits = (bits ^ (bits >> 15 & 0x1FFFF)) * _int32(0xD35A2D97)
    bits = bits ^ (bits >> 15 & 0x1FFFF)
    kept = (bits >> 8 & 0xFFFFFF) >= round(chance.dropout_rate * 2**24)
    return x * (kept.to(x.dtype) * (1 / (1 - chance.dropout_rate)))


def _int32(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


class Dense(nn.Module):
    """x @ kernel + bias along the axis that `operation` mixes, in the precision of x."""

    def __init__(self, spec: ModelSpec, name: str, operation: Operation):
        super().__init__()
        self.operation = operation
        self.kernel = nn.Parameter(torch.empty(shapes(spec)[f"{name}/kernel"]))
        self.bias = nn.Parameter(torch.empty(shapes(spec)[f"{name}/bias"]))

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(x, self.kernel.to(x.dtype), self.bias.to(x.dtype))


class LayerNorm(nn.Module):
    """Normalisation over the channels with centred variance; statistics in at least float32."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.epsilon = spec.norm_epsilon
        self.scale = nn.Parameter(torch.empty(spec.hidden_dim))
        self.bias = nn.Parameter(torch.empty(spec.hidden_dim))

    def forward(self, x_bsc: Tensor) -> Tensor:
        y_bsc = F.layer_norm(x_bsc.to(self.scale.dtype), self.scale.shape, self.scale, self.bias, self.epsilon)
        return y_bsc.to(x_bsc.dtype)


class MlpBlock(nn.Module):
    """Dense, activation, Dense."""

    def __init__(self, spec: ModelSpec, name: str, operation: Operation):
        super().__init__()
        self.activation = ACTIVATIONS[spec.activation]
        self.Dense_0 = Dense(spec, f"{name}/Dense_0", operation)
        self.Dense_1 = Dense(spec, f"{name}/Dense_1", operation)

    def forward(self, x: Tensor, block: int, mixing: int, chance: Chance) -> Tensor:
        name = f"MixerBlock_{block}/{MIXINGS[mixing]}"
        x = tap(self.Dense_0(x), f"{name}/Dense_0", chance)
        x = tap(self.activation(x), f"{name}/activation", chance)
        x = tap(dropout(x, dropout_site(block, mixing, 0), chance), f"{name}/dropout_0", chance)
        x = tap(self.Dense_1(x), f"{name}/Dense_1", chance)
        return tap(dropout(x, dropout_site(block, mixing, 1), chance), f"{name}/dropout_1", chance)


class Views(nn.Module):
    """A linear map of the channels: the G learned maps C -> C / G side by side."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(spec.hidden_dim, spec.hidden_dim))

    def forward(self, x_bsc: Tensor) -> Tensor:
        kernel_cc = self.kernel.to(x_bsc.dtype)
        return (x_bsc.reshape(-1, x_bsc.shape[-1]) @ kernel_cc).reshape(x_bsc.shape)


class TokenMixing(MlpBlock):
    """The MLP over tokens: shared by all channels, one for each channel, or shared by groups of channels.

    Grouping reshapes (s, c) to (s G, c / G): row s G + g of column j is channel j G + g of token s, so that G
    neighbouring columns are concatenated. With learned views a linear map of the channels comes first.
    """

    def __init__(self, spec: ModelSpec, name: str):
        super().__init__(spec, name, dense_tokens_untied if spec.token_mixing == "untied" else dense_tokens)
        self.groups = spec.token_groups
        if spec.token_mixing == "grouped_views":
            self.views = Views(spec)

    def forward(self, x: Tensor, block: int, mixing: int, chance: Chance) -> Tensor:
        if hasattr(self, "views"):
            x = tap(self.views(x), f"MixerBlock_{block}/{MIXINGS[mixing]}/views", chance)
        if self.groups == 1:
            return super().forward(x, block, mixing, chance).contiguous()  # what is untied lies channel by channel
        b, s, c = x.shape
        x = x.reshape(b, s, c // self.groups, self.groups).transpose(2, 3).reshape(b, s * self.groups, -1)
        x = super().forward(x, block, mixing, chance)
        return x.reshape(b, s, self.groups, c // self.groups).transpose(2, 3).reshape(b, s, c)


class ChannelMixing(MlpBlock):
    """The MLP over channels: shared by all tokens, or one for each token."""

    def __init__(self, spec: ModelSpec, name: str):
        super().__init__(spec, name, dense_channels_untied if spec.channel_mixing == "untied" else dense_channels)


class MixerBlock(nn.Module):
    """x + token mixing of norm of x, then x + channel mixing of norm of x.  Source: arXiv 2105.01601, eq. 1."""

    def __init__(self, spec: ModelSpec, name: str):
        super().__init__()
        self.LayerNorm_0 = LayerNorm(spec)
        self.token_mixing = TokenMixing(spec, f"{name}/token_mixing")
        self.LayerNorm_1 = LayerNorm(spec)
        self.channel_mixing = ChannelMixing(spec, f"{name}/channel_mixing")

    def forward(self, x_bsc: Tensor, block: int, chance: Chance) -> Tensor:
        y_bsc = tap(self.LayerNorm_0(x_bsc), f"MixerBlock_{block}/LayerNorm_0", chance)
        y_bsc = scale_branch(self.token_mixing(y_bsc, block, 0, chance), block, 0, chance)
        x_bsc = tap(x_bsc + y_bsc, f"MixerBlock_{block}/token_mixing", chance)
        y_bsc = tap(self.LayerNorm_1(x_bsc), f"MixerBlock_{block}/LayerNorm_1", chance)
        y_bsc = scale_branch(self.channel_mixing(y_bsc, block, 1, chance), block, 1, chance)
        return tap(x_bsc + y_bsc, f"MixerBlock_{block}/channel_mixing", chance)


def again(block: nn.Module, *arguments: Any) -> Tensor:
    """Call a block so that only its arguments are kept, and what its gradient needs is computed a second time."""
    params: dict[str, Tensor] = dict(block.named_parameters())  # the module will be without them at the second time

    def call(*arguments: Any) -> Tensor:
        return torch.func.functional_call(block, params, arguments)

    return checkpoint(call, *arguments, use_reentrant=False, preserve_rng_state=False)


def scale_branch(x_bsc: Tensor, block: int, mixing: int, chance: Chance) -> Tensor:
    """Stochastic depth: multiply the branch of each example by the plan's factor."""
    if chance.branch_scales is None:
        return x_bsc
    factors_b11 = chance.branch_scales[block, mixing][:, None, None].to(x_bsc.dtype)
    return tap(x_bsc * factors_b11, f"MixerBlock_{block}/{MIXINGS[mixing]}/stochastic_depth", chance)


class MlpMixer(nn.Module):
    """Images (b, h, w, channels) to logits (b, k) and features (b, c), both in at least float32."""

    def __init__(self, spec: ModelSpec, remat: bool = False):
        super().__init__()
        self.spec, self.remat = spec, remat
        self.stem = Dense(spec, "stem", dense_patches)
        if spec.position_embedding == "learned":
            self.position_embedding = nn.Parameter(torch.empty(spec.num_tokens, spec.hidden_dim))
        for i in range(1 if spec.share_blocks else spec.num_blocks):
            self.add_module(f"MixerBlock_{i}", MixerBlock(spec, f"MixerBlock_{i}"))
        if spec.pre_head_norm:
            self.pre_head_layer_norm = LayerNorm(spec)
        self.head = Dense(spec, "head", dense_channels)

    def forward(self, images_bhwc: Tensor, chance: Chance, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        spec = self.spec
        x_bsp = tap(patches(images_bhwc.to(dtype), spec.patch_size), "patches", chance)
        x_bsc = tap(self.stem(x_bsp), "stem", chance)
        if spec.position_embedding == "learned":
            x_bsc = tap(x_bsc + self.position_embedding.to(dtype), "position_embedding", chance)
        for i in range(spec.num_blocks):
            block = self.get_submodule(f"MixerBlock_{0 if spec.share_blocks else i}")
            x_bsc = again(block, x_bsc, i, chance) if self.remat else block(x_bsc, i, chance)
        if spec.pre_head_norm:
            x_bsc = tap(self.pre_head_layer_norm(x_bsc), "pre_head_layer_norm", chance)
        features_bc = tap(x_bsc.to(self.head.kernel.dtype).mean(1), "features", chance)
        return tap(self.head(features_bc), "head", chance), features_bc


def patches(images_bhwc: Tensor, size: int) -> Tensor:
    """Cut images into patches in raster order: (b, h, w, channels) -> (b, s, size * size * channels)."""
    b, h, w, channels = images_bhwc.shape
    grid = images_bhwc.reshape(b, h // size, size, w // size, size, channels).transpose(2, 3)
    return grid.reshape(b, (h // size) * (w // size), size * size * channels)
