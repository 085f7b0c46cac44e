"""Which optimizer term is at fault: a side's step against the formula, and against it with one term changed.

Where two sides part in a step, the one that does not follow the formula is compared with every changed form of it: the
form that it follows names the term.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from backends.arrays import Array, State
from experiments.parity.formula import Step, apply, clip, norm
from experiments.parity.rungs import NOT_FINITE, Difference, size
from experiments.parity.tolerances import FLOOR, KEPT, ROUNDOFF

# Differences, relative to the largest change of a tensor, below which a side counts as following a form.
FOLLOWS = {"float64": 1e-9, "float32": 1e-4, "tf32": 1e-2, "bfloat16": 5e-2}
# Roundings of a number of the state in a step: when it is loaded, two where an average is made of it, when it is kept.
ROUNDINGS = 4
# Parts of a model that other code decays or leaves out: their name in a sentence, one of them, and whether a parameter
# is one of them.
PARTS: tuple[tuple[str, str, Callable[[str], bool]], ...] = (
    ("biases", "head/bias", lambda name: name.endswith("bias")),
    ("norms' scales", "pre_head_layer_norm/scale", lambda name: name.endswith("scale")),
    ("the position embedding", "position_embedding", lambda name: name == "position_embedding"),
    ("the stem's kernel", "stem/kernel", lambda name: name == "stem/kernel"),
    ("the head's kernel", "head/kernel", lambda name: name == "head/kernel"),
)
EPSILONS = (1e-4, 1e-5, 1e-6, 1e-7, 1e-10)  # that other code adds, where 1e-8 is Adam's


@dataclass(frozen=True, eq=False)
class Case:
    """A step of one side: its numbers, from which state, with which gradient, and to which state."""

    right: Step
    rates: tuple[float, float]  # of the step before and of the one after
    precision: str
    before: State
    gradient: State
    after: State

    @property
    def kept(self) -> float:
        """The rounding of a number of the state, relative to it."""
        return ROUNDINGS * ROUNDOFF[KEPT[self.precision]]

    @property
    def used(self) -> State:
        """The gradient after clipping, as it can be read back from the side's own moments."""
        spec, slot = self.right.spec, moment(self.right)
        decay, share = (spec.b1, 1 - spec.b1) if spec.optimizer == "adamw" else (spec.momentum, 1.0)
        return {
            name: (self.after[f"{slot}/{name}"].astype(np.float64) - decay * self.before[f"{slot}/{name}"]) / share
            for name in self.gradient
        }


def moment(step: Step) -> str:
    """The slot that the gradient enters as it is."""
    return "first_moment" if step.spec.optimizer == "adamw" else "momentum"


def deviations(case: Case) -> tuple[list[Difference], list[Difference]]:
    """How far a side's step is from the formula, tensor by tensor: its first moments, and everything else.

    First moments are held to the side's own gradient; everything else to its own first moments, so that what rounding
    does to a gradient on its way there hides nothing.
    """
    slot = moment(case.right) + "/"
    first = {n: x for n, x in apply(case.right, case.before, case.gradient).items() if n.startswith(slot)}
    least = _least(case, first)
    unclipped = replace(case.right, spec=replace(case.right.spec, clip_norm=0.0))
    rest = {n: x for n, x in apply(unclipped, case.before, case.used).items() if not n.startswith(slot)}
    return [_deviation(case, *one, least) for one in first.items()], [_deviation(case, *one) for one in rest.items()]


def explain(case: Case) -> str:
    """The form of the formula that the whole of a side's step follows, in words."""
    # First the plain formula, then one term changed, then one number fitted: of two forms that explain a step equally
    # well, the simpler one is named.
    best, closest = "follows no form that is known here", FOLLOWS[case.precision]
    for words, step in chain([("follows the formula", case.right)], forms(case), fitted(case)):
        expected = apply(step, case.before, case.gradient)
        least = _least(case, {name: x for name, x in expected.items() if name.startswith(moment(case.right))})
        distance = max(
            _deviation(case, name, value, least if name.startswith(moment(case.right)) else 0.0).relative
            for name, value in expected.items()
        )
        if distance < closest / 2:  # a form that is little closer than one before it explains no more than rounding
            best, closest = words, distance
        if distance == 0:  # it agrees but for rounding; there are many forms, and a large model takes seconds for each
            break
    return best


