"""A table for LaTeX whose numbers stand on their decimal points: columns of siunitx under heads of their own."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.cells import Options
from analysis.labels import Label, field_text, head_texts, rows, value_text
from analysis.table import wording
from analysis.table.latex import escape, framed
from experiments.design.ablation import Ablation


@dataclass(frozen=True, eq=False)
class Table:
    """Cells by the values of report.rows and report.columns."""

    ablation: Ablation
    cells: dict[Label, dict[Label, Any]]
    heads: dict[Label, str]
    options: Options

    @property
    def has_difference(self) -> bool:
        return bool(self.ablation.report.baseline)

    @property
    def width(self) -> int:
        """Columns below a head: mean and deviation, n, and a difference with its sign."""
        return 5 if self.has_difference else 3

    def lines(self) -> Iterator[str]:
        rows = self.ablation.report.rows
        yield rf"\begin{{tabular}}{{{'l' * len(rows)}{''.join(map(self._columns, self.heads))}}}"
        yield r"\toprule"
        if any(self.heads.values()):
            named = (rf"\multicolumn{{{self.width}}}{{c}}{{{escape(head)}}}" for head in self.heads.values())
            yield f"{' & '.join(('',) * len(rows))}{' & ' if rows else ''}{' & '.join(named)} \\\\"
            yield "".join(self._rule(place) for place in range(len(self.heads)))
        names = [escape(field_text(self.ablation, name)) for name in rows]
        below = [r"\multicolumn{2}{c}{mean $\pm$ s.d.}", "{$n$}"]
        below += [r"\multicolumn{2}{c}{difference}"] if self.has_difference else []
        yield f"{' & '.join([*names, *below * len(self.heads)])} \\\\"
        yield r"\midrule"
        yield from self._body()
        yield r"\bottomrule"
        yield r"\end{tabular}"

    def _rule(self, place: int) -> str:
        first = len(self.ablation.report.rows) + 1 + place * self.width
        return rf"\cmidrule(lr){{{first}-{first + self.width - 1}}}"

    def _body(self) -> Iterator[str]:
        """Rows; the first field is written once for its rows, which stand together."""
        last: Any = None
        for values, of_head in self.cells.items():
            named = zip(self.ablation.report.rows, values, strict=True)
            words = ["{}" + escape(value_text(self.ablation, *one)) for one in named]
            if len(values) > 1 and values[0] == last:
                words[0] = ""
            elif last is not None and len(values) > 1:
                yield r"\addlinespace"
            last = values[0] if values else None
            shown = [" & ".join(self._cell(of_head.get(head))) for head in self.heads]
            yield f"{' & '.join([*words, *shown])} \\\\"

    def _cell(self, cell: Any) -> list[str]:
        if cell is None or math.isnan(cell["mean"]):
            words = "---" if cell is None else f"{int(cell['n'])} of {int(cell['planned'])}"
            return [rf"\multicolumn{{{self.width}}}{{c}}{{{words}}}"]
        std = "{?}" if math.isnan(cell["std"]) else wording.number(self.ablation, cell["std"])
        parts = [wording.number(self.ablation, cell["mean"]), std, f"{int(cell['n'])}"]
        if self.has_difference:
            marks = escape(wording.marks(cell, self.options))
            is_known = not math.isnan(cell["difference"])
            parts += [wording.number(self.ablation, cell["difference"], "+") if is_known else "{---}", marks]
        return parts

    def _columns(self, head: Label) -> str:
        """The columns below a head, as wide as their numbers."""
        parts = [self._cell(of_head.get(head)) for of_head in self.cells.values()]
        whole = [part for part in parts if len(part) == self.width]
        mean, std, n, *difference = (_format([part[place] for part in whole]) for place in range(self.width))
        columns = rf"S[table-format={mean}]@{{\,$\pm$\,}}S[table-format={std}]S[table-format={n}]"
        return columns + (f"S[table-format={difference[0]}]@{{}}l" if difference else "")


def _format(numbers: Sequence[str]) -> str:
    """The `table-format` of numbers: `+2.1` for -10.4 and +3.5."""
    known = [number for number in numbers if number[:1] in "+-0123456789" and number]
    if not known:
        return "1.1"
    whole = [number.lstrip("+-").partition(".") for number in known]
    digits = max(len(before) for before, _, _ in whole)
    after = max(len(behind) for _, _, behind in whole)
    sign = "+" if any(number[0] in "+-" for number in known) else ""
    return f"{sign}{digits}.{after}" if after else f"{sign}{digits}"


def _grouped(rows: Sequence[Label]) -> list[Label]:
    """Rows with those of equal first fields together, each field's values in order of appearance."""
    orders = [list(dict.fromkeys(values)) for values in zip(*rows, strict=True)]
    return sorted(rows, key=lambda row: [order.index(value) for order, value in zip(orders, row, strict=True)])


def document(ablation: Ablation, table: pd.DataFrame, options: Options, around: tuple[list[str], list[str]]) -> str:
    """The LaTeX file. Args: around: lines of the caption and of the notes."""
    num_rows = len(ablation.report.rows)
    cells: dict[Label, dict[Label, Any]] = {}
    for label, cell in rows(ablation, table).items():
        cells.setdefault(label[:num_rows], {})[label[num_rows:]] = cell
    cells = {label: cells[label] for label in _grouped(list(cells))}
    made = Table(ablation, cells, head_texts(ablation, table), options)
    return framed(list(made.lines()), ablation.name, *around, packages=("booktabs", "siunitx"))
