"""Estimates of the memory that a model needs, to train and to predict."""

from functools import lru_cache

from backends.models.folds import count
from backends.specs import ModelSpec, OptimizerSpec
from backends.state import slots


@lru_cache(maxsize=1024)
def training_memory_bytes(
    model: ModelSpec, optimizer: OptimizerSpec, precision: str, batch_size: int, remat: bool = False
) -> int:
    """Estimate of the memory that a training step needs: state, gradients, and the activations kept for backward.

    Kept for each block: the inputs of both norms and both MLPs (4 S C), and each hidden layer before and after its
    activation (2 C D_S + 2 S D_C); everything else is made again or freed at once. With remat that is kept of one block
    at a time, and of the others their input.
    """
    master, working = _bytes(precision)
    state = count(model) * master * (2 + len(slots(optimizer)))
    s, c = model.num_tokens, model.hidden_dim
    block = 4 * s * c + 2 * c * model.tokens_mlp_dim + 2 * s * model.channels_mlp_dim
    blocks = model.num_blocks * s * c + block if remat else model.num_blocks * block
    return state + batch_size * working * (blocks + s * c + model.image_size**2 * model.image_channels)


def prediction_memory_bytes(model: ModelSpec, optimizer: OptimizerSpec, precision: str, batch_size: int) -> int:
    """The same of a forward pass of so many images: the state, and the widest layer before and after its activation."""
    master, working = _bytes(precision)
    state = count(model) * master * (1 + len(slots(optimizer)))
    s, c = model.num_tokens, model.hidden_dim
    widest = 2 * s * c + 2 * max(s * model.channels_mlp_dim, c * model.tokens_mlp_dim)
    return state + batch_size * (working * widest + master * model.image_size**2 * model.image_channels)


def _bytes(precision: str) -> tuple[int, int]:
    """Of a number of the state, and of one in a product."""
    master = 8 if precision == "float64" else 4
    return master, 2 if precision == "bfloat16" else master
