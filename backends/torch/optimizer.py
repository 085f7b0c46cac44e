"""What one step does with the gradient, on all parameters as one flat array (replicas, n), decayed ones first."""

import torch
from torch import Tensor

from backends.specs import OptimizerSpec

State = dict[str, Tensor]  # params and each slot

CPU_PART = 2**18  # parameters at a time: what a step makes of them stays in a core's cache


@torch.no_grad()
def apply_gradient(
    spec: OptimizerSpec,
    state: State,
    gradient: Tensor,
    rate: Tensor,
    corrections: Tensor,
    num_decayed: int,
    norm: Tensor | None = None,
) -> Tensor:
    """Update the state in place, and return the norm of the gradient before clipping, (replicas,).

    Args: rate: (replicas,).    corrections: (replicas, 2), 1 / (1 - b1^t) and 1 / (1 - b2^t).
          num_decayed: leading parameters that weight decay acts on.    norm: where it is known.
          state: without `average`, the average stays as it is.
    """
    if norm is None:
        norm = gradient.norm(dim=1)
    factor = (spec.clip_norm / norm.clamp(min=spec.clip_norm))[:, None] if spec.clip_norm else None
    size = CPU_PART if gradient.device.type == "cpu" else gradient.shape[1]
    for first in range(0, gradient.shape[1], size):
        part = gradient[:, first : first + size]
        state_part = {name: flat[:, first : first + size] for name, flat in state.items()}
        clipped = part if factor is None else part * factor
        _update(spec, state_part, clipped, rate, corrections, max(0, num_decayed - first))
    return norm


def _update(
    spec: OptimizerSpec, state: State, gradient: Tensor, rate: Tensor, corrections: Tensor, num_decayed: int
) -> None:
    """Take the step of some of the parameters, in place, with their clipped gradient."""
    update = adamw(spec, state, gradient, corrections) if spec.optimizer == "adamw" else sgd(spec, state, gradient)
    params = state["params"]
    if spec.weight_decay:
        update[:, :num_decayed] += spec.weight_decay * params[:, :num_decayed]
    params -= rate[:, None] * update
    if "average" in state:
        follow(spec, state)


@torch.no_grad()
def follow(spec: OptimizerSpec, state: State) -> None:
    """Move the average towards the parameters, in place."""
    state["average"].add_(state["params"] - state["average"], alpha=1 - spec.ema_decay)


def adamw(spec: OptimizerSpec, state: State, gradient: Tensor, corrections: Tensor) -> Tensor:
    """The direction of Adam.  Source: arXiv 1412.6980, algorithm 1; decay apart from it: arXiv 1711.05101."""
    first = state["first_moment"].mul_(spec.b1).add_(gradient, alpha=1 - spec.b1)
    second = state["second_moment"].mul_(spec.b2).addcmul_(gradient, gradient, value=1 - spec.b2)
    return (first * corrections[:, :1]) / ((second * corrections[:, 1:]).sqrt_() + spec.epsilon)


def sgd(spec: OptimizerSpec, state: State, gradient: Tensor) -> Tensor:
    """The direction of SGD with momentum: m <- momentum m + g."""
    momentum = state["momentum"].mul_(spec.momentum).add_(gradient)
    return gradient + spec.momentum * momentum if spec.nesterov else momentum.clone()  # the update is changed in place
