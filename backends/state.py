"""The training state: names and shapes of its arrays, and the arrays that it begins with."""

from collections.abc import Callable

from backends.arrays import Array, Shape, State
from backends.models.folds import initial, shapes
from backends.specs import ModelSpec, OptimizerSpec


def state_shapes(model: ModelSpec, optimizer: OptimizerSpec) -> dict[str, Shape]:
    """Shape of each array of a training state: `params/<name>`, then `<slot>/<name>` for each slot."""
    groups = ("params", *slots(optimizer))
    return {f"{group}/{name}": shape for group in groups for name, shape in shapes(model).items()}


def slots(optimizer: OptimizerSpec) -> tuple[str, ...]:
    """What is kept beside each parameter: moments, and the average where there is one."""
    moments = ("first_moment", "second_moment") if optimizer.optimizer == "adamw" else ("momentum",)
    return (*moments, "average") if optimizer.ema_decay else moments


def is_decayed(name: str, decay: str) -> bool:
    """Whether weight decay acts on a parameter: on kernels only, or on all."""
    return decay == "all" or name.endswith("kernel")


def draw_state(model: ModelSpec, optimizer: OptimizerSpec, uniforms: Callable[[str, Shape], Array]) -> State:
    """Parameters as the authors draw them, moments zero, the average equal to the parameters.

    Kernels: normal cut at two sigma with variance 1 / fan_in; the head's kernel and all biases zero; scales one; the
    position embedding normal with standard deviation 0.02 before it is cut likewise.

    Args:    uniforms: (name, shape) -> float64 in [0, 1), drawn for this parameter.
    Returns: float64 arrays by state name; a backend rounds them to its precision.
    Source:  google-research/vision_transformer, models_mixer.py.
    """
    params = {name: initial(name, shape, uniforms) for name, shape in shapes(model).items()}
    state = {f"params/{name}": value for name, value in params.items()}
    for slot in slots(optimizer):
        state |= {f"{slot}/{name}": value if slot == "average" else 0 * value for name, value in params.items()}
    return state
