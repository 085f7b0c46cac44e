"""The figures of a report: a module each, with a `draw` that yields figures with their captions.

A new figure is a module here, and its `draw` in FIGURES.
"""

from collections.abc import Callable, Iterator

from analysis.figures import curves, difference, filters, frameworks, frontier, permutation, sensitivity, sweep
from analysis.figures.style import Drawn
from analysis.report import Report

FIGURES: tuple[Callable[[Report], Iterator[Drawn]], ...] = (
    sweep.draw,
    difference.draw,
    sweep.draw_data_scale,
    sensitivity.draw,
    permutation.draw,
    curves.draw,
    frontier.draw,
    frameworks.draw,
    filters.draw,
)


def draw_all(report: Report) -> Iterator[Drawn]:
    """Draw every figure that the ablation has numbers for."""
    for draw in FIGURES:
        yield from draw(report)
