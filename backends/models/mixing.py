"""Token mixing: what stands between the tokens of a block. One function for each value of `token_mixing`.

An operator takes the norm of x, (S, C) for each image, and gives (S, C) to its skip-connection. Here are its layers;
its forward functions are in backends/*/models/mixing.py, under the same name.
"""

from collections.abc import Callable

from backends.models.family import Layer, Param, lecun
from backends.models.layers import mlp
from backends.models.mixer_spec import TOKEN_MIXING, MixerSpec

HINT = "the layout of its kernel, its bias, or the grouping of channels"


def tied(spec: MixerSpec, name: str) -> list[Layer]:
    """One MLP over the tokens for all channels.  Source: arXiv 2105.01601, eq. 1."""
    return _mlp(spec, name)


def untied(spec: MixerSpec, name: str) -> list[Layer]:
    """An MLP over the tokens for each channel; kernels (C, in, out).  Source: arXiv 2105.01601, appendix A.1."""
    return _mlp(spec, name, copies=spec.hidden_dim)


def grouped(spec: MixerSpec, name: str) -> list[Layer]:
    """G neighbouring channels concatenated: one MLP over S G rows, for all C / G columns.  Source: appendix A.1."""
    return _mlp(spec, name, groups=spec.token_groups)


def grouped_views(spec: MixerSpec, name: str) -> list[Layer]:
    """Grouped, behind G learned linear maps C -> C / G, side by side in one kernel.  Source: appendix A.1."""
    tokens, channels = spec.num_tokens, spec.hidden_dim
    kernel = Param((channels, channels), lecun(channels), decayed=True)
    views = Layer(
        f"{name}/views",
        (tokens, channels),
        {"kernel": kernel},
        macs=tokens * channels * channels,
        kept=tokens * channels,
        hint="the layout of its kernel",
    )
    return [views, *_mlp(spec, name, groups=spec.token_groups)]


def pooling(spec: MixerSpec, name: str) -> list[Layer]:
    """The mean over the 3 x 3 tokens around each, those outside not counted, minus the token itself.

    Source: MetaFormer, arXiv 2111.11418, algorithm 1 (average pooling with count_include_pad=False).
    """
    return [Layer(f"{name}/pooling", (spec.num_tokens, spec.hidden_dim), hint="tokens outside, or the identity")]


def identity(spec: MixerSpec, name: str) -> list[Layer]:
    """No mixing: the norm of x as it is.  Source: MetaFormer baselines, arXiv 2210.13452, IdentityFormer."""
    return []


def _mlp(spec: MixerSpec, name: str, copies: int = 0, groups: int = 1) -> list[Layer]:
    """An MLP over the tokens of `groups` neighbouring channels.  Args: copies: how many there are, where not one."""
    rows, columns = spec.num_tokens * groups, spec.hidden_dim // groups
    own = (copies,) if copies else ()
    return mlp(
        name, rows, spec.tokens_mlp_dim, columns, lambda units: (units, columns), spec.activation, copies=own, hint=HINT
    )


# Each value of the field is the name of its function.
OPERATORS: dict[str, Callable[[MixerSpec, str], list[Layer]]] = {name: globals()[name] for name in TOKEN_MIXING}
