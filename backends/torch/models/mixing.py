"""Token mixing in PyTorch: one function for each operator of backends/models/mixing.py.

b batch   s tokens   c channels
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from backends.models.mixer_spec import TOKEN_MIXING, MixerSpec
from backends.torch.layers import Chance, Operation, Weights, dense_tokens, dense_tokens_untied, mlp, tap, weights


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
    return x.reshape(b, s, groups, c // groups).transpose(2, 3).reshape(b, s, c)


def grouped_views(mixing: "TokenMixing", x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
    """Grouped token mixing of learned linear views of the channels."""
    kernel_cc = weights(mixing, "views").kernel.to(x_bsc.dtype)
    x_bsc = (x_bsc.reshape(-1, x_bsc.shape[-1]) @ kernel_cc).reshape(x_bsc.shape)
    return grouped(mixing, tap(x_bsc, f"{name}/views", chance), name, chance)


def pooling(mixing: "TokenMixing", x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
    """The mean of the 3 x 3 tokens around each, those outside not counted, minus the token itself."""
    (b, s, c), side = x_bsc.shape, round(x_bsc.shape[1] ** 0.5)
    return tap(neighbours(x_bsc.reshape(b, side, side, c)).reshape(b, s, c), f"{name}/pooling", chance)


def neighbours(x_bhwc: Tensor) -> Tensor:
    """The mean of the 3 x 3 places around each, those outside not counted, minus the place itself."""
    x_bchw = x_bhwc.permute(0, 3, 1, 2)
    mean_bchw = F.avg_pool2d(x_bchw, 3, stride=1, padding=1, count_include_pad=False)
    return (mean_bchw - x_bchw).permute(0, 2, 3, 1)


def identity(mixing: "TokenMixing", x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
    """The tokens as they are."""
    return x_bsc


def _mlp(mixing: "TokenMixing", operation: Operation, x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
    return mlp(mixing, operation, mixing.spec.activation, x_bsc, name, chance)


# Each value of the field is the name of its function.
OPERATORS: dict[str, Callable[["TokenMixing", Tensor, str, Chance], Tensor]] = {
    name: globals()[name] for name in TOKEN_MIXING if name in globals()
}


class TokenMixing(Weights):
    """The operator over tokens that the spec names."""

    spec: MixerSpec

    def forward(self, x_bsc: Tensor, name: str, chance: Chance) -> Tensor:
        return OPERATORS[str(self.spec.token_mixing)](self, x_bsc, name, chance)
