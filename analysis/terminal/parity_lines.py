"""Results of a parity ladder: lines for the terminal, data for scripts, and a picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.table.layout import aligned
from backends.errors import MixlabError, choices
from experiments.files import finite
from experiments.parity.pair import Side
from experiments.parity.rungs import Rung

HEAD = ["rung", "", "relative", "absolute", "tolerance", "where the difference is largest", "reason for the tolerance"]
LEAST = 1e-18  # a difference of zero on a logarithmic axis
MAX_LEGEND = 8
SHOWN = ("activations", "loss", "gradients", "step", "trajectory")  # rungs that have a column in Markdown
PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Climbed:
    """The rungs of one model.

    conditions: how both sides train it.   not_covered: what no rung looks at.   about: what each side says of itself.
    """

    title: str
    sides: tuple[Side, Side]
    conditions: str
    not_covered: list[str]
    about: list[dict[str, str]]
    rungs: list[Rung]

    @property
    def passed(self) -> bool:
        return all(rung.passed for rung in self.rungs)


def lines(climbed: Climbed) -> list[str]:
    """The sides that were compared, a line for each rung, and the first place where they differ."""
    layout = [HEAD]
    for rung in climbed.rungs:
        verdict = ("ok" if rung.tolerance.limit < math.inf else "free") if rung.passed else "PARTS"
        if rung.largest is None:
            word = "equal" if verdict == "ok" else ""
            layout.append([rung.name, verdict, "", "", word, word, rung.tolerance.reason])
            continue
        largest = rung.largest
        where = f"{largest.name}{list(largest.index) if largest.index else ''}" if largest.absolute else "equal"
        numbers = [f"{largest.relative:.1e}", f"{largest.absolute:.1e}", f"{rung.tolerance.limit:.0e}"]
        layout.append([rung.name, verdict, *numbers, where, rung.tolerance.reason])
    return [
        f"{climbed.title}: {_sides(climbed)}; not covered: {', '.join(climbed.not_covered)}",
        climbed.conditions,
        "",
        *aligned(layout),
        "",
        _verdict(climbed.rungs),
    ]


def summary(ladders: Sequence[Climbed]) -> str:
    """The number of models that hold, and the first place where each of the others differs."""
    parting = [climbed for climbed in ladders if not climbed.passed]
    held = f"{len(ladders) - len(parting)} of {len(ladders)} models hold on every rung"
    return "\n".join([held, *(f"{climbed.title}: {_verdict(climbed.rungs)}" for climbed in parting)])


def as_json(climbed: Climbed) -> dict[str, Any]:
    """Sides, and each rung's verdict, largest difference, tolerance and place."""
    rungs = [
        finite(
            {
                "rung": rung.name,
                "passed": rung.passed,
                "place": rung.place or None,
                "tolerance": rung.tolerance.limit,
                "seen": rung.tolerance.seen,
                "reason": rung.tolerance.reason,
                "relative": rung.largest.relative if rung.largest else 0.0,
                "absolute": rung.largest.absolute if rung.largest else 0.0,
                "tensor": rung.largest.name if rung.largest else None,
                "index": list(rung.largest.index) if rung.largest else None,
            }
        )
        for rung in climbed.rungs
    ]
    sides = [{"side": str(side), **about} for side, about in zip(climbed.sides, climbed.about, strict=True)]
    return {
        "model": climbed.title,
        "not_covered": climbed.not_covered,
        "conditions": climbed.conditions,
        "sides": sides,
        "passed": climbed.passed,
        "rungs": rungs,
    }


def markdown(ladders: Sequence[Climbed]) -> str:
    """A table in Markdown: a model a row, its largest differences, and how near to a tolerance any rung came."""
    shown = [name for name in SHOWN if any(rung.name == name for rung in ladders[0].rungs)]
    rows = [["model", *shown, "nearest to its tolerance"], ["---"] * (len(shown) + 2)]
    for climbed in ladders:
        largest = {rung.name: rung.largest.relative if rung.largest else 0.0 for rung in climbed.rungs}
        limits = {rung.name: rung.tolerance.limit for rung in climbed.rungs if 0 < rung.tolerance.limit < math.inf}
        name = max(limits, key=lambda name: largest[name] / limits[name])
        nearest = f"{name}: {largest[name]:.1e} of {limits[name]:.0e}" if climbed.passed else _verdict(climbed.rungs)
        rows.append([climbed.title, *(f"{largest[name]:.1e}" for name in shown), nearest])
    conditions = {climbed.conditions for climbed in ladders}
    head = f"{_sides(ladders[0])}{'' if len(conditions) > 1 else f'; {conditions.pop()}'}."
    return "\n".join([head, "", *(f"| {' | '.join(row)} |" for row in rows)])


def check_plot(path: Path) -> None:
    """Check the file of --plot. Raises: MixlabError: no picture can be written there."""
    where = f"command line: --plot: {path}"
    if path.suffix not in PICTURES:
        raise MixlabError(
            f"{where}: expected the ending of a picture, got {path.suffix!r}; {choices(path.suffix, PICTURES)}"
        )
    if not path.parent.is_dir():
        raise MixlabError(f"{where}: there is no folder {path.parent}; make it first")
    try:
        path.open("ab").close()
    except OSError as error:
        raise MixlabError(f"{where} cannot be written ({error.strerror})") from error


def plot(path: Path, ladders: Sequence[Climbed]) -> None:
    """Write a picture: the largest relative difference over the depth of the forward pass, and over the steps.

    Raises: MixlabError: it cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    depth, steps = figure.subplots(1, 2)
    for climbed in ladders:
        rungs = {rung.name: rung for rung in climbed.rungs}
        for axes, name in ((depth, "activations"), (steps, "trajectory")):
            values = [max(value, LEAST) for value in rungs[name].by_name.values()]
            axes.semilogy(range(1, len(values) + 1), values, ".-" if axes is depth else "-", label=climbed.title)
            if math.isfinite(rungs[name].tolerance.limit):
                axes.axhline(max(rungs[name].tolerance.limit, LEAST), color="black", linestyle=":")
    depth.set(xlabel="operation of the forward pass", ylabel="largest relative difference", title="over depth")
    steps.set(xlabel="step", title="over steps, of all parameters")
    if len(ladders) <= MAX_LEGEND:
        steps.legend(fontsize="small")
    figure.suptitle(f"{ladders[0].sides[0]} against {ladders[0].sides[1]}; dotted: the tolerance")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise MixlabError(f"command line: --plot: {path} cannot be written ({error.strerror})") from error


def _verdict(rungs: Sequence[Rung]) -> str:
    first = next((rung for rung in rungs if not rung.passed), None)
    free = [rung.name for rung in rungs if math.isinf(rung.tolerance.limit)]
    held = (
        f"every rung with a tolerance holds; none is promised for {' and '.join(free)}" if free else "every rung holds"
    )
    return f"they part first at {first.name}: {first.place}" if first else held


def _sides(climbed: Climbed) -> str:
    """`torch:float64 (2.13.0, cpu) against jax:float64 (0.10.1, cpu)`"""
    return " against ".join(
        f"{side} ({about[side.backend]}, {about['device']})" if side.backend in about else str(side)
        for side, about in zip(climbed.sides, climbed.about, strict=True)
    )
