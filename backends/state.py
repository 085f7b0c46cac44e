"""The training state: names and shapes of its arrays, and the arrays that it begins with."""

import numpy as np

from backends.arrays import Shape, State
from backends.models import folds
from backends.models.family import Uniforms
from backends.specs import ModelSpec, OptimizerSpec


def state_shapes(model: ModelSpec, optimizer: OptimizerSpec) -> dict[str, Shape]:
    """Shape of each array of a training state: `params/<name>`, then `<slot>/<name>` for each slot."""
    groups = ("params", *slots(optimizer))
    return {f"{group}/{name}": shape for group in groups for name, shape in folds.shapes(model).items()}


def slots(optimizer: OptimizerSpec) -> tuple[str, ...]:
    """Names of the arrays that are kept beside each parameter: its moments, and its average where there is one."""
    moments = ("first_moment", "second_moment") if optimizer.optimizer == "adamw" else ("momentum",)
    return (*moments, "average") if optimizer.ema_decay else moments


def decayed_params(model: ModelSpec, decay: str) -> dict[str, bool]:
    """Whether weight decay acts on each parameter: on kernels only, or on all."""
    return {name: decay == "all" or param.decayed for name, param in folds.params(model).items()}


def draw_state(model: ModelSpec, optimizer: OptimizerSpec, uniforms: Uniforms) -> State:
    """A state to begin with: parameters as their layers declare them, moments of zero, the average equal to them.

    Args:    uniforms: (name, shape) -> float64 in [0, 1), drawn for this parameter.
    Returns: float64 arrays by state name; a backend rounds them to its precision.
    """
    params = {name: param.init.draw(name, param.shape, uniforms) for name, param in folds.params(model).items()}
    state = {f"params/{name}": value for name, value in params.items()}
    for slot in slots(optimizer):
        # A zero for all places of an array: as many as those of the parameters would be twice or thrice their memory.
        zeros = {name: np.broadcast_to(0.0, value.shape) for name, value in params.items()}
        state |= {f"{slot}/{name}": value for name, value in (params if slot == "average" else zeros).items()}
    return state
