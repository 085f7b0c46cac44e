"""The rungs: what is compared, in which order, within which tolerance, and where two sides first part."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from safetensors.numpy import load

from backends import parameters
from backends.contract import Array, ModelSpec, State
from experiments.parity import formula
from experiments.parity.side import CHUNK_STEPS, Job, spread_state
from experiments.parity.tolerances import EXACT, FLOOR, KEPT, ROUNDOFF, STILL, TABLE, Tolerance, coarsest, tolerance

# Rung: the file that holds it.
RUNGS = {
    "parameters": "weights",
    "weights": "weights",
    "plan": "plan",
    "batch": "activations",
    "activations": "activations",
    "offset": "offset",
    "loss": "activations",
    "gradients": "gradients",
    "norm": "step",
    "step": "step",
    "trajectory": "",  # several files; see Ladder._trajectory
    "losses": "",
    "chunk": "chunk",
    "evaluation": "evaluation",
}
BATCH = ("images", "targets")
# What to look at first where an operation is the first to differ.
HINTS = {
    "images": "crop, flip, input permutation, mixup partners, or the order of examples",
    "targets": "label smoothing, mixup partners, or the order of examples",
    "patches": "the order of patches, or of pixels in a patch",
    "stem": "the layout of its kernel, or its bias",
    "position_embedding": "the order of tokens",
    "views": "the layout of its kernel",
    "Dense_0": "the layout of its kernel, its bias, or the grouping of channels",
    "Dense_1": "the layout of its kernel, its bias, or the grouping of channels",
    "activation": "another activation function, or the other form of GELU",
    "dropout_0": "the hash, its key, the rate, or the rescaling",
    "dropout_1": "the hash, its key, the rate, or the rescaling",
    "stochastic_depth": "the rates over blocks, or the rescaling",
    "LayerNorm_0": "epsilon, or the formula of the variance",
    "LayerNorm_1": "epsilon, or the formula of the variance",
    "pre_head_layer_norm": "epsilon, or the formula of the variance",
    "features": "the mean over tokens",
    "head": "the layout of its kernel, or its bias",
    "loss": "the form of the loss, or its mean over the batch",
}


@dataclass(frozen=True)
class Difference:
    """The largest difference of one tensor. relative: to the size that the rung sets it against."""

    name: str
    index: tuple[int, ...]
    absolute: float
    relative: float


@dataclass
class Rung:
    """One rung's verdict. `place` says where the sides part, where they do."""

    name: str
    tolerance: Tolerance
    largest: Difference | None = None
    place: str = ""
    by_name: dict[str, float] = field(default_factory=dict)  # tensor or step -> relative difference

    @property
    def passed(self) -> bool:
        return not self.place


def compare(name: str, a: Array, b: Array, scale: float | None = None) -> Difference:
    """The largest difference of two tensors of one shape; infinite where a number of either is not finite.

    Args: scale: what it is set against; None: the largest element of both.
    """
    if a.size == 0:
        return Difference(name, (), 0.0, 0.0)
    with np.errstate(invalid="ignore"):
        distance = np.abs(np.subtract(a, b, dtype=np.result_type(a, b, np.float32)))
    index = tuple(int(i) for i in np.unravel_index(np.argmax(distance), distance.shape))  # the first NaN, if any
    absolute = float(distance[index])
    if not math.isfinite(absolute):
        return Difference(name, index, math.inf, math.inf)
    if absolute == 0:
        return Difference(name, index, 0.0, 0.0)
    size = max(_size(a), _size(b)) if scale is None else scale
    return Difference(name, index, absolute, absolute / size if size else math.inf)


def _size(array: Array) -> float:
    return float(np.abs(array).max(initial=0.0))


