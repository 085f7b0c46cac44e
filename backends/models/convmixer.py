"""The ConvMixer: how its spec is made, and told in words."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from backends.models.config import ModelConfig
from backends.models.convmixer_layers import layers as layers
from backends.models.convmixer_spec import ConvMixerConfig, ConvMixerSpec
from backends.models.mixer import DEFAULT_BLOCKS, DEFAULT_DIM
from backends.models.patches import default_patch_size, patch_faults
from backends.models.variants import variant_of as variant_of
from backends.specs import ModelSpec

Spec: type[ModelSpec] = ConvMixerSpec
Config: type[Any] = ConvMixerConfig
KERNEL_SIZE = 9  # Source: arXiv 2201.09792, section 2


def make(config: ModelConfig, image_size: int, image_channels: int, num_classes: int) -> ConvMixerSpec:
    """The spec of a config; sizes that it leaves open are those of a Mixer."""
    return ConvMixerSpec(
        image_size=image_size,
        image_channels=image_channels,
        num_classes=config.num_classes or num_classes,
        patch_size=config.patch_size or default_patch_size(image_size),
        hidden_dim=config.hidden_dim or DEFAULT_DIM,
        num_blocks=config.num_blocks or DEFAULT_BLOCKS,
        kernel_size=config.kernel_size or KERNEL_SIZE,
        activation=config.activation or "gelu",
        dropout=config.dropout,
        stochastic_depth=config.stochastic_depth,
        rescale=config.rescale,
    )


def faults(spec: ConvMixerSpec, config: ModelConfig) -> Iterator[str]:
    """Sentences on what does not fit; each begins with the field."""
    yield from patch_faults(spec)


def plain(spec: ConvMixerSpec) -> ConvMixerSpec:
    """The same model in its plainest words: without rates of stochastic depth that change nothing."""
    return replace(spec, stochastic_depth=0.0, rescale=False) if spec.drops_none_of(spec.num_blocks) else spec


def shallow(spec: ConvMixerSpec, num_blocks: int) -> ConvMixerSpec:
    """The model with so many blocks, or with its own where these are fewer."""
    return replace(spec, num_blocks=min(num_blocks, spec.num_blocks))


def first_layers(spec: ConvMixerSpec) -> dict[str, int | None]:
    """The stem."""
    return {"stem/kernel": None}


def sizes(spec: ConvMixerSpec) -> str:
    """`8 blocks, patch size 2, C 256, kernel size 5`."""
    return (
        f"{spec.num_blocks} blocks, patch size {spec.patch_size}, C {spec.hidden_dim}, kernel size {spec.kernel_size}"
    )


def options(spec: ConvMixerSpec) -> list[str]:
    """The activation, and what stands for batch norm."""
    return [f"activation {spec.activation}", "batch norms folded to affines"]
