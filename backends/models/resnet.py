"""The ResNet of BiT: how its spec is made, and told in words."""

from dataclasses import fields, replace
from typing import Any

from backends.models.config import ModelConfig
from backends.models.patches import default_patch_size
from backends.models.resnet_layers import layers as layers
from backends.models.resnet_rules import faults as faults
from backends.models.resnet_rules import plain as plain
from backends.models.resnet_spec import DEPTHS, ResnetConfig, ResnetOptions, ResnetSpec
from backends.models.variants import VARIANTS
from backends.specs import ModelSpec

Spec: type[ModelSpec] = ResnetSpec
Config: type[Any] = ResnetConfig
SMALL_IMAGE = 64  # pixels a side, below which images take the small root
DEFAULT_DEPTH = {"cifar": 20, "imagenet": 50}
WIDTH, SMALL_WIDTH = 64, 16  # of BiT's x1, and of the three stages for CIFAR
NORM_GROUPS = 32
SIZES = ("version", "depth", "width", "root", "unit", "norm_groups")


def make(config: ModelConfig, image_size: int, image_channels: int, num_classes: int) -> ResnetSpec:
    """The spec of a config; see ResnetConfig for sizes that it leaves open."""
    root = config.root or ("cifar" if image_size < SMALL_IMAGE else "imagenet")
    depth = DEFAULT_DEPTH[root] if config.depth is None else config.depth
    if isinstance(depth, int):
        unit, depth = DEPTHS.get(depth, (config.unit or "bottleneck", ()))
    else:
        unit = config.unit or "bottleneck"
    width = config.width or (SMALL_WIDTH if unit == "basic" and len(depth) == 3 else WIDTH)
    return ResnetSpec(
        image_size=image_size,
        image_channels=image_channels,
        num_classes=config.num_classes or num_classes,
        patch_size=config.patch_size or default_patch_size(image_size),
        depth=depth,
        width=width,
        root=root,
        unit=unit,
        norm_groups=config.norm_groups or min(NORM_GROUPS, width),
        **{f.name: getattr(config, f.name) for f in fields(ResnetOptions)},
    )


def shallow(spec: ResnetSpec, num_blocks: int) -> ResnetSpec:
    """The model with so many units, the first ones of as many stages as can be, or with its own."""
    places = sorted((place, stage) for stage, num in enumerate(spec.depth) for place in range(num))
    stages = [stage for _, stage in places[:num_blocks]]
    return replace(spec, depth=tuple(stages.count(stage) for stage in sorted(set(stages))))


def first_layers(spec: ResnetSpec) -> dict[str, int | None]:
    """The first convolution."""
    return {"conv_root/kernel": None}


def variant_of(spec: ResnetSpec) -> str | None:
    """The variant whose sizes a model has; None: none has."""
    return next((name for name, own in VARIANTS.items() if own.get("family") == "resnet" and _is_like(spec, own)), None)


def _is_like(spec: ResnetSpec, own: Any) -> bool:
    named = make(ModelConfig(**own), spec.image_size, spec.image_channels, spec.num_classes)
    return all(getattr(named, name) == getattr(spec, name) for name in SIZES)


def sizes(spec: ResnetSpec) -> str:
    """`V2, bottleneck units 3 4 6 3, width 64, root imagenet`."""
    units = f"{spec.unit} units {' '.join(map(str, spec.depth))}"
    return f"{spec.version.upper()}, {units}, width {spec.width}, root {spec.root}"


def options(spec: ResnetSpec) -> list[str]:
    """How its norms are made."""
    return [f"norms of {spec.norm_groups} groups, epsilon {spec.norm_epsilon:g}", "standardised kernels"]
