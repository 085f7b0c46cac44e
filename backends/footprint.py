"""Estimates of the memory that a model needs, to train and to predict: folds over its layers."""

from functools import lru_cache
from math import prod

from backends.models.folds import count, layers
from backends.specs import ModelSpec, OptimizerSpec
from backends.state import slots


@lru_cache(maxsize=1024)
def training_memory_bytes(
    model: ModelSpec, optimizer: OptimizerSpec, precision: str, batch_size: int, remat: bool = False
) -> int:
    """Bytes of a training step: state, gradients, and the activations that layers keep for the backward pass.

    Norms, Dense layers and activations keep their inputs; everything else is made again or freed at once. With remat,
    one block at a time keeps these, and every other block keeps its input alone.
    """
    master, working = _bytes(precision)
    state = count(model) * master * (2 + len(slots(optimizer)))
    return state + batch_size * working * (_kept_with_remat(model) if remat else sum(x.kept for x in layers(model)))


def _kept_with_remat(model: ModelSpec) -> int:
    """Numbers kept of one image with remat: those outside of blocks, of the largest block, and the blocks' inputs."""
    outside, inputs, blocks = 0, 0, dict[str, int]()
    before = None
    for layer in layers(model):
        if not layer.block:
            outside += layer.kept
        else:
            if layer.block not in blocks and before is not None:
                inputs += prod(before.output)
            blocks[layer.block] = blocks.get(layer.block, 0) + layer.kept
        before = layer
    return outside + inputs + max(blocks.values(), default=0)


def prediction_memory_bytes(model: ModelSpec, optimizer: OptimizerSpec, precision: str, batch_size: int) -> int:
    """Bytes of a forward pass of so many images.

    Counted are the state, the images, the stream of a residual block and its norm, and the widest output beside the
    value that it is made from.
    """
    master, working = _bytes(precision)
    state = count(model) * master * (1 + len(slots(optimizer)))
    stream = max((prod(layer.output) for layer in layers(model) if layer.branch), default=0)
    widest = 2 * stream + 2 * max(prod(layer.output) for layer in layers(model) if layer.block)
    return state + batch_size * (working * widest + master * model.image_size**2 * model.image_channels)


def _bytes(precision: str) -> tuple[int, int]:
    """Bytes of a number of the state, and of one in a product."""
    master = 8 if precision == "float64" else 4
    return master, 2 if precision == "bfloat16" else master