class Ladder:
    """Two folders of one job, climbed rung by rung as their files appear."""

    def __init__(self, jobs: tuple[Job, Job], wait: Callable[[str], None]):
        """Args: wait: returns once both folders hold a file of this name, or raises."""
        self.jobs, self.wait = jobs, wait
        self.model: ModelSpec = jobs[0].trial.model
        self.precisions = tuple(job.trial.train.precision for job in jobs)

    def about(self) -> Iterator[dict[str, str]]:
        """What each backend says of itself: versions, device, numerics."""
        self.wait("about.json")
        yield from (json.loads((job.folder / "about.json").read_text()) for job in self.jobs)

    def climb(self) -> Iterator[Rung]:
        """Every rung, also after one that failed: what follows from it fails too, and the first one is the place."""
        for name, file in RUNGS.items():
            if name == "offset" and set(self.precisions) != {"float64"}:
                continue
            if name == "trajectory":
                yield from self._trajectory()
            elif file:
                yield getattr(self, f"_{name}")(*self._read(f"{file}.safetensors"))

    def _read(self, file: str) -> tuple[State, State]:
        self.wait(file)
        first, second = (load((job.folder / file).read_bytes()) for job in self.jobs)
        return first, second

    def _rung(self, name: str) -> Rung:
        return Rung(name, tolerance(name, self.precisions, self.model))

    def _parameters(self, a: State, b: State) -> Rung:
        rung, shapes = Rung("parameters", EXACT), ({n: x.shape for n, x in side.items()} for side in (a, b))
        first, second = shapes
        for name in sorted(set(first) | set(second)):
            if first.get(name) != second.get(name):
                rung.place = f"{name}: {first.get(name, 'absent')} against {second.get(name, 'absent')}"
                break
        return rung

    def _weights(self, a: State, b: State) -> Rung:
        return self._tensors("weights", a, b, a)

    def _plan(self, a: State, b: State) -> Rung:
        return self._fill(Rung("plan", EXACT), a, b, a, lambda name: f"{name} of the plan, which NumPy makes")

    def _batch(self, a: State, b: State) -> Rung:
        return self._tensors("batch", a, b, BATCH, _operation)

    def _activations(self, a: State, b: State) -> Rung:
        return self._tensors("activations", a, b, self._operations(a), _operation)

    def _offset(self, a: State, b: State) -> Rung:
        return self._tensors("offset", a, b, self._operations(a), _operation)

    def _operations(self, seen: State) -> list[str]:
        dropout, depth = ("MixerBlock_0/token_mixing/" + what in seen for what in ("dropout_0", "stochastic_depth"))
        names = parameters.operations(self.model, dropout, depth)
        return [name for name in names if name not in (*BATCH, "loss")]

    def _loss(self, a: State, b: State) -> Rung:
        return self._tensors("loss", a, b, ["loss"], _operation)

    def _gradients(self, a: State, b: State) -> Rung:
        # backwards, as the chain rule goes: the last parameter's gradient depends on the fewest operations
        names = list(reversed(parameters.shapes(self.model)))
        floor = FLOOR[coarsest(self.precisions)] * max(_size(a[name]) for name in names)
        scales = {name: max(_size(a[name]), _size(b[name]), floor) for name in names}
        return self._tensors("gradients", a, b, names, lambda name: f"gradient of {name}", scales)

    def _norm(self, a: State, b: State) -> Rung:
        return self._tensors("norm", a, b, ["gradient_norm"], lambda _: "norm of the gradient, before clipping")

    def _step(self, a: State, b: State) -> Rung:
        rung, gradients = self._rung("step"), self._read("gradients.safetensors")
        plan = self._read("plan.safetensors")[0]

        def place(name: str) -> str:
            sides = zip(self.jobs, gradients, (a, b), strict=True)
            said = [
                f"{job.trial.backend} {formula.explain(job, gradient, plan, side)}" for job, gradient, side in sides
            ]
            return f"{name}: {'; '.join(said)}"

        names = parameters.state_shapes(self.model, self.jobs[0].trial.optimizer)
        moments_first = sorted(names, key=lambda name: name.startswith(("params/", "average/")))
        before = spread_state(self.jobs[0].trial)
        return self._fill(rung, a, b, moments_first, place, self._moves(rung, a, b, before, moments_first))

    def _moves(
        self, rung: Rung, a: State, b: State, before: State, names: Iterable[str], steps: int = 1
    ) -> dict[str, float]:
        """What differences of a state are set against: how far it has moved, and the rounding that it is kept with.

        Each step rounds anew, so that the roundings of many add up as the root of their number. A tensor that has moved
        little beside the others of its group is set against a share of the most that one has.
        """
        moves = {name: max(_size(side[name] - before[name]) for side in (a, b)) for name in names}
        most: dict[str, float] = {}
        for name, move in moves.items():
            group = name.partition("/")[0]
            most[group] = max(most.get(group, 0.0), move)
        roundoff = math.sqrt(steps) * max(ROUNDOFF[KEPT[precision]] for precision in self.precisions)
        kept = 2 * roundoff / rung.tolerance.limit
        return {
            name: max(move, STILL * most[name.partition("/")[0]]) + kept * _size(a[name])
            for name, move in moves.items()
        }

    def _evaluation(self, a: State, b: State) -> Rung:
        counts = set(self.precisions) <= set(TABLE)  # a near tie that falls the other way says nothing of a coarser one
        names = [name for name in a if counts or not name.endswith("accuracy")]
        return self._tensors("evaluation", a, b, names, lambda name: f"{name}: predict, or which examples count")

    def _chunk(self, a: State, b: State) -> Rung:
        rung, before = self._rung("chunk"), self._read("weights.safetensors")[0]
        return self._fill(
            rung,
            a,
            b,
            a,
            lambda name: f"{name}: the loop over the steps of one call, where single steps agree",
            self._moves(rung, a, b, before, a, min(CHUNK_STEPS, self.jobs[0].num_steps)),
        )

    def _trajectory(self) -> tuple[Rung, Rung]:
        """Parameters and losses of each step; files are removed once they are compared."""
        moved, losses = self._rung("trajectory"), self._rung("losses")
        before = self._read("weights.safetensors")[0]
        first, total = 0, self.jobs[0].num_steps
        while first < total:
            file = f"steps-{first:06}.safetensors"
            sides = self._read(file)
            for i in range(len(sides[0]["loss"])):
                a, b = ({name: rows[i] for name, rows in side.items() if name != "loss"} for side in sides)
                number = first + i + 1
                scales, step = self._moves(moved, a, b, before, a, number), f"step {number}"
                found = [compare(name, a[name], b[name], scales[name]) for name in a]
                worst = max(found, key=lambda difference: difference.relative)
                self._note(moved, worst, step, f"{worst.name} at {step}")
                loss = compare("loss", *(side["loss"][i] for side in sides))
                self._note(losses, loss, step, f"loss at {step}")
            for job in self.jobs:
                (job.folder / file).unlink()
            first += len(sides[0]["loss"])
        return moved, losses

    def _tensors(
        self,
        name: str,
        a: State,
        b: State,
        names: Iterable[str],
        place: Callable[[str], str] = str,
        scales: Mapping[str, float] | None = None,
    ) -> Rung:
        return self._fill(self._rung(name), a, b, names, place, scales)

    def _fill(
        self,
        rung: Rung,
        a: State,
        b: State,
        names: Iterable[str],
        place: Callable[[str], str],
        scales: Mapping[str, float] | None = None,
    ) -> Rung:
        for name in names:
            difference = compare(name, a[name], b[name], scales[name] if scales else None)
            self._note(rung, difference, name, partial(place, name))
        return rung

    def _note(self, rung: Rung, difference: Difference, key: str, place: "str | Callable[[], str]") -> None:
        rung.by_name[key] = difference.relative
        if rung.largest is None or difference.relative > rung.largest.relative:
            rung.largest = difference
        if rung.place or difference.relative <= rung.tolerance.limit < math.inf:
            return
        if not math.isfinite(difference.relative):
            rung.place = f"{difference.name} is not finite{f' at {key}' if key != difference.name else ''}"
        elif difference.relative > rung.tolerance.limit:
            rung.place = place if isinstance(place, str) else place()


def _operation(name: str) -> str:
    return f"{name}: look at {HINTS.get(name.rpartition('/')[2], 'the skip-connection')}"
