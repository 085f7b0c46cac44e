"""The MetaFormer in stages, PoolFormer and the later baselines: how its spec is made, and told in words."""

from dataclasses import replace
from itertools import islice
from typing import Any

from backends.models.config import ModelConfig
from backends.models.metaformer_layers import layers as layers
from backends.models.metaformer_rules import faults as faults
from backends.models.metaformer_rules import plain as plain
from backends.models.metaformer_spec import MetaFormerConfig, MetaFormerSpec
from backends.models.variants import variant_of as variant_of
from backends.specs import ModelSpec

Spec: type[ModelSpec] = MetaFormerSpec
Config: type[Any] = MetaFormerConfig
STRIDE = 4  # of the stem.  Source: arXiv 2111.11418, table 1
LAYER_SCALE = {"poolformer": 1e-5, "baseline": 0.0}  # Source: timm, models/metaformer.py, poolformer_s12
FIRST_SCALED = 2  # stage of a baseline.  Source: arXiv 2210.13452, appendix A: ResScale in the last two of four


def make(config: ModelConfig, image_size: int, image_channels: int, num_classes: int) -> MetaFormerSpec:
    """The spec of a config. What it leaves open is as in the public code of the block."""
    scaled = range(FIRST_SCALED, len(config.depths)) if config.metaformer == "baseline" else ()
    return MetaFormerSpec(
        image_size=image_size,
        image_channels=image_channels,
        num_classes=config.num_classes or num_classes,
        patch_size=config.patch_size or STRIDE,
        metaformer=config.metaformer,
        depths=config.depths,
        dims=config.dims,
        token_mixers=config.token_mixers,
        layer_scale=LAYER_SCALE[config.metaformer] if config.layer_scale is None else config.layer_scale,
        scaled_stages=tuple(scaled) if config.scaled_stages is None else config.scaled_stages,
        dropout=config.dropout,
        stochastic_depth=config.stochastic_depth,
        rescale=config.rescale,
    )


def shallow(spec: MetaFormerSpec, num_blocks: int) -> MetaFormerSpec:
    """The model with so many blocks, or with its own where these are fewer: one in each of the first stages at least.

    Blocks are given to the stages in turn, so that two blocks show a downsampling too.
    """
    turns = ((i, stage) for i in range(max(spec.depths)) for stage in range(spec.num_stages) if i < spec.depths[stage])
    given = [stage for _, stage in islice(turns, num_blocks)]
    num = len(set(given))
    return replace(
        spec,
        depths=tuple(given.count(stage) for stage in range(num)),
        dims=spec.dims[:num],
        token_mixers=spec.mixers[:num],
        scaled_stages=tuple(stage for stage in spec.scaled_stages if stage < num),
    )


def first_layers(spec: MetaFormerSpec) -> dict[str, int | None]:
    """The stem."""
    return {"stem/kernel": None}


def sizes(spec: MetaFormerSpec) -> str:
    """`depths 2 2 6 2, dims 64 128 320 512, patch size 4`."""
    return f"depths {_listed(spec.depths)}, dims {_listed(spec.dims)}, patch size {spec.patch_size}"


def options(spec: MetaFormerSpec) -> list[str]:
    """The block, its token mixing, and its factors."""
    words = [f"block of a {spec.metaformer}", f"token mixing {_listed(dict.fromkeys(spec.mixers))}"]
    if len(set(spec.mixers)) > 1:
        words[1] = f"token mixing {_listed(spec.mixers)}"
    words.append(f"layer scale {spec.layer_scale:g}" if spec.layer_scale else "no layer scale")
    return words + [f"scaled stages {_listed(spec.scaled_stages)}"] * bool(spec.scaled_stages)


def _listed(values: Any) -> str:
    return " ".join(map(str, values))
