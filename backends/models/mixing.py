"""Token mixing: what stands between the tokens of a block. One function for each value of `token_mixing`.

An operator takes the norm of x, (S, C) for each image, and gives (S, C) to its skip-connection, or (S', C) where the
pyramid takes tokens away. Here are its layers; its forward functions are in backends/*/models/mixing.py, under the
same name.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isqrt

from backends.arrays import Shape
from backends.models.convolution import Window, convolution
from backends.models.family import ONES, Layer, Normal, Param, RandomRows, lecun, xavier
from backends.models.layers import activation, dense, dropout, layer_norm, mlp
from backends.models.mixer_spec import TOKEN_MIXING, MixerSpec

HINT = "the layout of its kernel, its bias, or the grouping of channels"
# Of the gate's norm, and of its kernel at the beginning.  Source: timm, models/mlp_mixer.py, SpatialGatingUnit
GATE_EPSILON, GATE_STD = 1e-5, 1e-6


@dataclass(frozen=True)
class Place:
    """Where an operator stands."""

    spec: MixerSpec
    tokens: int  # S that come in, the class token among them
    outputs: int  # S' that go out: S, or fewer in a block of the pyramid

    @property
    def shape(self) -> Shape:
        """The shape of what comes in."""
        return self.tokens, self.spec.hidden_dim


def tied(place: Place, name: str) -> list[Layer]:
    """One MLP over the tokens for all channels.  Source: arXiv 2105.01601, eq. 1."""
    return _mlp(place, name)


def untied(place: Place, name: str) -> list[Layer]:
    """An MLP over the tokens for each channel; kernels (C, in, out).  Source: arXiv 2105.01601, appendix A.1."""
    return _mlp(place, name, copies=place.spec.hidden_dim)


def grouped(place: Place, name: str) -> list[Layer]:
    """G neighbouring channels concatenated: one MLP over S G rows, for all C / G columns.  Source: appendix A.1."""
    return _mlp(place, name, groups=place.spec.token_groups)


def grouped_views(place: Place, name: str) -> list[Layer]:
    """Grouped, behind G learned linear maps C -> C / G, side by side in one kernel.  Source: appendix A.1."""
    tokens, channels = place.shape
    kernel = Param((channels, channels), lecun(channels), decayed=True)
    views = Layer(
        f"{name}/views",
        place.shape,
        {"kernel": kernel},
        macs=tokens * channels * channels,
        kept=tokens * channels,
        hint="the layout of its kernel",
    )
    return [views, *_mlp(place, name, groups=place.spec.token_groups)]


def attention(place: Place, name: str) -> list[Layer]:
    """Self-attention of several heads; channel h D + d of a product is number d of head h.

    Source: ViT, arXiv 2010.11929; the initial values are those of big_vision, models/vit.py.
    """
    tokens, channels = place.shape

    def product(part: str) -> Layer:
        init = xavier(channels, channels)
        return dense(f"{name}/{part}", channels, channels, place.shape, positions=tokens, init=init)

    heads = Layer(
        f"{name}/heads",
        place.shape,
        macs=2 * tokens * tokens * channels,
        kept=3 * tokens * channels + place.spec.num_heads * tokens * tokens,
        hint="the split into heads, the scale of the scores, or the axis of the softmax",
    )
    products = [product(part) for part in ("query", "key", "value")]
    return [*products, heads, product("out"), dropout(f"{name}/dropout", place.shape)]


def gating(place: Place, name: str) -> list[Layer]:
    """The block of gMLP: Dense, activation, a gate that mixes tokens, Dense; no channel MLP follows it.

    The first half of the units is multiplied by the second one, which is normed and goes through one S x S product.
    Source: arXiv 2105.08050, section 2; epsilon, order and initial values are those of timm, models/mlp_mixer.py.
    """
    (tokens, channels), units = place.shape, place.spec.channels_mlp_dim
    half = (tokens, units // 2)
    kernel = Param((tokens, tokens), Normal(GATE_STD), decayed=True)
    gate = Layer(
        f"{name}/gate",
        half,
        {"kernel": kernel, "bias": Param((tokens,), ONES)},
        macs=tokens * tokens * half[1],
        kept=3 * tokens * half[1],
        hint="the layout of its kernel, its bias, or which half gates",
    )
    return [
        dense(f"{name}/Dense_0", channels, units, (tokens, units), positions=tokens),
        activation(f"{name}/activation", place.spec.activation, (tokens, units)),
        dropout(f"{name}/dropout_0", (tokens, units)),
        replace(layer_norm(f"{name}/gate_norm", half), hint="which half gates, or epsilon"),
        gate,
        Layer(f"{name}/gated", half, hint="which half gates"),
        dense(f"{name}/Dense_1", half[1], channels, place.shape, positions=tokens),
        dropout(f"{name}/dropout_1", place.shape),
    ]


def linear(place: Place, name: str) -> list[Layer]:
    """One Dense over the tokens for all channels.  Source: ResMLP, arXiv 2105.03404, eq. 2."""
    tokens, channels = place.shape
    output = (place.outputs, channels)
    return [dense(f"{name}/Dense_0", tokens, place.outputs, output, positions=channels, hint=HINT)]


def pooling(place: Place, name: str) -> list[Layer]:
    """The mean over the 3 x 3 tokens around each, those outside not counted, minus the token itself.

    Source: MetaFormer, arXiv 2111.11418, algorithm 1 (average pooling with count_include_pad=False).
    """
    return [Layer(f"{name}/pooling", place.shape, hint="tokens outside, or the identity")]


def identity(place: Place, name: str) -> list[Layer]:
    """No mixing: the norm of x as it is.  Source: MetaFormer baselines, arXiv 2210.13452, IdentityFormer."""
    return []


def fourier(place: Place, name: str) -> list[Layer]:
    """The real part of the Fourier transform over tokens and channels.  Source: FNet, arXiv 2105.03824, eq. 3."""
    tokens, channels = place.shape
    macs = 2 * tokens * channels * (tokens + channels)
    return [Layer(f"{name}/fourier", place.shape, macs=macs, hint="the sign of the sines, or a missing factor")]


def random(place: Place, name: str) -> list[Layer]:
    """One product with a constant random matrix (S out, S in), whose rows sum to 1.

    Source: MetaFormer baselines, arXiv 2210.13452, RandFormer.
    """
    tokens, channels = place.shape
    matrix = Param((tokens, tokens), RandomRows(), trained=False)
    macs, hint = tokens * tokens * channels, "rows or columns of its matrix"
    return [Layer(f"{name}/random", place.shape, {"matrix": matrix}, macs=macs, hint=hint)]


def depthwise(place: Place, name: str) -> list[Layer]:
    """A convolution k x k over the grid for each channel, zeros outside.  Source: ConvMixer, arXiv 2201.09792."""
    (tokens, channels), window = place.shape, Window(place.spec.kernel_size)
    grid = (isqrt(tokens), isqrt(tokens), channels)
    hint = "the layout of its kernel, a turned kernel, or what lies outside"
    convolved = convolution(f"{name}/depthwise", window, grid, channels, groups=channels, hint=hint)
    return [replace(convolved, output=place.shape)]


def shift(place: Place, name: str) -> list[Layer]:
    """Four groups of neighbouring channels, each shifted by one token: down, up, right, left; the edge keeps its own.

    Source: S2-MLP, arXiv 2106.07477, algorithm 1.
    """
    return [Layer(f"{name}/shift", place.shape, hint="the directions of the groups, or the edges")]


def _mlp(place: Place, name: str, copies: int = 0, groups: int = 1) -> list[Layer]:
    """An MLP over the tokens of `groups` neighbouring channels.  Args: copies: how many there are, where not one."""
    spec, columns = place.spec, place.spec.hidden_dim // groups
    return mlp(
        name,
        place.tokens * groups,
        spec.tokens_mlp_dim,
        columns,
        lambda units: (units, columns),
        spec.activation,
        outputs=place.outputs * groups,
        copies=(copies,) if copies else (),
        vit=spec.init == "vit",
        hint=HINT,
    )


# Each value of the field is the name of its function.
OPERATORS: dict[str, Callable[[Place, str], list[Layer]]] = {name: globals()[name] for name in TOKEN_MIXING}
WHOLE = ("gating",)  # whole blocks: no channel mixing follows them
ON_GRID = ("pooling", "depthwise", "shift")  # the tokens are places in a square, so that there is no class token
WITH_D_S = ("tied", "untied", "grouped", "grouped_views")  # MLPs over tokens
SHRINKING = (*WITH_D_S, "linear")  # they can give fewer tokens than they take


def is_alone(spec: MixerSpec, operator: str) -> bool:
    """Whether no channel mixing follows an operator."""
    return spec.channel_mixing == "none" or operator in WHOLE
