"""The MLP-Mixer, and every model that is its block with other token mixing: how its spec is made, and told in words."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from backends.models.config import ModelConfig
from backends.models.mixer_layers import layers as layers
from backends.models.mixer_rules import USUAL, default_num_heads, default_tokens_mlp_dim
from backends.models.mixer_rules import faults as faults
from backends.models.mixer_rules import plain as plain
from backends.models.mixer_spec import SIZES, MixerConfig, MixerOptions, MixerSpec
from backends.models.mixing import WITH_D_S
from backends.models.patches import default_patch_size
from backends.models.variants import VARIANTS
from backends.specs import ModelSpec

Spec: type[ModelSpec] = MixerSpec
Config: type[Any] = MixerConfig
DEFAULT_DIM, DEFAULT_BLOCKS = 64, 4
RATES = ("dropout", "stochastic_depth", "rescale")
STEM, TOKEN_MIXING = "stem/kernel", "MixerBlock_0/token_mixing/Dense_0/kernel"  # what figures draw


def make(config: ModelConfig, image_size: int, image_channels: int, num_classes: int) -> MixerSpec:
    """The spec of a config. Sizes that it leaves open come from the paper's ratios."""
    hidden = config.hidden_dim or DEFAULT_DIM
    return MixerSpec(
        image_size=image_size,
        image_channels=image_channels,
        num_classes=config.num_classes or num_classes,
        patch_size=config.patch_size or default_patch_size(image_size),
        hidden_dim=hidden,
        num_blocks=config.num_blocks or DEFAULT_BLOCKS,
        tokens_mlp_dim=config.tokens_mlp_dim or default_tokens_mlp_dim(hidden),
        channels_mlp_dim=config.channels_mlp_dim or 4 * hidden,
        token_groups=config.token_groups or 1,
        num_heads=config.num_heads or default_num_heads(hidden),
        **{f.name: getattr(USUAL if getattr(config, f.name) is None else config, f.name) for f in fields(MixerOptions)},
    )


def shallow(spec: MixerSpec, num_blocks: int) -> MixerSpec:
    """The model with so many blocks, or with its own where these are fewer."""
    num = min(num_blocks, spec.num_blocks)
    mixing = spec.token_mixing if isinstance(spec.token_mixing, str) else spec.token_mixing[:num]
    return replace(spec, num_blocks=num, token_mixing=mixing, pyramid=tuple(i for i in spec.pyramid if i < num))


def first_layers(spec: MixerSpec) -> dict[str, int | None]:
    """The stem, and the first token-mixing kernel where there is one: that of the first channel where each has its own.

    Source: arXiv 2105.01601, figures 5 and 6, which draw them.
    """
    chosen: dict[str, int | None] = {STEM: None}
    if spec.mixing_of(0) != "gating" and any(TOKEN_MIXING in layer.param_names() for layer in layers(spec)):
        chosen[TOKEN_MIXING] = 0 if spec.mixing_of(0) == "untied" else None
    return chosen


def variant_of(spec: MixerSpec) -> str | None:
    """The variant whose fields a model has; None: none has. A Mixer is known by the sizes of the paper's table 1."""
    sizes = {name: getattr(spec, name) for name in SIZES}
    return next((name for name, own in VARIANTS.items() if _is_variant(spec, own, sizes)), None)


def _is_variant(spec: MixerSpec, own: Mapping[str, Any], sizes: Mapping[str, int]) -> bool:
    if own.get("family", "mixer") != "mixer":
        return False
    if "token_mixing" in own:
        return all(getattr(spec, name) == value for name, value in own.items())
    return own == sizes and set(spec.operators) <= set(WITH_D_S)


def sizes(spec: MixerSpec) -> str:
    """`4 blocks, patch size 4, C 64, D_S 32, D_C 256`, as the paper's table 1 names them."""
    told = {"D_S": spec.tokens_mlp_dim, "heads": spec.num_heads, "D_C": spec.channels_mlp_dim}
    idle = {"D_S": not set(spec.operators) & set(WITH_D_S), "heads": "attention" not in spec.operators}
    idle["D_C"] = spec.channel_mixing == "none" and "gating" not in spec.operators
    words = [f"{name} {number}" for name, number in told.items() if not idle[name]]
    return ", ".join([f"{spec.num_blocks} blocks, patch size {spec.patch_size}, C {spec.hidden_dim}", *words])


def options(spec: MixerSpec) -> list[str]:
    """`activation gelu`, the norms, and every other option that is not the paper's."""
    usual = MixerOptions()
    words = [f"activation {spec.activation}", f"norm epsilon {spec.norm_epsilon:g}"]
    words.append("a norm before the head" if spec.pre_head_norm else "no norm before the head")
    told = [f.name for f in fields(MixerOptions) if f.name not in ("activation", "norm_epsilon", "pre_head_norm")]
    told = [name for name in told if name not in RATES and getattr(spec, name) != getattr(usual, name)]
    return words + [_told(name, getattr(spec, name)) for name in told]


def _told(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"no {name}"
    return f"{name} {' '.join(map(str, value)) if isinstance(value, tuple) else value}"
