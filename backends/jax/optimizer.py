"""What one step does with the gradient, built from Optax."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from backends.specs import OptimizerSpec

State = dict[str, dict[str, Array]]  # params and each slot, by parameter name
Scalars = dict[str, Array]  # the numbers of OptimizerSpec.scalars, and the complements that float32 would round


def apply_gradient(
    spec: OptimizerSpec,
    scalars: Scalars,
    state: State,
    gradient: dict[str, Array],
    rate: Array,
    corrections: Array,
    decayed: dict[str, Any],
    norm: Array | None = None,
) -> tuple[State, Array]:
    """The next state, and the norm of the gradient before clipping.

    Args: corrections: (2,), 1 / (1 - b1^t) and 1 / (1 - b2^t).
          decayed: whether weight decay acts, by parameter, or for each of its numbers.    norm: where it is known.
          state: without `average`, the average stays as it is.
    """
    if norm is None:
        norm = optax.tree.norm(gradient)
    if spec.clip_norm:
        gradient = optax.tree.scale(scalars["clip_norm"] / jnp.maximum(norm, scalars["clip_norm"]), gradient)
    direction = adamw if spec.optimizer == "adamw" else sgd
    update, moments = direction(spec, scalars, state, gradient, corrections)
    params = {name: state["params"][name] for name in gradient}  # the others are constants
    if spec.weight_decay:
        more = optax.tree.add_scale(update, scalars["weight_decay"], params)
        update = jax.tree.map(jnp.where, decayed, more, update)
    params = optax.apply_updates(params, optax.tree.scale(-rate, update))
    if "average" in state:
        moments["average"] = followed(scalars, state["average"], params)
    return {"params": state["params"] | params, **moments}, norm


def followed(scalars: Scalars, average: dict[str, Array], params: dict[str, Array]) -> dict[str, Array]:
    """The average, moved towards the parameters."""
    step = optax.tree.scale(scalars["1 - ema_decay"], optax.tree.sub(params, average))
    moved: dict[str, Array] = optax.tree.add(average, step)
    return moved


def adamw(
    spec: OptimizerSpec, scalars: Scalars, state: State, gradient: dict[str, Array], corrections: Array
) -> tuple[dict[str, Array], State]:
    """The direction of Adam.  Source: arXiv 1412.6980, algorithm 1; decay apart from it: arXiv 1711.05101."""
    first = jax.tree.map(lambda m, g: scalars["b1"] * m + scalars["1 - b1"] * g, state["first_moment"], gradient)
    second = jax.tree.map(lambda v, g: scalars["b2"] * v + scalars["1 - b2"] * g * g, state["second_moment"], gradient)
    update = jax.tree.map(
        lambda m, v: (m * corrections[0]) / (jnp.sqrt(v * corrections[1]) + scalars["epsilon"]), first, second
    )
    return update, {"first_moment": first, "second_moment": second}


def sgd(spec: OptimizerSpec, scalars: Scalars, state: State, gradient: dict[str, Array], _: Any) -> tuple[Any, State]:
    """The direction of SGD with momentum: m <- momentum m + g."""
    momentum = optax.trace(decay=scalars["momentum"], nesterov=spec.nesterov)
    update, trace = momentum.update(gradient, optax.TraceState(trace=state["momentum"]))
    return update, {"momentum": trace.trace}
