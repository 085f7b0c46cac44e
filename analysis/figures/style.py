"""The look of all figures: legible in greyscale and to the colour-blind, and the same bytes each time."""

import math
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
from matplotlib.ticker import FuncFormatter, Locator, MaxNLocator, NullLocator

# Okabe and Ito's colours, by falling contrast to white: a colour and a marker for each setting that is compared.
COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#999999")
MARKERS = "os^DvPX*"
MAX_SETTINGS = len(COLOURS)  # in one figure; more cannot be told apart
LINES = ("-", (0, (3, 1.5)), (0, (1, 1.2)), (0, (4, 1, 1, 1)))  # a line for each framework; the first has full markers
DIM, GRID = "#777777", "#b0b0b0"  # of what is no setting
FORMATS = ("svg", "pdf", "png")
PNG_DPI = 150
MAX_TICKS = 5  # of a logarithmic axis
STEPS = ((1, 2, 5), (1, 3), (1,))  # of a decade that have a tick, where there are not too many of them
GAP = 4  # points between two labels of ticks
MAX_LEGEND_COLUMNS = 3
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
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
            for ax in self.figure.axes:
                _clear_ticks(ax)
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


def draw_legend(figure: Figure, handles: Sequence[Any], words: Sequence[str], title: str) -> None:
    """Draw a legend above the axes, where a narrow screen shows it too, and make the figure higher by it."""
    look: dict[str, Any] = {"loc": "outside upper left", "title_fontsize": 8, "handlelength": 2.6, "alignment": "left"}
    for num_columns in range(MAX_LEGEND_COLUMNS, 0, -1):
        made = figure.legend(handles, words, title=title, ncols=num_columns, **look)
        box = made.get_window_extent()
        if box.width <= figure.bbox.width or num_columns == 1:
            figure.set_figheight(figure.get_figheight() + box.height / figure.dpi)
            return
        made.remove()


class LogTicks(Locator):
    """At most MAX_TICKS round numbers on a logarithmic axis, also within one decade."""

    def __call__(self) -> Any:
        return self.tick_values(*sorted(self.axis.get_view_interval()))  # type: ignore[union-attr]

    def tick_values(self, vmin: float, vmax: float) -> Any:
        powers = range(math.floor(math.log10(vmin)), math.ceil(math.log10(vmax)) + 1)
        for steps in STEPS:
            ticks = [step * 10.0**power for power in powers for step in steps if vmin <= step * 10.0**power <= vmax]
            if len(ticks) <= MAX_TICKS:
                break
        if len(ticks) < 2:
            return MaxNLocator(MAX_TICKS - 1).tick_values(vmin, vmax)
        return ticks[:: math.ceil(len(ticks) / MAX_TICKS)]


def plain_ticks(axis: Any) -> None:
    """Give a logarithmic axis few ticks that are plain numbers. Args: axis: ax.xaxis or ax.yaxis."""
    axis.set_major_locator(LogTicks())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(NullLocator())


def _clear_ticks(ax: Any) -> None:
    """Leave out the ticks below the axes whose labels would touch the one before."""
    low, high = sorted(ax.get_xlim())
    shown = [one for one in ax.xaxis.get_majorticklabels() if low <= one.get_position()[0] <= high and one.get_text()]
    end, clear = -math.inf, []
    for label in shown:
        box = label.get_window_extent()
        if label.get_visible() and box.x0 >= end:
            clear.append(label)
            end = box.x1 + GAP * ax.figure.dpi / 72
    if any(label.get_visible() for label in shown) and len(clear) < len(shown):
        ax.set_xticks([one.get_position()[0] for one in clear], [one.get_text() for one in clear])


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
