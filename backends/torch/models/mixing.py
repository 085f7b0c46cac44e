"""Token mixing in PyTorch: one function for each operator of backends/models/mixing.py.

b batch   s tokens   c channels   h heads   d channels of a head
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from backends.models import tables
from backends.models.convolution import Window
from backends.models.mixer_spec import TOKEN_MIXING, MixerSpec
from backends.models.mixing import GATE_EPSILON
from backends.torch.convolution import convolution
from backends.torch.grid import grid, shifted, table
from backends.torch.layers import (
    ACTIVATIONS,
    Chance,
    Operation,
    Weights,
    dense,
    dense_channels,
    dense_tokens,
    dense_tokens_untied,
    dropout,
    layer_norm,
    layer_scale,
    mlp,
    over_tokens,
    tap,
    weights,
)


def tied(mixing: "TokenMixing", x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
    """One MLP over the tokens for all channels."""
    return _mlp(mixing, dense_tokens, x_bsc, name, chance)


def untied(mixing: "TokenMixing", x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
    """An MLP over the tokens for each channel."""
    y_bsc = _mlp(mixing, dense_tokens_untied, x_bsc, name, chance)
    return y_bsc.contiguous()  # the untied MLP leaves it channel by channel


def grouped(mixing: "TokenMixing", x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
    """One MLP over the tokens of G neighbouring channels: row s G + g of column j is channel j G + g of token s."""
    (b, s, c), groups = x_bsc.shape, mixing.spec.token_groups
    x = x_bsc.reshape(b, s, c // groups, groups).transpose(2, 3).reshape(b, s * groups, c // groups)
    x = _mlp(mixing, dense_tokens, x, name, chance)
    return x.reshape(b, -1, groups, c // groups).transpose(2, 3).reshape(b, -1, c)


def grouped_views(mixing: "TokenMixing", x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
    """Grouped token mixing of learned linear views of the channels."""
    kernel_cc = weights(mixing, "views").kernel.to(x_bsc.dtype)
    x_bsc = (x_bsc.reshape(-1, x_bsc.shape[-1]) @ kernel_cc).reshape(x_bsc.shape)
    return grouped(mixing, tap(x_bsc, f"{name}/views", chance), name, chance)


def attention(mixing: "TokenMixing", x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
    """Self-attention of several heads; channel h D + d of a product is number d of head h."""

    def product(part: str, x_bsc: Tensor) -> Tensor:
        return tap(dense(mixing, part, dense_channels, x_bsc), f"{name}/{part}", chance)

    query, key, value = (_heads(product(part, x_bsc), mixing.spec.num_heads) for part in ("query", "key", "value"))
    # vmap has no rule for the fused form, and would take the replicas one after the other.
    attend = _attend if chance.together else F.scaled_dot_product_attention
    y_bsc = attend(query, key, value).transpose(1, 2).reshape(x_bsc.shape)
    return dropout(product("out", tap(y_bsc, f"{name}/heads", chance)), f"{name}/dropout", chance)


def _heads(x_bsc: Tensor, num: int) -> Tensor:
    b, s, c = x_bsc.shape
    return x_bsc.reshape(b, s, num, c // num).transpose(1, 2)


def _attend(query_bhsd: Tensor, key_bhsd: Tensor, value_bhsd: Tensor) -> Tensor:
    """The mean of the values of all tokens, weighted by the softmax of the scaled scores, in at least float32."""
    scores_bhss = (query_bhsd @ key_bhsd.mT) * query_bhsd.shape[-1] ** -0.5
    wide = torch.promote_types(scores_bhss.dtype, torch.float32)
    return F.softmax(scores_bhss, -1, dtype=wide).to(value_bhsd.dtype) @ value_bhsd


def gating(mixing: "TokenMixing", x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
    """The block of gMLP: Dense, activation, a gate that mixes tokens, Dense."""
    x_bsd = tap(dense(mixing, "Dense_0", dense_channels, x_bsc), f"{name}/Dense_0", chance)
    x_bsd = tap(ACTIVATIONS[mixing.spec.activation](x_bsd), f"{name}/activation", chance)
    gated_bsd, gate_bsd = dropout(x_bsd, f"{name}/dropout_0", chance).chunk(2, -1)
    gate_bsd = tap(layer_norm(mixing, "gate_norm", GATE_EPSILON, gate_bsd), f"{name}/gate_norm", chance)
    gate_bsd = tap(dense(mixing, "gate", dense_tokens, gate_bsd), f"{name}/gate", chance)
    y_bsd = tap(gated_bsd * gate_bsd, f"{name}/gated", chance)
    y_bsc = tap(dense(mixing, "Dense_1", dense_channels, y_bsd), f"{name}/Dense_1", chance)
    return dropout(y_bsc, f"{name}/dropout_1", chance)


def linear(mixing: "TokenMixing", x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
    """One Dense over the tokens for all channels."""
    return tap(dense(mixing, "Dense_0", dense_tokens, x_bsc), f"{name}/Dense_0", chance)


def pooling(mixing: "TokenMixing", x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
    """The mean of the 3 x 3 tokens around each, those outside not counted, minus the token itself."""
    return tap(neighbours(grid(x_bsc)).reshape(x_bsc.shape), f"{name}/pooling", chance)


def neighbours(x_bhwc: Tensor) -> Tensor:
    """The mean of the 3 x 3 places around each, those outside not counted, minus the place itself."""
    x_bchw = x_bhwc.permute(0, 3, 1, 2).contiguous()
    mean_bchw = F.avg_pool2d(x_bchw, 3, stride=1, padding=1, count_include_pad=False)
    return (mean_bchw - x_bchw).permute(0, 2, 3, 1)


def identity(mixing: "TokenMixing", x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
    """The tokens as they are."""
    return x_bsc


def fourier(mixing: "TokenMixing", x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
    """The real part of the Fourier transform over tokens and channels: cosines of both, minus sines of both."""
    _, s, c = x_bsc.shape
    cosines_ss, sines_ss, cosines_cc, sines_cc = (
        table(make, size, like=x_bsc) for size in (s, c) for make in (tables.cosines, tables.sines)
    )
    y_bsc = over_tokens(cosines_ss, x_bsc @ cosines_cc) - over_tokens(sines_ss, x_bsc @ sines_cc)
    return tap(y_bsc, f"{name}/fourier", chance)


def random(mixing: "TokenMixing", x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
    """One product with a constant random matrix (S out, S in)."""
    matrix_ts = weights(mixing, "random").matrix.to(x_bsc.dtype)
    return tap(over_tokens(matrix_ts, x_bsc), f"{name}/random", chance)


def depthwise(mixing: "TokenMixing", x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
    """A convolution k x k over the grid for each channel, zeros outside."""
    window, channels = Window(mixing.spec.kernel_size), x_bsc.shape[-1]
    y_bhwc = convolution(mixing, "depthwise", window, grid(x_bsc), channels)
    return tap(y_bhwc.reshape(x_bsc.shape), f"{name}/depthwise", chance)


def shift(mixing: "TokenMixing", x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
    """Four groups of neighbouring channels, each shifted by one token: down, up, right, left; edges keep their own."""
    down, up, right, left = grid(x_bsc).chunk(4, -1)
    moved = [shifted(down, 1, 1), shifted(up, 1, -1), shifted(right, 2, 1), shifted(left, 2, -1)]
    return tap(torch.cat(moved, -1).reshape(x_bsc.shape), f"{name}/shift", chance)


def _mlp(mixing: "TokenMixing", operation: Operation, x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
    return mlp(mixing, operation, mixing.spec.activation, x_bsc, name, chance)


# Each value of the field is the name of its function.
OPERATORS: dict[str, Callable[["TokenMixing", Tensor, str, Chance], Tensor]] = {
    name: globals()[name] for name in TOKEN_MIXING
}


class TokenMixing(Weights):
    """The operator over tokens of one block."""

    spec: MixerSpec

    def __init__(self, spec: MixerSpec, name: str, operator: str):
        super().__init__(spec, name)
        self.operator = operator

    def forward(self, x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
        x_bsc = OPERATORS[self.operator](self, x_bsc, name, chance)
        return layer_scale(self, x_bsc, f"{name}/layer_scale", chance) if self.spec.layer_scale else x_bsc
