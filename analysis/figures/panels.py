"""Panels of a figure: a grid of the values that are neither on an axis nor compared."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.looks import Looks
from analysis.labels import Label

COLUMNS = 4  # of panels
FULL = 0.5  # the share of a grid of panels that is not full enough, as where fields are drawn, and vary together
WIDTH, HEIGHT = 1.75, 1.75  # inches of a panel
ALONE = (3.9, 2.9)  # of one that stands alone
TITLE_LETTERS = 23  # on a line


@dataclass(frozen=True, eq=False)
class Panels:
    """Values of `names` in rows of panels; None where a row is shorter."""

    looks: Looks
    names: tuple[str, ...]
    rows: tuple[tuple[Label | None, ...], ...]
    left_out: str

    def title(self, values: Label) -> str:
        return self.looks.roles.phrase(self.names, values)

    @cached_property
    def _cells(self) -> dict[Label, list[Label]]:
        cells: dict[Label, list[Label]] = {}
        for label, cell in self.looks.report.rows.items():
            if not math.isnan(cell["mean"]):
                cells.setdefault(self.looks.roles.part(label, self.names), []).append(label)
        return cells

    def cells(self, values: Label) -> list[Label]:
        """Cells of a panel that have a mean."""
        return self._cells.get(values, [])

    def draw(self, each: int = 1, **options: Any) -> tuple[Figure, list[list[Any]]]:
        """A figure, and the axes of each of `rows` times `each`; axes without values are not there (None)."""
        num_columns = len(self.rows[0])
        width, height = ALONE if num_columns * len(self.rows) * each == 1 else (WIDTH, HEIGHT)
        size = (width * num_columns + 0.3, height * len(self.rows) * each + 0.5)
        grid = {"nrows": len(self.rows) * each, "ncols": num_columns, "squeeze": False, "sharex": True, "sharey": True}
        figure, axes = style.new(*size, **{**grid, **options})
        for row, line in enumerate(axes):
            for column, ax in enumerate(line):
                values = self.rows[row // each][column]
                if values is None:
                    ax.remove()
                elif row % each == 0 and self.names:
                    ax.set_title(style.wrapped(self.title(values), TITLE_LETTERS))
        return figure, [list(line) for line in axes]


def panels(looks: Looks, names: Sequence[str], most_rows: int, most_folded: int) -> Panels:
    """Panels of the values of fields: the first field's are the columns, where they are few and most panels are there.

    Args: most_rows: of the values of the other fields.    most_folded: of a row of panels that is too long for one.
    """
    found = list(dict.fromkeys(looks.roles.part(label, names) for label in looks.report.rows))
    firsts, rests = (list(dict.fromkeys(values[part] for values in found)) for part in (slice(1), slice(1, None)))
    if len(firsts) > COLUMNS or len(names) < 2 or FULL * len(firsts) * len(rests) >= len(found):
        shown = style.some(found, COLUMNS * most_folded)
        num_columns = min(COLUMNS, len(shown)) if len(shown) != COLUMNS + 1 else 3
        rows = [shown[i : i + num_columns] for i in range(0, len(shown), num_columns)]
        rows = [[*row, *[None] * (num_columns - len(row))] for row in rows]
    else:
        rests = style.some(rests, most_rows)
        rows = [[(*first, *rest) if (*first, *rest) in found else None for first in firsts] for rest in rests]
        shown = [values for row in rows for values in row if values is not None]
    left_out = style.left_out(len(shown), len(found), f"panels ({looks.roles.names_text(names)})")
    return Panels(looks, tuple(names), tuple(map(tuple, rows)), left_out)
