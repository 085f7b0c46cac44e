"""The rungs: what is compared, in which order, within which tolerance, and where two sides first part."""

import json
from collections.abc import Callable, Iterator
from functools import cached_property

from safetensors.numpy import load

from backends import devices
from backends.arrays import State
from backends.models import folds
from backends.specs import ModelSpec
from backends.state import state_shapes
from experiments.parity import own, terms
from experiments.parity.checks import GRADIENT
from experiments.parity.job import (
    CHECKS,
    CHUNK_STEPS,
    COMPILE,
    LONG,
    RANKS,
    REMAT,
    REPLICAS,
    WIDE,
    Job,
    has_offset,
    spread_state,
)
from experiments.parity.rungs import Place, Rung, compare, gradient_scales, moves, size
from experiments.parity.tolerances import EXACT, IDLE, ONE_ORDER, TABLE, tolerance
from experiments.results.metrics import every

# Rung -> the file that holds it. The order is that of causes, so that the first rung which fails is the place to look
# at: names and inputs, one step forwards and backwards, what an optimizer makes of it, then many steps. The sides write
# their files in the same order, and a rung is compared while they compute the next.
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
    "moments": "empty",
    "formula": "",  # the same files; see Ladder._moments
    "trajectory": "",  # several files; see Ladder._trajectory
    "losses": "",
    "chunk": "chunk",
    "ranks": RANKS,
    "evaluation": "evaluation",
    "long call": LONG,
    "wide batch": WIDE,
    "wide activations": WIDE,
    "wide gradients": WIDE,
    "replicas": REPLICAS,
    "remat": REMAT,
    "compile": COMPILE,
}
BATCH = ("images", "targets")
# What to look at first where a value is the first to differ that is no layer's; layers say it themselves.
HINTS = {
    "images": "crop, flip, input permutation, mixup partners, cutmix, the plan's pixels, or the order of examples",
    "targets": "label smoothing, mixup partners, the share of cutmix's box, or the order of examples",
    "loss": "the form of the loss, or its mean over the batch",
}


