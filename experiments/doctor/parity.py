"""Parity: the short ladder, CPU against the device for each framework, then framework against framework on it."""

import itertools
from contextlib import closing
from functools import partial
from pathlib import Path

from experiments.design.ablation import load_base
from experiments.doctor.check import Asked, Check, Verdict, differs, not_run, ok
from experiments.machine.environment import ROOT
from experiments.parity import pair
from experiments.parity.pair import Side
from experiments.parity.rungs import Rung
from experiments.parity.trials import trials

BASE = ROOT / "experiments/bases/small.yaml"
NUM_STEPS = 5
MODELS = ("model.num_blocks=1", "model.token_mixing=[tied,untied]")
SHORT_MODELS = ("model.num_blocks=1",)
# In the order of worth: in float64 a fault stands alone; the others round, and are what is trained in.
PRECISIONS = ("float64", "float32", "bfloat16", "tf32")
SHORT_PRECISIONS = ("float64", "float32")
LIMIT_S = 180.0


def checks(asked: Asked) -> list[Check]:
    """A ladder for each precision and pair of sides."""
    return [
        _check(pair, asked)
        for precision in (SHORT_PRECISIONS if asked.short else PRECISIONS)
        for pair in _pairs(precision, asked)
    ]


def _pairs(precision: str, asked: Asked) -> list[tuple[Side, Side]]:
    on_device = [Side(name, precision, asked.device) for name in asked.backends]
    # A CPU has no tf32: what it is held against there is float32.
    on_cpu = [Side(name, "float32" if precision == "tf32" else precision, "cpu") for name in asked.backends]
    return [*zip(on_cpu, on_device, strict=True), *itertools.combinations(on_device, 2)]


def _check(sides: tuple[Side, Side], asked: Asked) -> Check:
    return Check(f"{sides[0]} against {sides[1]}", partial(_climb, sides, asked), LIMIT_S)


def _climb(sides: tuple[Side, Side], asked: Asked) -> Verdict:
    """Climb the ladder of each model; the first rung that fails is the verdict."""
    precisions = [side.precision for side in sides]
    if not asked.is_cuda and "tf32" in precisions:
        return not_run("tf32 needs a CUDA device")
    if asked.kind == "tpu" and "float64" in precisions:
        return not_run("float64 needs a CPU or a CUDA device")
    rungs = [rung for of_model in _ladders(sides, asked) for rung in of_model]
    figures = {rung.name: [rung.largest.relative, rung.tolerance.limit] for rung in rungs if rung.largest}
    for rung in rungs:
        if not rung.passed:
            return differs(f"first at the rung {rung.name}: {rung.place}{_size(rung)}", rungs=figures)
    return ok(f"{len(rungs)} rungs{_size(max(rungs, key=_share))}", rungs=figures)


def _ladders(sides: tuple[Side, Side], asked: Asked) -> list[list[Rung]]:
    """The rungs of each model."""
    ablation = load_base(Path(BASE), SHORT_MODELS if asked.short else MODELS)
    planned = trials(ablation, NUM_STEPS, asked.work / "data")
    with closing(pair.ladders(planned, sides, NUM_STEPS, asked.work / "data", asked.pythons)) as ladders:
        return [list(ladder.climb()) for ladder in ladders]


def _share(rung: Rung) -> float:
    """How much of a rung's tolerance its largest difference takes."""
    return rung.largest.relative / rung.tolerance.limit if rung.largest and rung.tolerance.limit else 0.0


def _size(rung: Rung) -> str:
    if not rung.largest:
        return ""
    return f"; {rung.name}: {rung.largest.relative:.1e} of {rung.tolerance.limit:.1e} that are allowed"
