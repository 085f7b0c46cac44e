"""Layers in PyTorch, and the random choices of a step.

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

from backends.dropout import ELEMENT, FIRST, SECOND, SITE
from backends.models.folds import shapes, uses
from backends.specs import ModelSpec

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
}

Operation = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x, kernel, bias) -> y

PART = 2**17  # elements of a dropout mask that are made at a time on a CPU


@dataclass(frozen=True)
class Chance:
    """The random choices of one step; None: that part is off. See StepPlan and dropout.py."""

    sites: tuple[str, ...] = ()  # of dropout, see folds.dropout_sites
    branches: tuple[str, ...] = ()  # of stochastic depth, see folds.branches
    branch_scales: Tensor | None = None  # (branches, b)
    dropout_key: Tensor | None = None  # int32, the bits of the plan's uint32
    dropout_rate: float = 0.0
    first_row: Tensor | None = None  # int32, the bits of the plan's uint32
    taps: dict[str, Tensor] | None = None  # values of this pass by layer, in its order
    together: bool = False  # the pass is one of several that vmap makes one


def tap(x: Tensor, name: str, chance: Chance) -> Tensor:
    """The value itself, noted under its name where a forward pass is followed layer by layer."""
    if chance.taps is not None:
        chance.taps[name] = x
    return x


class Weights(nn.Module):
    """The parameters below a name, nested as their names are."""

    def __init__(self, spec: ModelSpec, name: str):
        super().__init__()
        self.spec = spec
        for own, held in uses(spec).items():
            layer, _, part = own.removeprefix(f"{name}/").rpartition("/")
            if not own.startswith(f"{name}/"):
                continue
            if not layer:
                self.register_parameter(part, nn.Parameter(torch.empty(shapes(spec)[held])))  # each call brings numbers
            elif not hasattr(self, layer):
                self.add_module(layer, Weights(spec, f"{name}/{layer}"))


def weights(module: nn.Module, name: str) -> Any:
    """The parameters of a layer of a module, as attributes."""
    return getattr(module, name)


def over_tokens(matrix_ds: Tensor, x_bsc: Tensor) -> Tensor:
    """A product with one matrix over the tokens, shared by all channels: (b, s, c) -> (b, d, c)."""
    return matrix_ds.expand(x_bsc.shape[0], -1, -1) @ x_bsc


def dense_tokens(x_bsc: Tensor, kernel_sd: Tensor, bias_d: Tensor) -> Tensor:
    """One Dense over the tokens, shared by all channels: (b, s, c) -> (b, d, c)."""
    y_bdc = over_tokens(kernel_sd.T, x_bsc)
    y_bdc += bias_d[:, None]  # in place, here and below: a pass over memory less
    return y_bdc


def dense_tokens_untied(x_bsc: Tensor, kernel_csd: Tensor, bias_cd: Tensor) -> Tensor:
    """A Dense over the tokens for each channel: (b, s, c) -> (b, d, c)."""
    y_cbd = x_bsc.permute(2, 0, 1).contiguous() @ kernel_csd  # else the product copies it several times
    y_cbd += bias_cd[:, None, :]
    return ContiguousGradient.apply(y_cbd).permute(1, 2, 0)


class ContiguousGradient(torch.autograd.Function):
    """The value itself; its gradient is made contiguous once, for all products that read it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing: the gradient needs no value of the forward pass."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous()


def dense_channels(x_bsc: Tensor, kernel_cd: Tensor, bias_d: Tensor) -> Tensor:
    """One Dense over the channels, shared by all tokens: (b, s, c) -> (b, s, d)."""
    y_nd = x_bsc.reshape(-1, x_bsc.shape[-1]) @ kernel_cd
    y_nd += bias_d
    return y_nd.reshape(*x_bsc.shape[:-1], -1)


def dense_channels_untied(x_bsc: Tensor, kernel_scd: Tensor, bias_sd: Tensor) -> Tensor:
    """A Dense over the channels for each token: (b, s, c) -> (b, s, d)."""
    y_sbd = x_bsc.transpose(0, 1) @ kernel_scd
    y_sbd += bias_sd[:, None, :]
    return y_sbd.transpose(0, 1)


def dense_patches(x_bsp: Tensor, kernel_ppqc: Tensor, bias_c: Tensor) -> Tensor:
    """The stem: a Dense over the pixels of each patch, its kernel laid out as a convolution's: -> (b, s, c)."""
    return dense_channels(x_bsp, kernel_ppqc.flatten(0, 2), bias_c)


def dense(module: nn.Module, name: str, operation: Operation, x: Tensor) -> Tensor:
    """x @ kernel + bias along the axis that `operation` mixes, in the precision of x."""
    layer = weights(module, name)
    return operation(x, layer.kernel.to(x.dtype), layer.bias.to(x.dtype))


def layer_norm(module: nn.Module, name: str, epsilon: float, x_bsc: Tensor) -> Tensor:
    """Normalisation over the channels with centred variance; statistics in at least float32."""
    layer = weights(module, name)
    bias_c = getattr(layer, "bias", None)  # some norms have none
    y_bsc = F.layer_norm(x_bsc.to(layer.scale.dtype), layer.scale.shape, layer.scale, bias_c, epsilon)
    return y_bsc.to(x_bsc.dtype)


