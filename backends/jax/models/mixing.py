"""Token mixing in Flax: one function for each operator of backends/models/mixing.py.

b batch   s tokens   c channels
"""

from collections.abc import Callable

from flax import linen as nn
from jax import Array

from backends.jax.layers import Chance, Operation, dense_tokens, dense_tokens_untied, mlp, tap, weights
from backends.models.mixer_spec import TOKEN_MIXING, MixerSpec


def tied(mixing: "TokenMixing", x_bsc: Array, name: str, chance: Chance) -> Array:
    """One MLP over the tokens for all channels."""
    return _mlp(mixing, dense_tokens, x_bsc, name, chance)


def untied(mixing: "TokenMixing", x_bsc: Array, name: str, chance: Chance) -> Array:
    """An MLP over the tokens for each channel."""
    return _mlp(mixing, dense_tokens_untied, x_bsc, name, chance)


def grouped(mixing: "TokenMixing", x_bsc: Array, name: str, chance: Chance) -> Array:
    """One MLP over the tokens of G neighbouring channels: row s G + g of column j is channel j G + g of token s."""
    (b, s, c), groups = x_bsc.shape, mixing.spec.token_groups
    x = x_bsc.reshape(b, s, c // groups, groups).swapaxes(2, 3).reshape(b, s * groups, c // groups)
    x = _mlp(mixing, dense_tokens, x, name, chance)
    return x.reshape(b, s, groups, c // groups).swapaxes(2, 3).reshape(b, s, c)


def grouped_views(mixing: "TokenMixing", x_bsc: Array, name: str, chance: Chance) -> Array:
    """Grouped token mixing of learned linear views of the channels."""
    kernel_cc = weights(mixing, "views").kernel.astype(x_bsc.dtype)
    x_bsc = (x_bsc.reshape(-1, x_bsc.shape[-1]) @ kernel_cc).reshape(x_bsc.shape)
    return grouped(mixing, tap(x_bsc, f"{name}/views", chance), name, chance)


def pooling(mixing: "TokenMixing", x_bsc: Array, name: str, chance: Chance) -> Array:
    """The mean of the 3 x 3 tokens around each, those outside not counted, minus the token itself."""
    (b, s, c), side = x_bsc.shape, round(x_bsc.shape[1] ** 0.5)
    return tap(neighbours(x_bsc.reshape(b, side, side, c)).reshape(b, s, c), f"{name}/pooling", chance)


def neighbours(x_bhwc: Array) -> Array:
    """The mean of the 3 x 3 places around each, those outside not counted, minus the place itself."""
    return nn.avg_pool(x_bhwc, (3, 3), padding="SAME", count_include_pad=False) - x_bhwc


def identity(mixing: "TokenMixing", x_bsc: Array, name: str, chance: Chance) -> Array:
    """The tokens as they are."""
    return x_bsc


def _mlp(mixing: "TokenMixing", operation: Operation, x_bsc: Array, name: str, chance: Chance) -> Array:
    return mlp(mixing, operation, mixing.spec.activation, x_bsc, name, chance)


# Each value of the field is the name of its function.
OPERATORS: dict[str, Callable[["TokenMixing", Array, str, Chance], Array]] = {
    name: globals()[name] for name in TOKEN_MIXING if name in globals()
}


class TokenMixing(nn.Module):
    """The operator over tokens that the spec names."""

    spec: MixerSpec

    @nn.compact
    def __call__(self, x_bsc: Array, name: str, chance: Chance) -> Array:
        return OPERATORS[str(self.spec.token_mixing)](self, x_bsc, name, chance)
