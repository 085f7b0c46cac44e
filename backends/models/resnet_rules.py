"""Which sizes of a ResNet fit each other, and which of several specs that say the same is the plain one."""

from collections.abc import Iterator
from dataclasses import replace

from backends.models.config import ModelConfig
from backends.models.patches import divisors, listed, patch_faults
from backends.models.resnet_spec import DEPTHS, ResnetSpec


def faults(spec: ResnetSpec, config: ModelConfig) -> Iterator[str]:
    """Sentences on what does not fit; each begins with the field."""
    yield from patch_faults(spec)
    if isinstance(config.depth, int) and config.depth not in DEPTHS:
        yield (
            f"model.depth: no table has a ResNet of {config.depth} layers; expected one of {listed(list(DEPTHS))}, "
            f"or a list: the number of units of each stage, such as [3, 4, 6, 3]"
        )
    elif not spec.depth:
        yield "model.depth: expected a number of units for each stage, such as [3, 4, 6, 3], got none"
    elif isinstance(config.depth, int) and config.unit not in (None, spec.unit):
        yield (
            f"model.unit: a ResNet of {config.depth} layers has {spec.unit} units, got {config.unit!r}; leave it out, "
            f"or give model.depth as a list: [{listed(list(spec.depth))}]"
        )
    if spec.width % spec.norm_groups:
        yield (
            f"model.norm_groups: {spec.norm_groups} groups of each norm do not divide model.width {spec.width}; "
            f"allowed with it: {listed(divisors(spec.width))}; or make the width a multiple of {spec.norm_groups}"
        )


def plain(spec: ResnetSpec) -> ResnetSpec:
    """The same model in its plainest words: without rates of stochastic depth that change nothing."""
    return replace(spec, stochastic_depth=0.0, rescale=False) if spec.drops_none_of(sum(spec.depth)) else spec
