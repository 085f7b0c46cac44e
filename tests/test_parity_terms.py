"""The optimizer term at fault is named: one is changed in one side's code, in each framework, and the ladder names it.

A fault that rounding hides where both sides are compared is found where a side is held to the formula: float32 and
bfloat16 keep parameters and moments in float32, so that a step's arithmetic is as exact in one as in the other.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp

import backends
from backends import state as backend_state
from backends.jax import optimizer as jax_optimizer
from backends.jax import traced as jax_train
from backends.models import folds
from backends.state import decayed_params
from backends.torch import optimizer as torch_optimizer
from experiments.parity import side
from experiments.parity.job import Job
from tests.parity_bench import (
    LONG,
    TRIALS,
    Plant,
    climbed,
    forget,
    job,
    on_jax_optimizer,
    on_torch_optimizer,
)

BOTH = ("float32", "bfloat16")
SHORT = {name: {**changes, "model": {"num_blocks": 1}} for name, changes in TRIALS.items()}  # compiled sooner


@dataclass(frozen=True)
class Fault:
    """What is planted in each framework, and the words that name it."""

    plants: dict[str, Plant]
    words: str
    trial: str = "adamw"
    precisions: tuple[str, ...] = ("float32",)
    rungs: tuple[str, ...] = ("step", "moments", "formula")  # that may be the first to fail


FAULTS: dict[str, Fault] = {}


def number(field: str, change: Callable[[float], float]) -> dict[str, Plant]:
    """The optimizer takes another number for one of the spec's."""

    def in_torch(apply: Any, spec: Any, *rest: Any) -> Any:
        return apply(dataclasses.replace(spec, **{field: change(getattr(spec, field))}), *rest)

    def in_jax(apply: Any, spec: Any, scalars: Any, *rest: Any) -> Any:
        value = change(scalars[field])
        complement = {f"1 - {field}": 1 - value} if f"1 - {field}" in scalars else {}
        return apply(spec, {**scalars, field: value, **complement}, *rest)

    return {"torch": on_torch_optimizer(in_torch), "jax": on_jax_optimizer(in_jax)}


def on_gradient(in_torch: Callable[[Any, Any], Any], in_jax: Callable[[Any, Any], Any]) -> dict[str, Plant]:
    """The gradient is clipped by another rule: (gradient, the norm to clip to) -> gradient."""

    def torch_apply(apply: Any, spec: Any, state: Any, g: Any, *rest: Any) -> Any:
        apply(dataclasses.replace(spec, clip_norm=0.0), state, in_torch(g, spec.clip_norm), *rest)
        return g.norm(dim=1)

    def jax_apply(apply: Any, spec: Any, scalars: Any, state: Any, g: Any, *rest: Any) -> Any:
        total = jnp.sqrt(sum(jnp.sum(x * x) for x in g.values()))
        clipped = in_jax(g, scalars["clip_norm"])
        after, _ = apply(dataclasses.replace(spec, clip_norm=0.0), scalars, state, clipped, *rest)
        return after, total

    return {"torch": on_torch_optimizer(torch_apply), "jax": on_jax_optimizer(jax_apply)}


def decayed(change: Callable[[str, bool], bool]) -> dict[str, Plant]:
    """Other parameters decay."""

    def changed(model: Any, decay: str) -> dict[str, bool]:
        return {name: change(name, decays) for name, decays in decayed_params(model, decay).items()}

    return {
        "torch": lambda patch: patch.setattr(backend_state, "decayed_params", changed),
        "jax": lambda patch: patch.setattr(jax_train, "decayed_params", changed),
    }


def rounded_average() -> dict[str, Plant]:
    """1 - ema_decay is computed in float32."""

    def in_torch(apply: Any, spec: Any, state: Any, *rest: Any) -> Any:
        average, too_much = state["average"].clone(), float(1 - torch.tensor(spec.ema_decay)) - (1 - spec.ema_decay)
        found = apply(spec, state, *rest)
        state["average"] += too_much * (state["params"] - average)
        return found

    def in_jax(apply: Any, spec: Any, scalars: Any, *rest: Any) -> Any:
        rounded = 1 - scalars["ema_decay"].astype("float32")
        return apply(spec, {**scalars, "1 - ema_decay": rounded}, *rest)

    return {"torch": on_torch_optimizer(in_torch), "jax": on_jax_optimizer(in_jax)}


def all_rounded(apply: Any, spec: Any, scalars: Any, *rest: Any) -> Any:
    """1 - decay is left to the device, for each decay."""
    complements = {f"1 - {name}": 1 - scalars[name].astype("float32") for name in ("b1", "b2", "ema_decay")}
    return apply(spec, {**scalars, **complements}, *rest)


