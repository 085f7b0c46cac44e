"""The training state: names and shapes of its arrays, and the arrays that it begins with.

A parameter that is not trained is in `params/` alone: it has no slots, and no step moves it.
"""

from math import prod

import numpy as np

from backends.arrays import Shape, State
from backends.models import folds
from backends.models.family import Uniforms
from backends.specs import ModelSpec, OptimizerSpec


def state_shapes(model: ModelSpec, optimizer: OptimizerSpec) -> dict[str, Shape]:
    """Shape of each array of a training state: `params/<name>`, then `<slot>/<name>` for each slot."""
    arrays = groups(model, optimizer).items()
    return {f"{group}/{name}": shape for group, named in arrays for name, shape in named.items()}


def groups(model: ModelSpec, optimizer: OptimizerSpec) -> dict[str, dict[str, Shape]]:
    """Shapes of the arrays of `params` and of each slot, by parameter name."""
    return {"params": folds.shapes(model)} | dict.fromkeys(slots(optimizer), folds.trained_shapes(model))


def state_size(model: ModelSpec, optimizer: OptimizerSpec, num_shares: int = 1) -> int:
    """How many numbers a training state has, as a process holds it.

    Args: num_shares: of the moments, of which it has one.
    """
    sizes = {group: sum(map(prod, named.values())) for group, named in groups(model, optimizer).items()}
    if num_shares == 1:
        return sum(sizes.values())
    own = sum(sizes.pop(group) for group in moments(optimizer))
    return sum(sizes.values()) + -(-own // num_shares)


def moments(optimizer: OptimizerSpec) -> tuple[str, ...]:
    """Names of the arrays of each trained parameter that the optimizer alone reads, of which a group may share out."""
    return ("first_moment", "second_moment") if optimizer.optimizer == "adamw" else ("momentum",)


def slots(optimizer: OptimizerSpec) -> tuple[str, ...]:
    """Names of the arrays that are kept beside each trained parameter: its moments, and its average if there is one."""
    own = moments(optimizer)
    return (*own, "average") if optimizer.ema_decay else own


def evaluated_arrays(model: ModelSpec, optimizer: OptimizerSpec) -> dict[str, str]:
    """The array of the state that evaluations read for each parameter: its average where one is kept."""
    group = "average" if optimizer.ema_decay else "params"
    return {name: f"{group if param.trained else 'params'}/{name}" for name, param in folds.params(model).items()}


def decayed_params(model: ModelSpec, decay: str) -> dict[str, bool]:
    """Whether weight decay acts on each trained parameter: on kernels only, or on all."""
    trained = {name: param for name, param in folds.params(model).items() if param.trained}
    return {name: decay == "all" or param.decayed for name, param in trained.items()}


def flat_order(model: ModelSpec, decay: str) -> tuple[dict[str, Shape], int]:
    """Shapes of the trained parameters, those first that weight decay acts on, and how many numbers these have."""
    decayed, shapes = decayed_params(model, decay), folds.trained_shapes(model)
    ordered = {name: shapes[name] for name in sorted(decayed, key=lambda name: not decayed[name])}
    return ordered, sum(prod(shape) for name, shape in ordered.items() if decayed[name])


def draw_state(model: ModelSpec, optimizer: OptimizerSpec, uniforms: Uniforms) -> State:
    """A state to begin with: parameters as their layers declare them, moments of zero, the average equal to them.

    Args:    uniforms: (name, shape) -> float64 in [0, 1), drawn for this parameter.
    Returns: float64 arrays by state name; a backend rounds them to its precision.
    """
    params = {name: param.init.draw(name, param.shape, uniforms) for name, param in folds.params(model).items()}
    state = {f"params/{name}": value for name, value in params.items()}
    for slot in slots(optimizer):
        # A zero for all places of an array: as many as those of the parameters would be twice or thrice their memory.
        trained = {name: params[name] for name in folds.trained_shapes(model)}
        zeros = {name: np.broadcast_to(0.0, value.shape) for name, value in trained.items()}
        state |= {f"{slot}/{name}": value for name, value in (trained if slot == "average" else zeros).items()}
    return state
