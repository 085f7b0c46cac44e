"""The rungs: what is compared, in which order, within which tolerance, and where two sides first part."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from safetensors.numpy import load

from backends import parameters
from backends.contract import Array, ModelSpec, State
from experiments.parity import formula
from experiments.parity.side import Job
from experiments.parity.tolerances import EXACT, FLOOR, TABLE, Tolerance, coarsest, tolerance

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
    """The largest difference of one tensor. relative: to the largest element of the first side's tensor."""

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


def compare(name: str, a: Array, b: Array, floor: float = 0.0) -> Difference:
    """The largest difference of two tensors of one shape; one that is not finite on one side alone is infinite.

    Args: floor: the least size that differences are set against, where a tensor may be zero but for rounding.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.size == 0:
        return Difference(name, (), 0.0, 0.0)
    with np.errstate(invalid="ignore"):
        distance = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    distance = np.where(np.isnan(distance), np.inf, distance)
    index = tuple(int(i) for i in np.unravel_index(np.argmax(distance), distance.shape))
    absolute, scale = float(distance[index]), max(float(np.abs(a[np.isfinite(a)]).max(initial=0.0)), floor)
    return Difference(name, index, absolute, absolute / scale if scale and absolute else absolute)


def _of_each_step(a: Array, b: Array) -> Array:
    """The largest difference in each row of two tensors, relative to the row's largest element; NaN is infinite."""
    with np.errstate(invalid="ignore", divide="ignore"):
        absolute, scale = (np.abs(x).reshape(len(x), -1).max(1) for x in (a - b, a))
        relative = np.where(absolute == 0, 0.0, absolute / scale)
    return np.where(np.isnan(relative), np.inf, relative)


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
        rung = Rung("plan", EXACT)
        self._fill(rung, a, b, a, lambda name: f"{name} of the plan, which NumPy makes")
        return rung

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
        floor = FLOOR[coarsest(self.precisions)]
        return self._tensors("gradients", a, b, names, lambda name: f"gradient of {name}", floor)

    def _norm(self, a: State, b: State) -> Rung:
        return self._tensors("norm", a, b, ["gradient_norm"], lambda _: "norm of the gradient, before clipping")

    def _step(self, a: State, b: State) -> Rung:
        gradient = self._read("gradients.safetensors")[0]
        plan = self._read("plan.safetensors")[0]

        def place(name: str) -> str:
            found = [formula.explain(job, gradient, plan, side) for job, side in zip(self.jobs, (a, b), strict=True)]
            return f"{name}: " + "; ".join(
                f"{job.trial.backend} {what}" for job, what in zip(self.jobs, found, strict=True)
            )

        names = parameters.state_shapes(self.model, self.jobs[0].trial.optimizer)
        return self._tensors(
            "step", a, b, sorted(names, key=lambda name: name.startswith(("params/", "average/"))), place
        )

    def _evaluation(self, a: State, b: State) -> Rung:
        counts = set(self.precisions) <= set(TABLE)  # a near tie that falls the other way says nothing of a coarser one
        names = [name for name in a if counts or not name.endswith("accuracy")]
        return self._tensors("evaluation", a, b, names, lambda name: f"{name}: predict, or which examples count")

    def _trajectory(self) -> tuple[Rung, Rung]:
        """Parameters and losses of each step; files are removed once they are compared."""
        losses, parameters_ = self._rung("losses"), self._rung("trajectory")
        first, total = 0, self.jobs[0].num_steps
        while first < total:
            file = f"steps-{first:06}.safetensors"
            a, b = self._read(file)
            largest = {name: _of_each_step(a[name], b[name]) for name in sorted(set(a) - {"loss"})}
            for i in range(len(a["loss"])):
                step = f"step {first + i + 1}"
                self._note(losses, compare("loss", a["loss"][i], b["loss"][i]), step, f"loss at {step}")
                worst = max(largest, key=lambda name: largest[name][i])
                self._note(parameters_, compare(worst, a[worst][i], b[worst][i]), step, f"{worst} at {step}")
            for job in self.jobs:
                (job.folder / file).unlink()
            first += len(a["loss"])
        return parameters_, losses

    def _tensors(
        self,
        name: str,
        a: State,
        b: State,
        names: Iterable[str],
        place: Callable[[str], str] = str,
        floor: float = 0.0,
    ) -> Rung:
        rung = self._rung(name)
        self._fill(rung, a, b, names, place, floor)
        return rung

    def _fill(
        self,
        rung: Rung,
        a: Mapping[str, Array],
        b: Mapping[str, Array],
        names: Iterable[str],
        place: Callable[[str], str],
        floor: float = 0.0,
    ) -> None:
        names = list(names)
        largest = max((float(np.abs(a[name]).max(initial=0.0)) for name in names), default=0.0)
        for name in names:
            difference = compare(name, a[name], b[name], floor * largest)
            self._note(rung, difference, name, partial(place, name))

    def _note(self, rung: Rung, difference: Difference, key: str, place: "str | Callable[[], str]") -> None:
        rung.by_name[key] = difference.relative
        if rung.largest is None or difference.relative > rung.largest.relative:
            rung.largest = difference
        if not rung.place and not difference.relative <= rung.tolerance.limit:
            rung.place = place if isinstance(place, str) else place()


def _operation(name: str) -> str:
    return f"{name}: look at {HINTS.get(name.rpartition('/')[2], 'the skip-connection')}"
