"""The figures of a report: a module each, with a `draw` that gives a figure and its caption, or None.

A new figure is a module here its `draw` in FIGURES, and the name of its files in NAMES.
"""

from collections.abc import Callable, Iterator

from analysis.figures import curves, difference, filters, frameworks, frontier, permutation, sweep
from analysis.figures.style import Drawn
from analysis.report import Report

FIGURES: tuple[Callable[[Report], Drawn | None], ...] = (
    sweep.draw,
    difference.draw,
    sweep.draw_data_scale,
    permutation.draw,
    curves.draw,
    frontier.draw,
    frameworks.draw,
    filters.draw,
)
# What their files are called.
NAMES = (
    "sweep", "differences", "data_scale", "permutation", "learning_curves", "frontier", "frameworks", "filters",
)  # fmt: skip


def draw_all(report: Report) -> Iterator[Drawn]:
    """Those that the ablation has something to show in."""
    for draw in FIGURES:
        if (drawn := draw(report)) is not None:
            yield drawn
