"""The table of an ablation, laid out as the YAML says: for a terminal, for Markdown, LaTeX, CSV and JSON."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import pandas as pd

from analysis.cells import STATES, Options, cells
from analysis.labels import Label, Row, field_text, head_texts, records, rows, value_text
from analysis.report import Report
from analysis.table import marginal, siunitx, wording
from analysis.table.heading import heading
from analysis.table.latex import document
from analysis.table.layout import aligned, markdown, paragraph
from analysis.table.notes import notes
from experiments.design.ablation import Ablation
from experiments.files import finite

FORMATS = {"text": "txt", "csv": "csv", "markdown": "md", "json": "json", "latex": "tex"}  # and the endings of files
SIUNITX = "siunitx"  # printed on request, and no file of a report


def render(ablation: Ablation, frame: pd.DataFrame, style: str, options: Options = Options()) -> str:  # noqa: B008
    """The table in one of FORMATS: csv and json hold the numbers of `cells`, the others its rows and columns."""
    return render_cells(ablation, frame, cells(ablation, frame, options), style, options)


def render_cells(ablation: Ablation, frame: pd.DataFrame, table: pd.DataFrame, style: str, options: Options) -> str:
    """The table in one of FORMATS, from cells that are made already."""
    return Rendered(ablation, frame, table, options).text(style)


_RENDERED: "WeakKeyDictionary[Report, Rendered]" = WeakKeyDictionary()


def rendered_of(report: Report) -> "Rendered":
    """The table of a report, made once: it is printed, and then written in every format."""
    if report not in _RENDERED:
        _RENDERED[report] = Rendered(report.ablation, report.frame, report.table, report.options, report)
    return _RENDERED[report]


@dataclass(frozen=True, eq=False)
class Rendered:
    """A table whose rows, heading and notes are made once for all formats."""

    ablation: Ablation
    frame: pd.DataFrame
    table: pd.DataFrame
    options: Options
    report: Report | None = None  # of which marginal effects are told

    @cached_property
    def marginal(self) -> marginal.Told:
        return marginal.told(self.report) if self.report else marginal.Told()

    @cached_property
    def layout(self) -> list[list[str]]:
        return make_layout(self.ablation, self.table, self.options)

    @cached_property
    def above(self) -> list[str]:
        return heading(self.ablation, self.table, self.options)

    @cached_property
    def differences(self) -> list[str]:
        return wording.differences(self.ablation, self.table)

    @cached_property
    def notes(self) -> list[str]:
        return notes(self.ablation, self.table, self.frame, self.options, self.report.choices if self.report else ())

    def text(self, style: str) -> str:
        """The table in one of FORMATS, or for SIUNITX."""
        report, table = self.ablation.report, self.table
        if style == "csv":
            return table.assign(commits=[" ".join(commits) for commits in table["commits"]]).to_csv(index=False)
        if style == "json":
            rows = [{str(name): finite(value) for name, value in row.items()} for row in records(table)]
            return json.dumps({"ablation": self.ablation.name, "metric": report.metric, "cells": rows}, indent=1) + "\n"
        if style == "text":
            effects = [f"Marginal effects, {marginal.ABOUT}:", *self.marginal.lines] if self.marginal.lines else []
            blocks = filter(None, (self.above, aligned(self.layout), self.notes, effects))
            return "\n\n".join("\n".join(block) for block in blocks).rstrip() + "\n"
        below = [*self.differences, *self.notes]
        if style == SIUNITX:
            above = heading(self.ablation, self.table, self.options, with_equivalence=False)
            return siunitx.document(self.ablation, self.table, self.options, (above, below))
        if style == "latex":
            return document(self.layout, len(report.rows), self.ablation.name, self.above, below)
        lines = [*map(paragraph, self.above), *markdown(self.layout), "", *map(paragraph, below)]
        return "\n".join(lines).rstrip() + "\n"


def make_layout(ablation: Ablation, table: pd.DataFrame, options: Options) -> list[list[str]]:
    """Header and rows of the table as strings."""
    num_rows = len(ablation.report.rows)
    heads = head_texts(ablation, table)
    cells: dict[Label, dict[Label, Any]] = {}
    for label, cell in rows(ablation, table).items():
        cells.setdefault(label[:num_rows], {})[label[num_rows:]] = cell
    tested = [
        head
        for head in heads
        if any(head in of_head and of_head[head].get("equivalence_n", 0) > 0 for of_head in cells.values())
    ]
    body = []
    for values, of_head in cells.items():
        shown = [cell_text(ablation, of_head[head], options) if head in of_head else "—" for head in heads]
        shown += [equivalence_text(ablation, of_head[head]) if head in of_head else "—" for head in tested]
        body.append([*(value_text(ablation, *one) for one in zip(ablation.report.rows, values, strict=True)), *shown])
    header = [
        *(field_text(ablation, name) for name in ablation.report.rows),
        *(title or ablation.report.metric for title in heads.values()),
    ]
    return [[*header, *(f"{heads[head]} p (n, largest)".lstrip() for head in tested)], *body]


def equivalence_text(ablation: Ablation, cell: Row) -> str:
    """`0.012 (3, 0.28)`: p, pairs, the largest difference; `same (3)`."""
    p, n = float(cell["equivalence_p"]), int(cell["equivalence_n"])
    if n == 0:
        return "—"
    if cell["equivalence_kind"] or pd.isna(p):
        return f"{cell['equivalence_kind'] or '?'} ({n})"
    return f"{wording.p_value(p)} ({n}, {wording.number(ablation, cell['equivalence_largest'], more=1)})"


def cell_text(ablation: Ablation, cell: Row, options: Options) -> str:
    """The text of a cell: `86.1 ± 0.4 (3) +1.2*`; `(2 of 3)` if seeds are not done; the reason if it has no number."""
    n, planned = int(cell["n"]), int(cell["planned"])
    if n == 0:
        return ", ".join(f"{int(cell[state])} {state}" for state in STATES if cell[state])
    if pd.isna(cell["mean"]):
        several = len(cell["commits"]) > 1 and not options.mix_commits
        return f"{len(cell['commits'])} commits ({n})" if several else f"no {ablation.report.metric} ({n})"
    spread = wording.number(ablation, cell["std"]) if n > 1 else "?"
    count = f"{n}" if n == planned else f"{n} of {planned}"
    difference = "" if pd.isna(cell["difference"]) else f" {wording.number(ablation, cell['difference'], '+')}"
    mean = wording.number(ablation, cell["mean"])
    return f"{mean} ± {spread} ({count}){difference}{wording.marks(cell, options)}"
