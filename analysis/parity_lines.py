"""A climbed ladder as lines for the terminal, as data for scripts, and as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.layout import aligned
from experiments.files import finite
from experiments.parity.ladder import Rung

HEAD = ["rung", "", "largest relative", "absolute", "where", "tolerance", "reason"]


def rung_lines(rungs: Sequence[Rung]) -> list[str]:
    """A line a rung, and under them the first place where the sides part."""
    layout = [HEAD]
    for rung in rungs:
        verdict = "ok" if rung.passed else "PARTS"
        if rung.largest is None:
            layout.append([rung.name, verdict, "", "", "names and shapes", "equal", rung.tolerance.reason])
            continue
        largest = rung.largest
        where = f"{largest.name}{list(largest.index) if largest.index else ''}"
        numbers = [f"{largest.relative:.1e}", f"{largest.absolute:.1e}", where, f"{rung.tolerance.limit:.0e}"]
        layout.append([rung.name, verdict, *numbers, rung.tolerance.reason])
    return [*aligned(layout), "", verdict_line(rungs)]


def verdict_line(rungs: Sequence[Rung]) -> str:
    first = next((rung for rung in rungs if not rung.passed), None)
    return f"they part first at {first.name}: {first.place}" if first else "every rung holds"


def rungs_json(rungs: Sequence[Rung]) -> list[dict[str, Any]]:
    """Each rung's verdict, largest difference, tolerance and place."""
    return [
        finite(
            {
                "rung": rung.name,
                "passed": rung.passed,
                "place": rung.place or None,
                "tolerance": rung.tolerance.limit,
                "reason": rung.tolerance.reason,
                "relative": rung.largest.relative if rung.largest else 0.0,
                "absolute": rung.largest.absolute if rung.largest else 0.0,
                "tensor": rung.largest.name if rung.largest else None,
                "index": list(rung.largest.index) if rung.largest else None,
            }
        )
        for rung in rungs
    ]


def plot(path: Path, title: str, rungs: Sequence[Rung]) -> None:
    """Write a picture: the largest relative difference over the depth of the forward pass, and over the steps."""
    from matplotlib.figure import Figure

    by_name = {rung.name: rung for rung in rungs}
    figure = Figure(figsize=(10, 4), layout="constrained")
    depth, steps = figure.subplots(1, 2)
    values = [max(value, 1e-18) for value in by_name["activations"].by_name.values()]
    depth.semilogy(values, ".-")
    depth.set(xlabel="operation of the forward pass", ylabel="largest relative difference", title="over depth")
    values = [max(value, 1e-18) for value in by_name["steps"].by_name.values()]
    steps.semilogy(range(1, len(values) + 1), values)
    steps.set(xlabel="step", title="over steps, of all parameters and the loss")
    for axes, name in ((depth, "activations"), (steps, "steps")):
        axes.axhline(by_name[name].tolerance.limit, color="black", linestyle=":", label="tolerance")
        axes.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