def per_tensor(g: Any, limit: Any) -> Any:
    """torch: a flat gradient is cut into its tensors, those that decay first."""
    model = job(SHORT["adamw"], Path(), Path(), "float32").trial.model
    shapes, decays = folds.shapes(model), decayed_params(model, "kernels")
    sizes = [int(np.prod(shapes[n])) for n in sorted(shapes, key=lambda n: not decays[n])]
    return torch.cat([x * (limit / x.norm(dim=1, keepdim=True).clamp(min=limit)) for x in g.split(sizes, 1)], 1)


def dampened_torch(spec: Any, state: Any, gradient: Any) -> Any:
    momentum = state["momentum"].mul_(spec.momentum).add_(gradient, alpha=1 - spec.momentum)
    return gradient + spec.momentum * momentum


def dampened_jax(spec: Any, scalars: Any, state: Any, gradient: Any, _: Any) -> Any:
    mu = scalars["momentum"]
    momentum = jax.tree.map(lambda m, g: mu * m + (1 - mu) * g, state["momentum"], gradient)
    return jax.tree.map(lambda m, g: g + mu * m, momentum, gradient), {"momentum": momentum}


def still_average_torch(apply: Any, spec: Any, state: Any, *rest: Any) -> Any:
    return apply(spec, {name: flat for name, flat in state.items() if name != "average"}, *rest)


def still_average_jax(apply: Any, spec: Any, scalars: Any, state: Any, *rest: Any) -> Any:
    after, norm = apply(spec, scalars, state, *rest)
    return {**after, "average": state["average"]}, norm


def free_decay_torch(apply: Any, spec: Any, state: Any, g: Any, rate: Any, corrections: Any, num: int) -> Any:
    before = state["params"][:, :num].clone()
    without = {name: flat for name, flat in state.items() if name != "average"}
    found = apply(dataclasses.replace(spec, weight_decay=0.0), without, g, rate, corrections, num)
    state["params"][:, :num] -= spec.weight_decay * before
    state["average"].add_(state["params"] - state["average"], alpha=1 - spec.ema_decay)
    return found


def free_decay_jax(apply: Any, spec: Any, scalars: Any, state: Any, g: Any, rate: Any, *rest: Any) -> Any:
    return apply(spec, {**scalars, "weight_decay": scalars["weight_decay"] / rate}, state, g, rate, *rest)


def rate(factor: float) -> dict[str, Plant]:
    def in_torch(apply: Any, spec: Any, state: Any, g: Any, rate: Any, *rest: Any) -> Any:
        return apply(spec, state, g, factor * rate, *rest)

    def in_jax(apply: Any, spec: Any, scalars: Any, state: Any, g: Any, rate: Any, *rest: Any) -> Any:
        return apply(spec, scalars, state, g, factor * rate, *rest)

    return {"torch": on_torch_optimizer(in_torch), "jax": on_jax_optimizer(in_jax)}


def one_correction(which: int) -> dict[str, Plant]:
    """The bias of one moment is not corrected."""

    def in_torch(apply: Any, spec: Any, state: Any, g: Any, rate: Any, corrections: Any, num: int) -> Any:
        corrections = corrections.clone()
        corrections[:, which] = 1
        return apply(spec, state, g, rate, corrections, num)

    def in_jax(apply: Any, spec: Any, scalars: Any, state: Any, g: Any, rate: Any, corrections: Any, *rest: Any) -> Any:
        return apply(spec, scalars, state, g, rate, corrections.at[which].set(1), *rest)

    return {"torch": on_torch_optimizer(in_torch), "jax": on_jax_optimizer(in_jax)}


DAMPENED: dict[str, Plant] = {
    "torch": lambda patch: patch.setattr(torch_optimizer, "sgd", dampened_torch),
    "jax": lambda patch: patch.setattr(jax_optimizer, "sgd", dampened_jax),
}
EACH_TENSOR = on_gradient(
    per_tensor,
    lambda g, limit: {n: x * limit / jnp.maximum(jnp.linalg.norm(x.ravel()), limit) for n, x in g.items()},
)
EACH_NUMBER = on_gradient(
    lambda g, limit: g.clamp(-limit, limit), lambda g, limit: {n: jnp.clip(x, -limit, limit) for n, x in g.items()}
)
SCALED_UP = on_gradient(
    lambda g, limit: g * (limit / g.norm(dim=1))[:, None],
    lambda g, limit: {n: x * limit / jnp.sqrt(sum(jnp.sum(y * y) for y in g.values())) for n, x in g.items()},
)
WARM = number("ema_decay", lambda _: 7 / 16)  # (1 + t) / (10 + t) at the sixth step
NOT_HEAD = decayed(lambda name, usual: usual and name != "head/kernel")
STILL = {"torch": on_torch_optimizer(still_average_torch), "jax": on_jax_optimizer(still_average_jax)}
FREE = {"torch": on_torch_optimizer(free_decay_torch), "jax": on_jax_optimizer(free_decay_jax)}
ROUNDED = ("formula",)  # what both sides alone would not show