def forms(case: Case) -> Iterator[tuple[str, Step]]:
    """The formula with one term changed, each form with its words in a sentence."""
    right, spec = case.right, case.right.spec
    yield "takes the learning rate of the step before", replace(right, rate=case.rates[0])
    yield "takes the learning rate of the step after", replace(right, rate=case.rates[1])
    yield "does not clip the gradient", replace(right, spec=replace(spec, clip_norm=0.0))
    yield "adds 1e-6 to the norm when it clips", replace(right, clip_epsilon=1e-6)
    yield "clips each tensor by its own norm", replace(right, clip="tensor")
    yield "clips the gradient number by number", replace(right, clip="value")
    yield "scales a small gradient up to the norm that it should be clipped to", replace(right, clip="always")
    yield from _decays(right)
    yield "does not update the average", replace(right, spec=replace(spec, ema_decay=1.0))
    yield "updates the average with the parameters before the step", replace(right, late_average=True)
    # Source: TensorFlow's ExponentialMovingAverage, argument num_updates.
    warm = min(spec.ema_decay, (1 + right.step) / (10 + right.step))
    yield "warms up the decay of the average", replace(right, spec=replace(spec, ema_decay=warm))
    yield "rounds 1 - ema_decay to float32", replace(right, in_float32=("ema_decay",))
    yield from _adamw(right) if spec.optimizer == "adamw" else _sgd(right)


def _decays(right: Step) -> Iterator[tuple[str, Step]]:
    """Forms in which weight decay is another, or acts on other parameters."""
    spec = right.spec
    yield "does not decay the weights", replace(right, spec=replace(spec, weight_decay=0.0))
    yield "couples the weight decay with the gradient", replace(right, coupled=True)
    yield "decays the weights without the learning rate", replace(right, rate_free_decay=True)
    if spec.decay == "all":
        yield "decays kernels only", replace(right, mask=lambda name: name in right.kernels)
    else:
        yield "decays norms and biases too", replace(right, mask=lambda name: True)
    for part, example, chosen in PARTS:
        words = f"does not decay {part}" if right.decays(example) else f"decays {part} too"
        yield words, replace(right, mask=partial(_decays_but_for, right, chosen))


def _decays_but_for(right: Step, chosen: Callable[[str], bool], name: str) -> bool:
    """Whether a parameter decays where the chosen ones do the contrary of what they should."""
    return right.decays(name) != chosen(name)


def _adamw(right: Step) -> Iterator[tuple[str, Step]]:
    """Forms in which Adam's bias corrections, decays or epsilon are others."""
    spec, (first, second) = right.spec, right.corrections
    yield "does not correct the bias of the moments", replace(right, corrections=np.ones(2))
    yield "does not correct the bias of the first moment", replace(right, corrections=np.array([1.0, second]))
    yield "does not correct the bias of the second moment", replace(right, corrections=np.array([first, 1.0]))
    decays = np.array([spec.b1, spec.b2], np.float32)  # as Optax computes them: up to 1e-5 off in the update
    single = (1 / (1 - decays ** np.float32(right.step))).astype(np.float64)
    yield "corrects the bias of the moments in float32", replace(right, corrections=single)
    if right.step > 1:  # at the first step the count before is 0, and the correction 1 / 0
        late = 1 / (1 - np.array([spec.b1, spec.b2]) ** (right.step - 1))
        yield "corrects the bias of the moments one step late", replace(right, corrections=late)
    for name in ("b1", "b2"):
        yield f"rounds 1 - {name} to float32", replace(right, in_float32=(name,))
    yield "rounds 1 - each decay to float32", replace(right, in_float32=("b1", "b2", "ema_decay"))
    yield "adds epsilon inside the root", replace(right, inside_root=True)
    for epsilon in EPSILONS:
        if epsilon != spec.epsilon:
            yield f"adds {epsilon:g} for epsilon", replace(right, spec=replace(spec, epsilon=epsilon))


def _sgd(right: Step) -> Iterator[tuple[str, Step]]:
    """Forms in which SGD's momentum is another."""
    spec = right.spec
    word = "drops" if spec.nesterov else "adds"
    yield f"{word} Nesterov's term", replace(right, spec=replace(spec, nesterov=not spec.nesterov))
    yield "dampens the momentum by itself", replace(right, dampening=spec.momentum)


