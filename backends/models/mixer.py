"""The MLP-Mixer, declared: its layers, and how its spec is made and checked.  Source: arXiv 2105.01601, section 2."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from backends.models import mixing
from backends.models.family import ZEROS, CutNormal, Layer, Param, lecun
from backends.models.layers import KERNEL_HINT, addition, dense, layer_norm, mlp, stochastic_depth
from backends.models.mixer_spec import SIZES, VARIANTS, MixerConfig, MixerOptions, MixerSpec
from backends.specs import ModelSpec

Spec: type[ModelSpec] = MixerSpec
DEFAULT_SIZES: tuple[int | None, ...] = (None, 64, 4, None, None)
POSITION_STD = 0.02  # of the position embedding, before the cut.  Source: google-research/vision_transformer
GROUPED = ("grouped", "grouped_views")
STEM, TOKEN_MIXING = "stem/kernel", "MixerBlock_0/token_mixing/Dense_0/kernel"  # what figures draw


def layers(spec: MixerSpec) -> list[Layer]:
    """Every layer, in the order of the forward pass.

    Names and layouts are those of the official checkpoints: kernels (in, out), stem (P, P, c, C).
    Source: google-research/vision_transformer, models_mixer.py; initial values are its defaults, the head's are zero.
    """
    tokens, channels, pixels = spec.num_tokens, spec.hidden_dim, spec.patch_size**2 * spec.image_channels
    shape = (tokens, channels)
    kernel = Param((spec.patch_size, spec.patch_size, spec.image_channels, channels), lecun(pixels), decayed=True)
    stem = {"kernel": kernel, "bias": Param((channels,), ZEROS)}
    position = {"": Param(shape, CutNormal(POSITION_STD))}
    return [
        Layer("patches", (tokens, pixels), hint="the order of patches, or of pixels in a patch"),
        Layer("stem", shape, stem, macs=tokens * pixels * channels, kept=tokens * pixels, hint=KERNEL_HINT),
        *[Layer("position_embedding", shape, position, hint="the order of tokens")]
        * (spec.position_embedding == "learned"),
        *(layer for i in range(spec.num_blocks) for layer in _block(spec, i)),
        *[layer_norm("pre_head_layer_norm", shape)] * spec.pre_head_norm,
        Layer("features", (channels,), hint="the mean over tokens"),
        dense("head", channels, spec.num_classes, (spec.num_classes,), init=ZEROS),
    ]


def _block(spec: MixerSpec, i: int) -> list[Layer]:
    """The layers of one block; where blocks share their weights, the first one holds the parameters."""
    name, shape = f"MixerBlock_{i}", (spec.num_tokens, spec.hidden_dim)
    declared = [
        layer_norm(f"{name}/LayerNorm_0", shape),
        *mixing.OPERATORS[spec.token_mixing](spec, f"{name}/token_mixing"),
        stochastic_depth(f"{name}/token_mixing/stochastic_depth", shape),
        addition(f"{name}/token_mixing", shape),
        layer_norm(f"{name}/LayerNorm_1", shape),
        *_channel_mixing(spec, f"{name}/channel_mixing"),
        stochastic_depth(f"{name}/channel_mixing/stochastic_depth", shape),
        addition(f"{name}/channel_mixing", shape),
    ]
    if spec.share_blocks and i:
        declared = [
            replace(layer, params={}, weights=layer.name.replace(name, "MixerBlock_0", 1)) if layer.params else layer
            for layer in declared
        ]
    return [replace(layer, block=name) for layer in declared]


def _channel_mixing(spec: MixerSpec, name: str) -> list[Layer]:
    """One MLP over the channels for all tokens, or one for each token, whose kernels are (S, in, out)."""
    tokens, channels, hidden = spec.num_tokens, spec.hidden_dim, spec.channels_mlp_dim
    copies = (tokens,) if spec.channel_mixing == "untied" else ()
    return mlp(name, channels, hidden, tokens, lambda units: (tokens, units), spec.activation, copies=copies)


def make(config: MixerConfig, image_size: int, image_channels: int, num_classes: int) -> MixerSpec:
    """The spec of a config. Sizes that it leaves open come from its variant, else from the paper's ratios."""
    usual = VARIANTS[config.variant] if config.variant else DEFAULT_SIZES
    patch, hidden, blocks, tokens_dim, channels_dim = (
        getattr(config, name) or size for name, size in zip(SIZES, usual, strict=True)
    )
    assert hidden and blocks  # both tables give them
    return MixerSpec(
        image_size=image_size,
        image_channels=image_channels,
        num_classes=config.num_classes or num_classes,
        patch_size=patch or _default_patch_size(image_size),
        hidden_dim=hidden,
        num_blocks=blocks,
        tokens_mlp_dim=tokens_dim or default_tokens_mlp_dim(hidden),
        channels_mlp_dim=channels_dim or 4 * hidden,
        token_groups=config.token_groups or 1,
        **{f.name: getattr(config, f.name) for f in fields(MixerOptions)},
    )