FAULTS |= {
    "a rate 1.02 times too high": Fault(rate(1.02), "takes 1.02 times the learning rate", precisions=BOTH),
    "decay 1.2 times too strong": Fault(
        number("weight_decay", lambda x: 1.2 * x), "takes 0.06 for weight_decay, which is 0.05", precisions=BOTH
    ),
    "decay without the rate": Fault(FREE, "decays the weights without the learning rate"),
    "biases decay": Fault(decayed(lambda name, usual: usual or name.endswith("bias")), "decays biases too"),
    "the head does not decay": Fault(NOT_HEAD, "does not decay the head's kernel", precisions=BOTH),
    "dampening": Fault(DAMPENED, "dampens the momentum by itself", "sgd", precisions=BOTH),
    "another momentum": Fault(number("momentum", lambda _: 0.95), "takes 0.95 for momentum, which is 0.9", "sgd"),
    "each tensor clipped": Fault(EACH_TENSOR, "clips each tensor by its own norm", precisions=BOTH),
    "each number clipped": Fault(EACH_NUMBER, "clips the gradient number by number"),
    "clipped to another norm": Fault(
        number("clip_norm", lambda x: 1.5 * x), "takes 0.15 for clip_norm, which is 0.1", precisions=BOTH
    ),
    "small gradients scaled up": Fault(SCALED_UP, "scales a small gradient up", rungs=("moments",), precisions=BOTH),
    "another b1": Fault(number("b1", lambda _: 0.95), "takes 0.95 for b1, which is 0.9"),
    "another b2": Fault(number("b2", lambda _: 0.99), "takes 0.99 for b2, which is 0.999", precisions=BOTH),
    "another epsilon": Fault(number("epsilon", lambda _: 1e-7), "adds 1e-07 for epsilon", rungs=ROUNDED),
    "first moment not corrected": Fault(one_correction(0), "does not correct the bias of the first moment"),
    "second moment not corrected": Fault(one_correction(1), "does not correct the bias of the second moment"),
    "another average": Fault(
        number("ema_decay", lambda x: x - 0.1), "takes 0.8 for ema_decay, which is 0.9", precisions=BOTH
    ),
    "no average": Fault(STILL, "does not update the average", precisions=BOTH),
    "an average that warms up": Fault(WARM, "warms up the decay of the average"),
    "every decay rounded to float32": Fault(
        {"jax": on_jax_optimizer(all_rounded)}, "rounds 1 - each decay to float32", rungs=ROUNDED
    ),
    "an average rounded to float32": Fault(
        rounded_average(), "rounds 1 - ema_decay to float32", precisions=BOTH, rungs=ROUNDED
    ),
}
# JAX compiles a step anew for each fault, in seconds: in the short form it has one fault in three.
SHORT_JAX = list(FAULTS)[1::3]
EACH = [
    (name, backend, precision)
    for name, fault in FAULTS.items()
    for backend in fault.plants
    if LONG or backend == "torch" or name in SHORT_JAX or len(fault.plants) == 1
    for precision in (fault.precisions if LONG and backend == "torch" else fault.precisions[-1:])
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str], Job]:
    """The side without a fault, of a backend, a trial and a precision."""
    root = tmp_path_factory.mktemp("sound")

    @cache
    def made(backend: str, trial: str, precision: str) -> Job:
        one = job(SHORT[trial], root / f"{backend}-{trial}-{precision}", root / "cache", precision)
        one.folder.mkdir()
        side.climb(backends.load(backend), dataclasses.replace(one, trial=of(one, backend)))
        return dataclasses.replace(one, trial=of(one, backend))

    return made


def of(one: Job, backend: str) -> Any:
    return dataclasses.replace(one.trial, backend=backend)


@pytest.fixture
def fresh() -> Iterator[None]:
    forget("train")
    yield
    forget("train")


@pytest.mark.parametrize(("name", "backend", "precision"), EACH)
def test_the_term_at_fault_is_named(
    sound: Callable[[str, str, str], Job],
    tmp_path: Path,
    fresh: None,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    backend: str,
    precision: str,
) -> None:
    fault = FAULTS[name]
    right = sound(backend, fault.trial, precision)
    forget("train")
    fault.plants[backend](monkeypatch)
    rungs = climbed(backends.load(backend), right, tmp_path / "sound")
    first = next((one for one in rungs if not one.passed), None)
    assert first is not None, "the fault is not caught: a hole in the ladder"
    print(f"\n{precision} {backend:6}{name:32} {first.name:12} {first.place}")
    assert first.name in fault.rungs and fault.words in first.place, first.place
