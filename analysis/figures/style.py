"""The look of all figures: legible in greyscale and to the colour-blind, and the same bytes each time."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

# Okabe and Ito's colours, by falling contrast to white, each with a line and a marker of its own.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#999999")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
MARKERS = "os^DvPX*"
MAX_LINES = len(COLOURS)  # in one figure; more cannot be told apart
FORMATS = ("svg", "pdf", "png")
PNG_DPI = 150
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "mixlab",
    "pdf.fonttype": 42,
    "figure.max_open_warning": 0,  # a page of several ablations holds the figures of all until they are written
}
matplotlib.rcParams.update(STYLE)  # type: ignore[arg-type]
MAX_LEGEND = 90  # letters side by side


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure and its caption."""

    name: str  # of its files
    title: str
    caption: str  # with the numbers that it shows
    figure: Figure

    def __post_init__(self) -> None:
        """Lay it out once, so that every file of it is the same picture."""
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine(None)  # of any other kind each file would be laid out again

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The figure in each of FORMATS."""
        return {kind: self._save(kind) for kind in FORMATS}

    def _save(self, kind: str) -> bytes:
        buffer, about = BytesIO(), {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
        self.figure.savefig(buffer, format=kind, dpi=PNG_DPI, metadata=about)
        return buffer.getvalue()

    def close(self) -> None:
        close(self.figure)


def new(width: float = 5.6, height: float = 3.4, **grid: Any) -> tuple[Figure, Any]:
    """Figure and axes, of inches; `grid` as in matplotlib.pyplot.subplots."""
    return plt.subplots(figsize=(width, height), layout="constrained", **grid)


def close(figure: Figure) -> None:
    plt.close(figure)


def legend(figure: Figure, ax: Any) -> None:
    """Draw the legend below the axes; in one column if its words are long."""
    handles, words = ax.get_legend_handles_labels()
    if words:
        words = [plain(word) for word in words]
        columns = max(1, min(3, len(words), MAX_LEGEND // (max(map(len, words)) + 6)))
        figure.legend(handles, words, loc="outside lower center", ncols=columns)


def plain(text: str) -> str:
    """Text in which Matplotlib finds no formula."""
    return text.replace("$", r"\$")


def look(place: int) -> dict[str, Any]:
    """Colour, line and marker of the line at a place."""
    i = place % MAX_LINES
    return {"color": COLOURS[i], "linestyle": LINES[i], "marker": MARKERS[i], "markersize": 4}


def some(labels: Sequence[Any], most: int = MAX_LINES) -> tuple[list[Any], str]:
    """The labels that one figure can hold, evenly spread, and a sentence on those that are left out."""
    if len(labels) <= most:
        return list(labels), ""
    places = sorted({round(i * (len(labels) - 1) / (most - 1)) for i in range(most)})
    return [
        labels[i] for i in places
    ], f" The figure shows {len(places)} of {len(labels)}, evenly spread over the table."
