"""The look of all figures: legible in greyscale and to the colour-blind, and the same bytes each time."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# Okabe and Ito's colours, by falling contrast to white: a colour and a marker for each setting that is compared.
COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#999999")
MARKERS = "os^DvPX*"
MAX_SETTINGS = len(COLOURS)  # in one figure; more cannot be told apart
LINES = ("-", (0, (3, 1.5)), (0, (1, 1.2)), (0, (4, 1, 1, 1)))  # a line for each framework; the first has full markers
DIM, GRID = "#777777", "#b0b0b0"  # of what is no setting
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
    "grid.color": GRID,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "mixlab",
    "pdf.fonttype": 42,
}
matplotlib.rcParams.update(STYLE)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure and its caption."""

    name: str  # of its files
    title: str
    caption: str  # what is drawn, and the numbers that no table has
    figure: Figure
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)  # of Values

    def __post_init__(self) -> None:
        """Lay it out once, so that every file of it is the same picture."""
        engine = self.figure.get_layout_engine()
        if engine is not None:
            engine.execute(self.figure)
        self.figure.set_layout_engine(None)  # of any other kind each file would be laid out again

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The figure in each of FORMATS."""
        return {kind: self._save(kind) for kind in FORMATS}

    def _save(self, kind: str) -> bytes:
        buffer, about = BytesIO(), {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
        self.figure.savefig(buffer, format=kind, dpi=PNG_DPI, metadata=about)
        return buffer.getvalue()


class Values:
    """Texts that the page shows under the pointer, for each mark of some lines."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {}

    def add(self, line: Line2D, texts: Sequence[str]) -> None:
        """Args: texts: of each mark of the line, all of which lie within the figure."""
        name = f"values-{len(self.texts)}"
        line.set_gid(name)
        self.texts[name] = list(texts)


def new(width: float = 5.6, height: float = 3.4, **grid: Any) -> tuple[Figure, Any]:
    """Figure and axes, of inches; `grid` as in matplotlib.figure.Figure.subplots."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(**grid)


def plain_ticks(axis: Any) -> None:
    """Give a logarithmic axis ticks that are plain numbers. Args: axis: ax.xaxis or ax.yaxis."""
    axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def plain(text: str) -> str:
    """Text in which Matplotlib finds no formula."""
    return text.replace("$", r"\$")


def wrapped(text: str, width: int) -> str:
    """Text on lines of so many letters, for a title or a legend."""
    return plain("\n".join(textwrap.wrap(text, width)) or text)


def some(labels: Sequence[Any], most: int = MAX_SETTINGS) -> list[Any]:
    """Those that one figure can hold, evenly spread, the first and the last among them."""
    if len(labels) <= most:
        return list(labels)
    return [labels[i] for i in sorted({round(i * (len(labels) - 1) / max(1, most - 1)) for i in range(most)})]


def left_out(num_shown: int, total: int, what: str) -> str:
    """A sentence on what a figure leaves out; empty if nothing."""
    if num_shown == total:
        return ""
    return f" The figure shows {num_shown} of {total} {what}, evenly spread over the table."