class Ladder:
    """The folders of two sides of one job, compared rung by rung as their files appear."""

    def __init__(self, jobs: tuple[Job, Job], wait: Callable[[str], None]):
        """Begin with both sides' jobs.  Args: wait: returns once both folders hold a file of this name, or raises."""
        self.jobs, self.wait = jobs, wait
        self.model: ModelSpec = jobs[0].trial.model
        self.precisions = tuple(job.trial.train.precision for job in jobs)

    def about(self) -> Iterator[dict[str, str]]:
        """What each backend says of itself: versions, device, numerics."""
        self.wait("about.json")
        yield from (json.loads((job.folder / "about.json").read_text()) for job in self.jobs)

    @cached_property
    def is_exact(self) -> bool:
        """Whether both sides must have the same bits: one framework, precision and kind of device, and microbatches."""
        trials = [job.trial for job in self.jobs]
        kinds = {(x.backend, x.train.precision, devices.read(x.run.device)[0]) for x in trials}
        return len(kinds) == 1 and all(x.train.microbatches > 1 and x.run.deterministic for x in trials)

    @property
    def names(self) -> list[str]:
        """The rungs that are climbed.

        `offset` in float64 where a model has it, `ranks` where a side has several, and the checks that the job names.
        """
        offset = set(self.precisions) == {"float64"} and has_offset(self.model)
        absent = set(CHECKS) - set(self.jobs[0].checks) | (set() if offset else {"offset"})
        if all(job.group.size == 1 for job in self.jobs):
            absent.add(RANKS)
        return [name for name, file in RUNGS.items() if file not in absent]

    def climb(self) -> Iterator[Rung]:
        """Every rung, also after one that failed: what follows from it fails too, and the first one is the place."""
        for name in self.names:
            if name == "trajectory":
                yield from self._trajectory()
            elif RUNGS[name] in (LONG, REPLICAS, REMAT, COMPILE):
                yield own.twice(name, RUNGS[name], self.jobs, self._read(RUNGS[name]))
            elif name == RANKS:
                yield own.ranks(self.jobs, self._read(RANKS))
            elif name == "moments":  # yields `formula` too
                self.wait("empty.safetensors")
                yield from own.formula(self.jobs, read)
            elif RUNGS[name]:
                yield getattr(self, f"_{name.replace(' ', '_')}")(*self._read(RUNGS[name]))

    def _read(self, name: str) -> tuple[State, State]:
        """The arrays of both sides in the file of this name, once both have written it."""
        self.wait(f"{name}.safetensors")
        first, second = (read(job, name) for job in self.jobs)
        return first, second

    def _rung(self, name: str) -> Rung:
        """A rung without a verdict yet, with its tolerance for these sides and this model."""
        return Rung(name, ONE_ORDER if self.is_exact else tolerance(name, self.precisions, self.model))

    def _parameters(self, a: State, b: State) -> Rung:
        # Names and shapes alone: where they differ, no number can be compared with another.
        rung, shapes = Rung("parameters", EXACT), ({n: x.shape for n, x in side.items()} for side in (a, b))
        first, second = shapes
        for name in sorted(set(first) | set(second)):
            if first.get(name) != second.get(name):
                rung.place = f"{name}: {first.get(name, 'absent')} against {second.get(name, 'absent')}"
                break
        return rung

    def _weights(self, a: State, b: State) -> Rung:
        return self._rung("weights").fill(a, b, a, str)

    def _plan(self, a: State, b: State) -> Rung:
        # Exact, as NumPy draws it on both sides: a difference is one of interpreters or of versions, of no framework.
        return Rung("plan", EXACT).fill(a, b, a, lambda name: f"{name} of the plan, which NumPy makes")

    def _batch(self, a: State, b: State) -> Rung:
        return self._rung("batch").fill(a, b, BATCH, self._operation)

    def _activations(self, a: State, b: State) -> Rung:
        return self._rung("activations").fill(a, b, operations(self.model, a), self._operation)

    def _offset(self, a: State, b: State) -> Rung:
        return self._rung("offset").fill(a, b, operations(self.model, a), self._operation)

    def _loss(self, a: State, b: State) -> Rung:
        return self._rung("loss").fill(a, b, ["loss"], self._operation)

    def _gradients(self, a: State, b: State) -> Rung:
        return self._backwards("gradients", self.model, a, b, lambda name: f"gradient of {name}")

    def _backwards(self, rung: str, model: ModelSpec, a: State, b: State, place: Place) -> Rung:
        # In the chain rule's order: the last parameter's gradient depends on the fewest operations.
        names = list(reversed(folds.trained_shapes(model)))
        return self._rung(rung).fill(a, b, names, place, gradient_scales((a, b), names, self.precisions))

    def _norm(self, a: State, b: State) -> Rung:
        return self._rung("norm").fill(a, b, ["gradient_norm"], lambda _: "norm of the gradient, before clipping")

    def _step(self, a: State, b: State) -> Rung:
        # The plan of one side does for both: if plans differ, an earlier rung is the place.
        rung, plan, gradients = self._rung("step"), self._read("plan")[0], self._read("gradients")

        def place(name: str) -> str:
            if name.removeprefix("params/") in folds.constant_shapes(self.model):
                return f"{name}: {own.moved(self.jobs, (a, b), name)} trains it, and it is a constant"
            sides = zip(self.jobs, gradients, (a, b), strict=True)
            forms = [f"{job.trial.backend} {terms.explain(own.case(job, plan, *arrays))}" for job, *arrays in sides]
            return f"{name}: {'; '.join(forms)}"

        names = state_shapes(self.model, self.jobs[0].trial.optimizer)
        # A parameter follows from its moments, and an average from its parameter: causes are compared before effects.
        moments_first = sorted(names, key=lambda name: name.startswith(("params/", "average/")))
        a, b = ({name: side[name] for name in moments_first} for side in (a, b))
        return rung.fill(a, b, moments_first, place, self._moves(rung, a, b, spread_state(self.jobs[0].trial)))

    def _moves(self, rung: Rung, a: State, b: State, before: State, steps: int = 1) -> dict[str, float]:
        """The sizes that differences of trained states are set against, from `before` on; see rungs.moves."""
        limit = tolerance(rung.name, self.precisions, self.model).limit  # of sides that round: that of a rung may be 0
        return moves((a, b), before, self.precisions, limit, steps, self._idle)

    @cached_property
    def _idle(self) -> set[str]:
        """Parameters whose gradient is rounding alone on both sides."""
        sides = self._read("gradients")
        share = max(IDLE[precision] for precision in self.precisions)
        limits = [share * max(map(size, side.values())) for side in sides]
        return {
            name for name in sides[0] if all(size(side[name]) < low for side, low in zip(sides, limits, strict=True))
        }

    def _evaluation(self, a: State, b: State) -> Rung:
        # In a coarse precision, rounding turns near ties over: then a share of right answers says nothing.
        counts = self.is_exact or set(self.precisions) <= set(TABLE)
        names = [name for name in a if counts or not every()[name].is_share]
        return self._rung("evaluation").fill(a, b, names, lambda name: f"{name}: predict, or which examples count")

    def _chunk(self, a: State, b: State) -> Rung:
        # These steps begin with the initial state, unlike the single step: what is looked at is a run as it is.
        rung, before = self._rung("chunk"), self._read("weights")[0]
        scales = self._moves(rung, a, b, before, min(CHUNK_STEPS, self.jobs[0].num_steps))
        words = "the loop over the steps of one call, where single steps agree"
        return rung.fill(a, b, a, lambda name: f"{name}: {words}", scales)

    def _wide_batch(self, a: State, b: State) -> Rung:
        return self._rung("wide batch").fill(a, b, BATCH, self._wide_place)

    def _wide_activations(self, a: State, b: State) -> Rung:
        names = [*operations(self.jobs[0].wide.model, a), "loss"]
        return self._rung("wide activations").fill(a, b, names, self._wide_place)

    def _wide_gradients(self, a: State, b: State) -> Rung:
        first, second = own.part(a, GRADIENT), own.part(b, GRADIENT)
        model = self.jobs[0].wide.model
        return self._backwards(
            "wide gradients", model, first, second, lambda name: f"gradient of {name}, {self._sizes}"
        )

    def _operation(self, name: str) -> str:
        return f"{name}: look at {(folds.hints(self.model) | HINTS)[name]}"

    def _wide_place(self, name: str) -> str:
        return f"{self._operation(name)}, {self._sizes}"

    @property
    def _sizes(self) -> str:
        wide = self.jobs[0].wide
        return f"at {wide.train.batch_size} examples and {wide.model.num_classes} classes"

    def _trajectory(self) -> tuple[Rung, Rung]:
        """The rungs of the parameters and of the losses of each step.

        Files are removed once they are compared: the sides wait for that, so that no disk holds a whole trajectory.
        """
        moved, losses = self._rung("trajectory"), self._rung("losses")
        before = self._read("weights")[0]
        first, total = 0, self.jobs[0].num_steps
        while first < total:
            file = f"steps-{first:06}"
            sides = self._read(file)
            for i in range(len(sides[0]["loss"])):
                a, b = ({name: rows[i] for name, rows in side.items() if name != "loss"} for side in sides)
                number = first + i + 1
                # Against how far parameters have moved by then: beside their size, the first steps would always agree.
                scales, step = self._moves(moved, a, b, before, number), f"step {number}"
                differences = [compare(name, a[name], b[name], scales[name]) for name in a]
                worst = max(differences, key=lambda difference: difference.relative)
                moved.note(worst, step, f"{worst.name} at {step}")
                loss = compare("loss", *(side["loss"][i] for side in sides))
                losses.note(loss, step, f"loss at {step}")
            for job in self.jobs:
                (job.folder / f"{file}.safetensors").unlink()
            first += len(sides[0]["loss"])
        return moved, losses


def read(job: Job, name: str) -> State:
    """The arrays of one side's file."""
    return load((job.folder / f"{name}.safetensors").read_bytes())


def operations(model: ModelSpec, seen: State) -> list[str]:
    """Names of what a forward pass computes between its batch and its loss, in order.

    Args: seen: what a side noted in a pass; without masks for it, no layer of stochastic depth is among them.
    """
    depth = any(name in seen for name in folds.branches(model))
    return [name for name in folds.operations(model, depth) if name not in (*BATCH, "loss")]
