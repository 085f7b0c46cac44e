"""What is known of a model without running it: folds over its layers."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeVar

from backends.arrays import Shape
from backends.models import family_of
from backends.models.family import Layer, Param
from backends.specs import ModelSpec

T = TypeVar("T")


@lru_cache(maxsize=1024)
def layers(spec: ModelSpec) -> tuple[Layer, ...]:
    """Every layer of a model, in the order of the forward pass."""
    return tuple(family_of(spec).layers(spec))


@lru_cache(maxsize=1024)
def _params(spec: ModelSpec) -> dict[str, Param]:
    return {name: param for layer in layers(spec) for name, param in layer.param_names().items()}


def params(spec: ModelSpec) -> dict[str, Param]:
    """Each parameter by canonical name, in the order of the forward pass."""
    return dict(_params(spec))


def shapes(spec: ModelSpec) -> dict[str, Shape]:
    """Shape of each parameter by canonical name, in the order of the forward pass."""
    return {name: param.shape for name, param in _params(spec).items()}


def trained_shapes(spec: ModelSpec) -> dict[str, Shape]:
    """Shape of each parameter that training moves: all but the constants."""
    return {name: param.shape for name, param in _params(spec).items() if param.trained}


def constant_shapes(spec: ModelSpec) -> dict[str, Shape]:
    """Shape of each parameter that is drawn once, and that nothing moves."""
    return {name: param.shape for name, param in _params(spec).items() if not param.trained}


@lru_cache(maxsize=1024)
def uses(spec: ModelSpec) -> dict[str, str]:
    """The parameter that each layer reads under each name of its own; of a layer with other's weights another's name.

    `MixerBlock_1/token_mixing/Dense_0/kernel` reads that of `MixerBlock_0` where blocks share their token mixing.
    """
    parts = {layer.name: tuple(layer.params) for layer in layers(spec)}
    read = [(layer.name, layer.weights or layer.name) for layer in layers(spec)]
    return {_name(own, part): _name(holder, part) for own, holder in read for part in parts[holder]}


def spread(spec: ModelSpec, params: Mapping[str, T]) -> dict[str, T]:
    """Parameters under each name that a layer reads them by; see `uses`."""
    return {own: params[holder] for own, holder in uses(spec).items()}


def _name(layer: str, part: str) -> str:
    return "/".join(filter(None, (layer, part)))


@lru_cache(maxsize=1024)
def count(spec: ModelSpec) -> int:
    """Number of trained numbers, the head included; constants are not among them."""
    return sum(math.prod(shape) for shape in trained_shapes(spec).values())


@lru_cache(maxsize=1024)
def forward_macs(spec: ModelSpec) -> int:
    """Multiply-accumulates of the forward pass of one image, in matrix products only.

    Training takes about 6 FLOPs a MAC. Tied, untied and grouped mixing cost the same; learned views add S C C a block.
    """
    return sum(layer.macs for layer in layers(spec))


def training_flops(spec: ModelSpec, num_images: int) -> int:
    """FLOPs of training on so many images, in matrix products only: 2 a MAC forwards, 4 backwards."""
    return 6 * forward_macs(spec) * num_images


@lru_cache(maxsize=1024)
def dropout_sites(spec: ModelSpec) -> tuple[str, ...]:
    """Layers where dropout acts; the place of a name is the number of its site, see dropout.py."""
    return tuple(layer.name for layer in layers(spec) if layer.drops)


@lru_cache(maxsize=1024)
def branches(spec: ModelSpec) -> tuple[str, ...]:
    """Layers where stochastic depth acts; the place of a name is its row in StepPlan.branch_scales."""
    return tuple(layer.name for layer in layers(spec) if layer.branch)


@lru_cache(maxsize=1024)
def branch_depths(spec: ModelSpec) -> tuple[float, ...]:
    """How deep each branch lies, from 0 in the first block to 1 in the last."""
    of_branch = [layer.block for layer in layers(spec) if layer.branch]
    blocks = list(dict.fromkeys(of_branch))
    return tuple(blocks.index(block) / max(1, len(blocks) - 1) for block in of_branch)


def operations(spec: ModelSpec, stochastic_depth: bool) -> list[str]:
    """Names of what a training step computes up to its loss, in order.

    `images` and `targets` are those after augmentation, `head` the logits. Others are layers, such as a block's
    `token_mixing` and `channel_mixing`, which are the sums after the skip-connections.

    Args: stochastic_depth: whether the step draws masks for it.
    """
    inside = [layer.name for layer in layers(spec) if stochastic_depth or not layer.branch]
    return ["images", "targets", *inside, "loss"]


@lru_cache(maxsize=1024)
def has_kink(spec: ModelSpec) -> bool:
    """Whether the derivative of a layer jumps, as that of ReLU does."""
    return any(layer.kink for layer in layers(spec))


def hints(spec: ModelSpec) -> dict[str, str]:
    """What to look at first where two implementations part at a layer, by its name."""
    return {layer.name: layer.hint for layer in layers(spec)}
