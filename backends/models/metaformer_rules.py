"""Which options of a MetaFormer fit each other, and which of several specs that say the same is the plain one."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from backends.models.config import ModelConfig
from backends.models.metaformer_spec import MetaFormerSpec
from backends.models.patches import listed, patch_faults


def faults(spec: MetaFormerSpec, config: ModelConfig) -> Iterator[str]:
    """Sentences on what does not fit; each begins with the field."""
    yield from patch_faults(spec)
    if not spec.depths:
        yield "model.depths: expected the number of blocks of each stage, got an empty list"
        return
    stages = f"{spec.num_stages}, one a stage (model.depths)"
    if len(spec.dims) != spec.num_stages:
        yield f"model.dims: expected as many numbers as there are stages: {stages}; got {len(spec.dims)}"
    if len(spec.mixers) != spec.num_stages:
        yield f"model.token_mixers: expected one word for all stages, or {stages}; got {len(spec.mixers)}"
    scaled, last = spec.scaled_stages, spec.num_stages - 1
    if len(set(scaled)) < len(scaled) or max(scaled, default=0) > last:
        got = listed(list(scaled))
        yield f"model.scaled_stages: expected numbers of stages from 0 to {last}, each once, got [{got}]"


def plain(spec: MetaFormerSpec) -> MetaFormerSpec:
    """The same model in its plainest words, where several say the same; see the rules of a Mixer."""
    same: dict[str, Any] = {"scaled_stages": tuple(sorted(spec.scaled_stages))}
    same["token_mixers"] = spec.mixers[0] if len(set(spec.mixers)) == 1 else spec.mixers
    if spec.drops_none_of(sum(spec.depths)):
        same |= {"stochastic_depth": 0.0, "rescale": False}
    return replace(spec, **same)