def default_tokens_mlp_dim(hidden_dim: int) -> int:
    """D_S by the paper's ratio: half of C."""
    return max(1, hidden_dim // 2)


def _default_patch_size(image_size: int) -> int:
    """The divisor of the image's side that is nearest to an eighth of it, and to 2 in small images."""
    return min(_divisors(image_size), key=lambda size: abs(size - max(2.0, image_size / 8)))


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def faults(spec: MixerSpec, config: MixerConfig) -> Iterator[str]:
    """Sentences on what does not fit; each begins with the field."""
    is_grouped, groups = spec.token_mixing in GROUPED, spec.token_groups
    if is_grouped and config.token_groups is None:
        yield (
            f"model.token_groups: model.token_mixing {spec.token_mixing!r} needs a number of groups; "
            f"allowed: {_listed(_divisors(spec.hidden_dim))}"
        )
    if spec.image_size % spec.patch_size:
        yield (
            f"model.patch_size: {spec.patch_size} does not divide the image of {spec.image_size} pixels "
            f"(data.image_size); allowed: {_listed(_divisors(spec.image_size))}"
        )
    if is_grouped and spec.hidden_dim % groups:
        yield (
            f"model.token_groups: {groups} does not divide model.hidden_dim {spec.hidden_dim}; "
            f"allowed: {_listed(_divisors(spec.hidden_dim))}"
        )
    if not is_grouped and groups != 1:
        yield (
            f"model.token_groups: {groups} groups need model.token_mixing grouped or "
            f"grouped_views, not {spec.token_mixing!r}; allowed with it: 1"
        )


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def plain(spec: MixerSpec) -> MixerSpec:
    """The same model in its plainest words, where several say the same.

    One group is the tied MLP; its learned views are weights of their own. D_S is at its default where it changes
    nothing of an operator. Without `rescale` the rate of stochastic depth rises from 0 at the first block, so that the
    only block is never dropped.
    """
    same: dict[str, Any] = {}
    if spec.token_mixing == "grouped" and spec.token_groups == 1:
        same["token_mixing"] = "tied"
    if _token_shapes(spec) == _token_shapes(replace(spec, tokens_mlp_dim=spec.tokens_mlp_dim + 1)):
        same["tokens_mlp_dim"] = default_tokens_mlp_dim(spec.hidden_dim)
    if spec.num_blocks == 1:
        same["share_blocks"] = False
    if not spec.stochastic_depth or (spec.num_blocks == 1 and not spec.rescale):
        same |= {"stochastic_depth": 0.0, "rescale": False}
    return replace(spec, **same)


def _token_shapes(spec: MixerSpec) -> list[object]:
    """The shapes of what the token mixing of a block computes, and of its parameters."""
    layers = mixing.OPERATORS[spec.token_mixing](spec, "")
    return [(layer.output, *(param.shape for param in layer.params.values())) for layer in layers]


def shallow(spec: MixerSpec, num_blocks: int) -> MixerSpec:
    """The model with so many blocks, or with its own where these are fewer."""
    return replace(spec, num_blocks=min(num_blocks, spec.num_blocks))


def first_layers(spec: MixerSpec) -> dict[str, int | None]:
    """The stem, and the first token-mixing kernel where there is one: that of the first channel where each has its own.

    Source: arXiv 2105.01601, figures 5 and 6, which draw them.
    """
    chosen: dict[str, int | None] = {STEM: None}
    if any(TOKEN_MIXING in layer.param_names() for layer in _block(spec, 0)):
        chosen[TOKEN_MIXING] = 0 if spec.token_mixing == "untied" else None
    return chosen


def variant_of(spec: MixerSpec) -> str | None:
    """The variant that has all sizes of a model; None: none has."""
    sizes = tuple(getattr(spec, name) for name in SIZES)
    return next((variant for variant, its_sizes in VARIANTS.items() if its_sizes == sizes), None)


def sizes(spec: MixerSpec) -> str:
    """`4 blocks, patch size 4, C 64, D_S 32, D_C 256`, as the paper's table 1 names them."""
    return (
        f"{spec.num_blocks} blocks, patch size {spec.patch_size}, C {spec.hidden_dim}, "
        f"D_S {spec.tokens_mlp_dim}, D_C {spec.channels_mlp_dim}"
    )


def options(spec: MixerSpec) -> list[str]:
    """`activation gelu`, the norms, and every other option that is not the paper's."""
    usual = MixerOptions()
    words = [f"activation {spec.activation}", f"norm epsilon {spec.norm_epsilon:g}"]
    words.append("a norm before the head" if spec.pre_head_norm else "no norm before the head")
    for name in ("token_mixing", "channel_mixing", "position_embedding"):
        words += [f"{name} {getattr(spec, name)}"] * (getattr(spec, name) != getattr(usual, name))
    return words + ["share_blocks"] * spec.share_blocks