def affine(module: nn.Module, name: str, x_bsc: Tensor) -> Tensor:
    """A scale and a bias for each channel, in at least float32."""
    layer = weights(module, name)
    return torch.addcmul(layer.bias, x_bsc.to(layer.scale.dtype), layer.scale).to(x_bsc.dtype)


def rms_norm(module: nn.Module, name: str, epsilon: float, x_bsc: Tensor) -> Tensor:
    """Division by the root mean square over the channels; statistics in at least float32."""
    layer = weights(module, name)
    return F.rms_norm(x_bsc.to(layer.scale.dtype), layer.scale.shape, layer.scale, epsilon).to(x_bsc.dtype)


def norm(module: nn.Module, name: str, kind: str, epsilon: float, x_bsc: Tensor) -> Tensor:
    """The norm that `model.norm` names."""
    if kind == "affine":
        return affine(module, name, x_bsc)
    return (rms_norm if kind == "rms" else layer_norm)(module, name, epsilon, x_bsc)


def layer_scale(module: nn.Module, x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
    """Multiply each channel of a branch by its factor."""
    return tap(x_bsc * weights(module, "layer_scale").scale.to(x_bsc.dtype), name, chance)


def mlp(module: nn.Module, operation: Operation, activation: str, x: Tensor, name: str, chance: Chance) -> Tensor:
    """Dense, activation, Dense, with dropout behind the activation and the second Dense."""
    x = tap(dense(module, "Dense_0", operation, x), f"{name}/Dense_0", chance)
    x = tap(ACTIVATIONS[activation](x), f"{name}/activation", chance)
    x = dropout(x, f"{name}/dropout_0", chance)
    x = tap(dense(module, "Dense_1", operation, x), f"{name}/Dense_1", chance)
    return dropout(x, f"{name}/dropout_1", chance)


def dropout(x: Tensor, name: str, chance: Chance) -> Tensor:
    """Zero elements by the hash of dropout.py, and rescale the rest."""
    if chance.dropout_key is None:
        return tap(x, name, chance)
    # A byte an element is kept for the gradient; the factor, rounded to the precision of x, is one for all.
    factor = torch.full((), 1 / (1 - chance.dropout_rate), dtype=x.dtype, device=x.device)
    return tap((x * _is_kept(x, name, chance)).mul_(factor), name, chance)


def _is_kept(x: Tensor, name: str, chance: Chance) -> Tensor:
    """Whether dropout keeps each element of x."""
    # On a CPU in parts that stay in a core's cache: 0.2 to 0.4 of the time. What is compiled is one loop anyway.
    in_parts = x.device.type == "cpu" and not torch.compiler.is_compiling()
    size, start = PART if in_parts else 2**30, chance.sites.index(name) * SITE  # 2^30: places are int32
    key = chance.dropout_key
    assert key is not None
    if chance.first_row is not None:
        key = key + chance.first_row * _int32(x[0].numel() * ELEMENT)  # elements before the microbatch
    parts = [
        _is_kept_from(start + first * ELEMENT, min(size, x.numel() - first), key, chance)
        for first in range(0, x.numel(), size)
    ]
    return torch.cat(parts).reshape(x.shape)


def _is_kept_from(start: int, num: int, key: Tensor, chance: Chance) -> Tensor:
    """Whether dropout keeps so many neighbouring elements.

    Args: start: what the hash adds to the key for the first of them.    key: int32 ().
    """
    # int32 products wrap as uint32 ones do; a right shift of int32 copies the sign, so the copies are masked off.
    bits = torch.arange(num, dtype=torch.int32, device=key.device).mul_(_int32(ELEMENT))
    bits = bits + (key + _int32(start))
    bits.bitwise_xor_((bits >> 16).bitwise_and_(0xFFFF)).mul_(_int32(FIRST))
    bits.bitwise_xor_((bits >> 15).bitwise_and_(0x1FFFF)).mul_(_int32(SECOND))
    bits.bitwise_xor_((bits >> 15).bitwise_and_(0x1FFFF))
    return bits.bitwise_right_shift_(8).bitwise_and_(0xFFFFFF) >= round(chance.dropout_rate * 2**24)


def _int32(value: int) -> int:
    """The int32 that has the bits of a uint32."""
    return (value + 2**31) % 2**32 - 2**31


def stochastic_depth(x: Tensor, name: str, chance: Chance) -> Tensor:
    """Multiply the branch of each example by the plan's factor."""
    if chance.branch_scales is None:
        return x
    factors_b = chance.branch_scales[chance.branches.index(name)].to(x.dtype)
    return tap(x * factors_b.reshape(-1, *[1] * (x.ndim - 1)), name, chance)


def again(block: nn.Module, *arguments: Any) -> Tensor:
    """Call a block so that only its arguments are kept, and what its gradient needs is computed a second time."""
    # Taken now: the second call runs in the backward pass, when the module has its own empty ones again.
    params: dict[str, Tensor] = dict(block.named_parameters())

    def call(*arguments: Any) -> Tensor:
        return torch.func.functional_call(block, params, arguments)

    return checkpoint(call, *arguments, use_reentrant=False, preserve_rng_state=False)


def patches(images_bhwc: Tensor, size: int) -> Tensor:
    """Cut images into patches in raster order: (b, h, w, channels) -> (b, s, size * size * channels)."""
    b, h, w, channels = images_bhwc.shape
    grid = images_bhwc.reshape(b, h // size, size, w // size, size, channels).transpose(2, 3)
    return grid.reshape(b, (h // size) * (w // size), size * size * channels)
