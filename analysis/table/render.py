"""The table of an ablation, laid out as the YAML says: for a terminal, for Markdown, LaTeX, CSV and JSON."""

import json
from typing import Any

import pandas as pd

from analysis.cells import STATES, Options, cells
from analysis.labels import field_text, grouped, head_texts, value_text
from analysis.table import wording
from analysis.table.heading import heading
from analysis.table.latex import document
from analysis.table.layout import aligned, markdown, paragraph
from experiments.design.ablation import Ablation
from experiments.files import finite

FORMATS = {"text": "txt", "csv": "csv", "markdown": "md", "json": "json", "latex": "tex"}  # and the endings of files


def render(ablation: Ablation, frame: pd.DataFrame, style: str, options: Options = Options()) -> str:  # noqa: B008
    """The table in one of FORMATS: csv and json hold the numbers of `cells`, the others its rows and columns."""
    return render_cells(ablation, frame, cells(ablation, frame, options), style, options)


def render_cells(ablation: Ablation, frame: pd.DataFrame, table: pd.DataFrame, style: str, options: Options) -> str:
    """The table in one of FORMATS, from cells that are made already."""
    if style == "csv":
        return table.assign(commits=[" ".join(commits) for commits in table["commits"]]).to_csv(index=False)
    if style == "json":
        rows = [{str(name): finite(value) for name, value in row.items()} for row in table.to_dict("records")]
        return json.dumps({"ablation": ablation.name, "metric": ablation.report.metric, "cells": rows}, indent=1) + "\n"
    layout = make_layout(ablation, table, options)
    above, below = heading(ablation, table, options), wording.notes(ablation, table, frame, options)
    if style == "text":
        return "\n".join([*above, "", *aligned(layout), "", *below]).rstrip() + "\n"
    told = wording.differences(ablation, table)
    if style == "latex":
        return document(layout, len(ablation.report.rows), ablation.name, above, [*told, *below])
    lines = [*map(paragraph, above), *markdown(layout), "", *map(paragraph, [*told, *below])]
    return "\n".join(lines).rstrip() + "\n"


def make_layout(ablation: Ablation, table: pd.DataFrame, options: Options) -> list[list[str]]:
    """Header and rows of the table as strings."""
    rows, columns = list(ablation.report.rows), list(ablation.report.columns)
    heads = head_texts(ablation, table)
    tested = [
        head
        for head, group in grouped(table, columns).items()
        if "equivalence_p" in group and (group["equivalence_n"] > 0).any()
    ]
    body = []
    for values, group in grouped(table, rows).items():
        of_head = {head: part.iloc[0] for head, part in grouped(group, columns).items()}
        shown = [cell_text(ablation, of_head[head], options) if head in of_head else "—" for head in heads]
        shown += [equivalence_text(of_head[head]) if head in of_head else "—" for head in tested]
        body.append([*(value_text(ablation, *one) for one in zip(rows, values, strict=True)), *shown])
    header = [
        *(field_text(ablation, name) for name in rows),
        *(title or ablation.report.metric for title in heads.values()),
    ]
    return [[*header, *(f"{heads[head]} p (n)".lstrip() for head in tested)], *body]


def equivalence_text(cell: "pd.Series[Any]") -> str:
    p, n = float(cell["equivalence_p"]), int(cell["equivalence_n"])
    if n == 0:
        return "—"
    return f"{cell['equivalence_kind'] or ('?' if pd.isna(p) else p_value(p))} ({n})"


def p_value(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def cell_text(ablation: Ablation, cell: "pd.Series[Any]", options: Options) -> str:
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
