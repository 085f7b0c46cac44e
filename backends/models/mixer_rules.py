"""Which options of a Mixer fit each other, and which of several specs that say the same is the plain one."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from backends.models import mixing
from backends.models.config import ModelConfig
from backends.models.mixer_layers import layers
from backends.models.mixer_spec import MixerOptions, MixerSpec
from backends.models.patches import divisors, listed, patch_faults

HEAD_DIM = 64  # channels of a head of attention.  Source: ViT's variants
GROUPED = ("grouped", "grouped_views")
USUAL = MixerOptions()
MAY_BE_IDLE = ("stem", "init", "share_blocks", "share_token_mixing", "share_channel_mixing")


def faults(spec: MixerSpec, config: ModelConfig) -> Iterator[str]:
    """Sentences on what does not fit; each begins with the field."""
    if unfit := list(patch_faults(spec)):
        yield from unfit
        return  # no grid of tokens
    if not isinstance(spec.token_mixing, str) and len(spec.token_mixing) != spec.num_blocks:
        yield (
            f"model.token_mixing: a list names the mixing of each block; expected {spec.num_blocks} "
            f"(model.num_blocks), got {len(spec.token_mixing)}"
        )
        return
    yield from _grouping_faults(spec, config)
    yield from _width_faults(spec)
    yield from _token_faults(spec)
    yield from _pyramid_faults(spec)
    yield from _sharing_faults(spec)


def _grouping_faults(spec: MixerSpec, config: ModelConfig) -> Iterator[str]:
    groups, grouped = spec.token_groups, [name for name in GROUPED if name in spec.operators]
    if grouped and config.token_groups is None:
        yield (
            f"model.token_groups: model.token_mixing {grouped[0]!r} needs a number of groups; "
            f"allowed: {listed(divisors(spec.hidden_dim))}"
        )
    elif grouped and spec.hidden_dim % groups:
        yield (
            f"model.token_groups: {groups} does not divide model.hidden_dim {spec.hidden_dim}; "
            f"allowed: {listed(divisors(spec.hidden_dim))}"
        )
    if not grouped and groups != 1:
        yield (
            f"model.token_groups: {groups} groups need model.token_mixing grouped or "
            f"grouped_views, not {_words(spec.token_mixing)}; allowed with it: 1"
        )


def _width_faults(spec: MixerSpec) -> Iterator[str]:
    channels = spec.hidden_dim
    if "attention" in spec.operators and channels % spec.num_heads:
        yield (
            f"model.num_heads: {spec.num_heads} heads do not divide model.hidden_dim {channels}; "
            f"allowed: {listed(divisors(channels))}"
        )
    if "gating" in spec.operators and spec.channels_mlp_dim % 2:
        yield (
            f"model.channels_mlp_dim: gating splits it into two halves; expected an even number, "
            f"got {spec.channels_mlp_dim}"
        )
    if "shift" in spec.operators and channels % 4:
        yield f"model.hidden_dim: shift makes four groups of channels; expected a multiple of 4, got {channels}"
    if spec.position_embedding == "sincos2d" and (channels % 4 or channels < 8):
        yield f"model.hidden_dim: sincos2d needs a multiple of 4 that is 8 or more, got {channels}"
    if "depthwise" in spec.operators and spec.kernel_size % 2 == 0:
        yield f"model.kernel_size: expected an odd number, which has a middle, got {spec.kernel_size}"


def _token_faults(spec: MixerSpec) -> Iterator[str]:
    if spec.pool != "cls":
        return
    if on_grid := [name for name in mixing.ON_GRID if name in spec.operators]:
        yield f"model.pool: a class token has no place in the grid of model.token_mixing {on_grid[0]!r}; expected mean"
    if spec.pyramid:
        yield "model.pool: the pyramid takes means over neighbours, and a class token has none; expected mean"
    if spec.position_embedding == "sincos2d" and spec.cls_position:
        yield "model.cls_position: sincos2d has positions of patches alone; expected false"


def _pyramid_faults(spec: MixerSpec) -> Iterator[str]:
    side = spec.image_size // spec.patch_size
    if len(set(spec.pyramid)) < len(spec.pyramid) or any(i >= spec.num_blocks for i in spec.pyramid):
        yield f"model.pyramid: expected numbers of blocks from 0 to {spec.num_blocks - 1}, each once, got {_list(spec)}"
        return
    if side % 2 ** len(spec.pyramid):
        yield (
            f"model.pyramid: {len(spec.pyramid)} blocks halve the grid's side, and 2^{len(spec.pyramid)} does not "
            f"divide its {side} tokens; name fewer blocks, or change model.patch_size"
        )
    for i in spec.pyramid:
        if (operator := spec.mixing_of(i)) not in mixing.SHRINKING:
            yield (
                f"model.pyramid: block {i} has model.token_mixing {operator!r}, which gives as many tokens as it "
                f"takes; allowed there: {', '.join(mixing.SHRINKING)}"
            )


def _sharing_faults(spec: MixerSpec) -> Iterator[str]:
    """Blocks can share what has the same shape in all of them."""
    for name in ("share_blocks", "share_token_mixing", "share_channel_mixing"):
        tokens = name != "share_channel_mixing"
        if getattr(spec, name) and tokens and len(set(spec.operators)) > 1:
            yield f"model.{name}: the blocks have different token mixing, and can share none; expected false"
        elif getattr(spec, name) and spec.pyramid and (tokens or spec.channel_mixing == "untied"):
            yield f"model.{name}: the blocks of a pyramid have kernels of different shapes; expected false"


def plain(spec: MixerSpec) -> MixerSpec:
    """The same model in its plainest words, where several say the same.

    One group is the tied MLP; its learned views are weights of their own. What changes nothing has its default: D_S and
    heads of operators without them, a list of equal words, `rescale` without stochastic depth.
    """
    spec = replace(spec, **_plain_mixing(spec))
    same: dict[str, Any] = {}
    if _shapes(spec) == _shapes(replace(spec, tokens_mlp_dim=spec.tokens_mlp_dim + 1)):
        same["tokens_mlp_dim"] = default_tokens_mlp_dim(spec.hidden_dim)
    if _shapes(spec) == _shapes(replace(spec, channels_mlp_dim=spec.channels_mlp_dim + 2)):
        same["channels_mlp_dim"] = 4 * spec.hidden_dim
    if not any(layer.name.endswith("/activation") for layer in layers(spec)):
        same["activation"] = USUAL.activation
    if not any(layer.drops for layer in layers(spec)):
        same["dropout"] = USUAL.dropout
    same |= {name: getattr(USUAL, name) for name in MAY_BE_IDLE if _is_idle(spec, name)}
    if spec.drops_none_of(spec.num_blocks):
        same |= {"stochastic_depth": 0.0, "rescale": False}
    return replace(spec, **same)


def _is_idle(spec: MixerSpec, name: str) -> bool:
    """Whether the layers and their first weights are the same with a field's default."""
    usual = replace(spec, **{name: getattr(USUAL, name)})
    one, other = ([(layer.output, layer.weights, layer.params) for layer in layers(of)] for of in (spec, usual))
    return one == other


