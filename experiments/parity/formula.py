"""One optimizer step in NumPy, as the contract defines it, and with one term changed at a time."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backends.arrays import Array, State
from backends.specs import OptimizerSpec


@dataclass(frozen=True)
class Step:
    """A step's numbers, and the terms that may be changed."""

    spec: OptimizerSpec
    rate: float
    corrections: Array  # (2,)
    step: int  # counts from 1
    kernels: frozenset[str]  # parameters that decay where kernels alone do
    clip: str = "norm"  # of all parameters; tensor: each by its own; value: number by number; always: also a small norm
    clip_epsilon: float = 0.0
    coupled: bool = False
    rate_free_decay: bool = False
    mask: Callable[[str], bool] | None = None  # which parameters decay, in place of the spec's choice
    dampening: float = 0.0
    inside_root: bool = False
    late_average: bool = False
    in_float32: tuple[str, ...] = ()  # the decays whose distance from 1 is rounded

    def complement(self, name: str) -> float:
        """The distance from 1 of a decay of the spec: b1, b2 or ema_decay."""
        decay = getattr(self.spec, name)
        return float(np.float32(1) - np.float32(decay)) if name in self.in_float32 else 1 - decay

    def decays(self, name: str) -> bool:
        """Whether weight decay acts on a parameter."""
        return self.mask(name) if self.mask else self.spec.decay == "all" or name in self.kernels


def apply(step: Step, state: State, gradient: State) -> State:
    """The state after a step, tensor by tensor in float64; the arithmetic of backends/*/optimizer.py.

    Args: gradient: before clipping, by parameter name.
    """
    spec, after, clipped = step.spec, State(), clip(step, gradient)
    for name, g in clipped.items():
        p = state[f"params/{name}"]
        decay = spec.weight_decay * p if step.decays(name) else np.zeros(())
        moments, update = (_adamw if spec.optimizer == "adamw" else _sgd)(
            step, state, name, g + decay if step.coupled else g
        )
        rate = 1.0 if step.rate_free_decay else step.rate
        after |= moments
        after[f"params/{name}"] = p - step.rate * update - (0.0 if step.coupled else rate * decay)
        if spec.ema_decay:
            average, new = state[f"average/{name}"], p if step.late_average else after[f"params/{name}"]
            after[f"average/{name}"] = average + step.complement("ema_decay") * (new - average)
    return after


def norm(arrays: State) -> float:
    """The norm of all arrays together, in float64."""
    return float(np.sqrt(sum(float((x.astype(np.float64) ** 2).sum()) for x in arrays.values())))


def clip(step: Step, gradient: State) -> State:
    """The gradient in float64, after clipping."""
    limit, gradient = step.spec.clip_norm, {name: g.astype(np.float64) for name, g in gradient.items()}
    if not limit:
        return gradient
    if step.clip == "value":
        return {name: np.clip(g, -limit, limit) for name, g in gradient.items()}
    norms = dict.fromkeys(gradient, norm(gradient))
    if step.clip == "tensor":
        norms = {name: norm({name: g}) for name, g in gradient.items()}
    least = 0.0 if step.clip == "always" else limit
    return {name: limit / max(norms[name] + step.clip_epsilon, least) * g for name, g in gradient.items()}


def _adamw(step: Step, state: State, name: str, g: Array) -> tuple[State, Array]:
    """The new moments of a parameter, and the direction of Adam."""
    spec = step.spec
    first = spec.b1 * state[f"first_moment/{name}"] + step.complement("b1") * g
    second = spec.b2 * state[f"second_moment/{name}"] + step.complement("b2") * g * g
    corrected = second * step.corrections[1]
    root = np.sqrt(corrected + spec.epsilon) if step.inside_root else np.sqrt(corrected) + spec.epsilon
    return {f"first_moment/{name}": first, f"second_moment/{name}": second}, first * step.corrections[0] / root


def _sgd(step: Step, state: State, name: str, g: Array) -> tuple[State, Array]:
    """The new momentum of a parameter, and the direction of SGD."""
    momentum = step.spec.momentum * state[f"momentum/{name}"] + (1 - step.dampening) * g
    return {f"momentum/{name}": momentum}, g + step.spec.momentum * momentum if step.spec.nesterov else momentum