def fitted(case: Case) -> Iterator[tuple[str, Step]]:
    """The formula with one number changed to what fits the side's step best, each form with its words in a sentence.

    Each number multiplies something in the step, so that one division gives it, by least squares over all elements.
    """
    right, spec, gradient = case.right, case.right.spec, clip(case.right, case.gradient)
    expected = apply(right, case.before, case.gradient)
    params = _group(expected, "params"), _group(case.before, "params"), _group(case.after, "params")
    rate = _slope(_minus(params[2], params[1]), _minus(params[0], params[1]))
    yield f"takes {rate:.4g} times the learning rate", replace(right, rate=right.rate * rate)
    numbers: dict[str, Any] = {}
    if spec.clip_norm:
        numbers["clip_norm"] = _slope(case.used, case.gradient) * norm(case.gradient)
    if spec.weight_decay:
        # What the side's parameters have lost beyond a step without decay.
        free = apply(replace(right, spec=replace(spec, weight_decay=0.0)), case.before, case.gradient)
        decayed = {name for name in params[1] if right.decays(name)}
        lost = {n: (_group(free, "params")[n] - params[2][n]) / right.rate for n in decayed}
        numbers["weight_decay"] = _slope(lost, {n: params[1][n] for n in decayed})
    if spec.ema_decay:
        # The distance of the average from the new parameters shrinks by the decay.
        before, after = (_minus(_group(x, "average"), params[2]) for x in (case.before, case.after))
        numbers["ema_decay"] = _slope(after, before)
    for name, slot, entering, leaving in _averages(case, gradient):
        new, old = (_group(x, slot) for x in (case.after, case.before))
        numbers[name] = _slope(_minus(new, entering), _minus(old, leaving))
    for name, number in numbers.items():
        words = f"takes {number:.4g} for {name}, which is {getattr(spec, name):.4g}"
        yield words, replace(right, spec=replace(spec, **{name: number}))


def _averages(case: Case, gradient: State) -> Iterator[tuple[str, str, State, State]]:
    """Each decay of a moment, its slot, what enters there, and what the old moment is weighed against.

    An average m' = b m + (1 - b) g gives m' - g = b (m - g), SGD's sum m' = b m + g gives m' - g = b (m - 0).
    """
    if case.right.spec.optimizer == "adamw":
        squares = {name: g * g for name, g in gradient.items()}
        yield "b1", "first_moment", gradient, gradient
        yield "b2", "second_moment", squares, squares
    else:
        yield "momentum", "momentum", gradient, {name: np.zeros(()) for name in gradient}


def _group(state: State, group: str) -> State:
    """The arrays of one group in float64, by parameter name."""
    return {n.partition("/")[2]: x.astype(np.float64) for n, x in state.items() if n.startswith(f"{group}/")}


def _minus(a: State, b: State) -> State:
    return {name: a[name] - b[name] for name in a}


def _slope(y: State, x: State) -> float:
    """The number f for which f x is nearest to y, by least squares; 0 where x is zero."""
    along, square = (sum(float((x[n].astype(np.float64) * z[n]).sum()) for n in y) for z in (y, x))
    return along / square if square else 0.0


def _least(case: Case, first: State) -> float:
    """The least size that differences of first moments are set against, as small moments are sums that cancel.

    A gradient that is zero in exact arithmetic, such as that of a bias in front of pooling, is nothing but rounding.
    """
    return FLOOR[case.precision] * max((size(x - case.before[name]) for name, x in first.items()), default=0.0)


def _deviation(case: Case, name: str, value: Array, least: float = 0.0) -> Difference:
    """Largest difference, beyond the rounding of a tensor's numbers, relative to the change that it should make.

    Args: least: the size that it is set against at least.
    """
    change = max(size(value - case.before[name]), least)
    distance = np.abs(value - case.after[name])
    index = tuple(int(i) for i in np.unravel_index(np.argmax(distance), distance.shape))
    absolute = float(distance[index])
    if not np.isfinite(absolute):
        return Difference(name, index, np.inf, np.inf, NOT_FINITE)
    beyond = max(absolute - case.kept * size(value), 0.0)
    return Difference(name, index, absolute, beyond / change if change else (np.inf if beyond else 0.0))