def _plain_mixing(spec: MixerSpec) -> dict[str, Any]:
    operators = ["tied" if one == "grouped" and spec.token_groups == 1 else one for one in spec.operators]
    same: dict[str, Any] = {"token_mixing": operators[0] if len(set(operators)) == 1 else tuple(operators)}
    same["pyramid"] = tuple(sorted(spec.pyramid))
    if "attention" not in operators:
        same["num_heads"] = 1
    if "depthwise" not in operators:
        same["kernel_size"] = USUAL.kernel_size
    if set(operators) <= set(mixing.WHOLE):
        same["channel_mixing"] = "none"
    if spec.pool != "cls" or spec.position_embedding == "none":
        same["cls_position"] = USUAL.cls_position
    if spec.norm == "affine":
        same["norm_epsilon"] = USUAL.norm_epsilon
    return same


def _shapes(spec: MixerSpec) -> list[object]:
    """The shapes of what the blocks compute, and of their parameters."""
    return [(layer.output, *(param.shape for param in layer.params.values())) for layer in layers(spec)]


def default_num_heads(hidden_dim: int) -> int:
    """The divisor of C that is nearest to C / 64, as ViT has it."""
    return min(divisors(hidden_dim), key=lambda heads: abs(heads - hidden_dim / HEAD_DIM))


def default_tokens_mlp_dim(hidden_dim: int) -> int:
    """D_S by the paper's ratio: half of C."""
    return max(1, hidden_dim // 2)


def _list(spec: MixerSpec) -> str:
    return f"[{listed(list(spec.pyramid))}]"


def _words(token_mixing: str | tuple[str, ...]) -> str:
    return repr(token_mixing) if isinstance(token_mixing, str) else f"[{', '.join(token_mixing)}]"
