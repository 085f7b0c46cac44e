"""One optimizer step in NumPy, as the contract defines it, and with one term changed at a time.

Where two sides part in a step, the one that does not follow the formula is compared with every changed form of it: the
form that it follows names the term at fault.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from backends.contract import Array, OptimizerSpec, State
from backends.parameters import is_decayed
from experiments.parity.side import Job, spread_state
from experiments.parity.tolerances import KEPT, ROUNDOFF
from experiments.plan import learning_rates

# Differences, relative to the largest change of a tensor, below which a side follows a form.
FOLLOWS = {"float64": 1e-9, "float32": 1e-4, "tf32": 1e-2, "bfloat16": 5e-2}


@dataclass(frozen=True)
class Step:
    """A step's numbers, and the terms that may be changed."""

    spec: OptimizerSpec
    rate: float
    corrections: Array  # (2,)
    step: int  # counts from 1
    clip_epsilon: float = 0.0
    coupled: bool = False
    late_average: bool = False
    inside_root: bool = False


def apply(step: Step, state: State, gradient: State) -> State:
    """The next state.  Source: as backends/*/optimizer.py, tensor by tensor in float64."""
    spec, norm = step.spec, float(np.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in gradient.values())))
    factor = spec.clip_norm / max(norm + step.clip_epsilon, spec.clip_norm) if spec.clip_norm else 1.0
    after: State = {}
    for name, g in gradient.items():
        p = state[f"params/{name}"]
        decay = spec.weight_decay * p if is_decayed(name, spec.decay) else 0.0
        g = factor * g.astype(np.float64) + (decay if step.coupled else 0.0)
        moments, update = (_adamw if spec.optimizer == "adamw" else _sgd)(step, state, name, g)
        after |= moments
        after[f"params/{name}"] = p - step.rate * (update + (0.0 if step.coupled else decay))
        if spec.ema_decay:
            average, new = state[f"average/{name}"], p if step.late_average else after[f"params/{name}"]
            after[f"average/{name}"] = average + (1 - spec.ema_decay) * (new - average)
    return after


def _adamw(step: Step, state: State, name: str, g: Array) -> tuple[State, Array]:
    spec = step.spec
    first = spec.b1 * state[f"first_moment/{name}"] + (1 - spec.b1) * g
    second = spec.b2 * state[f"second_moment/{name}"] + (1 - spec.b2) * g * g
    corrected = second * step.corrections[1]
    root = np.sqrt(corrected + spec.epsilon) if step.inside_root else np.sqrt(corrected) + spec.epsilon
    return {f"first_moment/{name}": first, f"second_moment/{name}": second}, first * step.corrections[0] / root


def _sgd(step: Step, state: State, name: str, g: Array) -> tuple[State, Array]:
    momentum = step.spec.momentum * state[f"momentum/{name}"] + g
    return {f"momentum/{name}": momentum}, g + step.spec.momentum * momentum if step.spec.nesterov else momentum


def forms(job: Job, plan: State) -> Iterator[tuple[str, Step]]:
    """The formula, then each form of it with one term changed, by what it means."""
    spec, first = job.trial.optimizer, job.first_step
    rates = learning_rates(job.trial.train, first - 1, 3)
    right = Step(spec, float(rates[1]), plan["moment_corrections"][0], first + 1)
    yield "follows the formula", right
    yield "takes the learning rate of the step before", replace(right, rate=float(rates[0]))
    yield "takes the learning rate of the step after", replace(right, rate=float(rates[2]))
    yield "does not clip the gradient", replace(right, spec=replace(spec, clip_norm=0.0))
    yield "adds 1e-6 to the norm when it clips", replace(right, clip_epsilon=1e-6)
    yield "does not decay the weights", replace(right, spec=replace(spec, weight_decay=0.0))
    other = "kernels" if spec.decay == "all" else "all"
    yield (
        f"decays {'kernels only' if other == 'kernels' else 'norms and biases too'}",
        replace(right, spec=replace(spec, decay=other)),
    )
    yield "couples the weight decay with the gradient", replace(right, coupled=True)
    yield "updates the average with the parameters before the step", replace(right, late_average=True)
    if spec.optimizer == "adamw":
        yield "does not correct the bias of the moments", replace(right, corrections=np.ones(2))
        yield "corrects the bias of the moments in float32", replace(right, corrections=_float32_corrections(right))
        late = 1 / (1 - np.array([spec.b1, spec.b2]) ** (right.step - 1))
        yield "corrects the bias of the moments one step late", replace(right, corrections=late)
        yield "adds epsilon inside the root", replace(right, inside_root=True)
    else:
        word = "drops" if spec.nesterov else "adds"
        yield f"{word} Nesterov's term", replace(right, spec=replace(spec, nesterov=not spec.nesterov))


def _float32_corrections(step: Step) -> Array:
    decays = np.array([step.spec.b1, step.spec.b2], np.float32)
    return (1 / (1 - decays ** np.float32(step.step))).astype(np.float64)


def explain(job: Job, gradient: State, plan: State, after: State) -> str:
    """Which form a side's step follows, in words; a form that the parameters alone do not follow is none."""
    before = spread_state(job.trial)
    best, closest = "follows no form that is known here", FOLLOWS[job.trial.train.precision]
    right, kept = next(forms(job, plan))[1], 2 * ROUNDOFF[KEPT[job.trial.train.precision]]
    factor = _factor(apply(right, before, gradient), before, after)
    scaled = replace(right, rate=right.rate * factor)
    for words, step in (*forms(job, plan), (f"takes {factor:.4g} times the learning rate", scaled)):
        distance = _distance(apply(step, before, gradient), before, after, kept)
        if distance < closest / 2:  # a form that explains no more than the one before it is no better
            best, closest = words, distance
    return best


def _factor(expected: State, before: State, after: State) -> float:
    """Length of the parameters' change along the one expected, as a share of that."""
    names = [name for name in expected if name.startswith("params/")]
    along = sum(float(((expected[n] - before[n]) * (after[n] - before[n])).sum()) for n in names)
    return along / sum(float(((expected[n] - before[n]) ** 2).sum()) for n in names)


def _distance(expected: State, before: State, after: State, kept: float) -> float:
    """Largest difference of any tensor, beyond the rounding it is kept with, relative to the change it should make."""
    distances = []
    for name, value in expected.items():
        change = float(np.abs(value - before[name]).max())
        beyond = float(np.abs(value - after[name]).max()) - kept * float(np.abs(value).max())
        distances.append(max(beyond, 0.0) / change if change else 0.0)
    return max(distances)
