"""The table of an ablation: mean, standard deviation and n over seeds, laid out as the YAML says."""

import json
from collections.abc import Iterator
from typing import Any

import pandas as pd

from analysis.equivalence import equivalence
from analysis.frame import objects
from analysis.layout import aligned, markdown
from experiments.ablation import Ablation
from experiments.fields import short, text
from experiments.files import finite
from experiments.report_spec import EquivalenceSpec


def cells(ablation: Ablation, frame: pd.DataFrame) -> pd.DataFrame:
    """A row for each cell of the table, in the order of the grid.

    Columns: the fields of report.rows and report.columns; n, the trials that are done; planned; failed; running;
    missing; mean and std of the metric over the n (std with n - 1 in the denominator, NaN for n = 1). A trial that is
    not done counts in its own column and never in the mean. difference: mean minus the baseline's, NaN
    without one and for the baseline itself. Where the YAML asks for equivalence: equivalence_p, the p-value of the two
    one-sided tests against the first value of its field over paired seeds (NaN for that value itself), and
    equivalence_n, the number of pairs.
    """
    keys = [*ablation.report.rows, *ablation.report.columns]
    metric = ablation.report.metric
    rows = []
    for values, group in _groups(frame, keys):
        done = group[group["status"] == "done"]
        numbers = done[metric].astype(float) if metric in done else pd.Series([float("nan")] * len(done))
        counts = {state: int((group["status"] == state).sum()) for state in ("failed", "running", "missing")}
        rows.append(
            {
                **dict(zip(keys, values, strict=True)),
                "n": len(done),
                "planned": len(group),
                **counts,
                "mean": numbers.mean(skipna=False),
                "std": numbers.std(ddof=1, skipna=False),
            }
        )
    table = pd.DataFrame(rows)
    table = table.assign(**{name: objects(row[name] for row in rows) for name in keys})
    table["difference"] = _differences(ablation, table)
    if ablation.report.equivalence:
        table["equivalence_p"], table["equivalence_n"] = zip(*_equivalences(ablation, frame), strict=True)
    return table


def _equivalences(ablation: Ablation, frame: pd.DataFrame) -> Iterator[tuple[float, int]]:
    """p-value and number of pairs of each cell."""
    asked, keys = ablation.report.equivalence, [*ablation.report.rows, *ablation.report.columns]
    assert asked is not None
    by_seed = {
        tuple(zip(keys, values, strict=True)): _by_seed(ablation, group) for values, group in _groups(frame, keys)
    }
    first = next(iter(dict(label)[asked.between] for label in by_seed))
    for label, numbers in by_seed.items():
        against = by_seed.get(tuple({**dict(label), asked.between: first}.items()), {})
        is_first = dict(label)[asked.between] == first
        yield (float("nan"), 0) if is_first else equivalence(against, numbers, asked.margin)


def _by_seed(ablation: Ablation, group: pd.DataFrame) -> dict[Any, float]:
    """The metric of the trials that are done, by seed."""
    done = group[group["status"] == "done"]
    if ablation.report.metric not in done:
        return {}
    seeds = done["seed"] if "seed" in done else [0] * len(done)
    return dict(zip(seeds, done[ablation.report.metric].astype(float), strict=True))


def _differences(ablation: Ablation, table: pd.DataFrame) -> list[float]:
    """Each mean minus that of the cell with the baseline's settings and the same settings otherwise."""
    baseline, keys = ablation.report.baseline, [*ablation.report.rows, *ablation.report.columns]
    labels = [dict(zip(keys, label, strict=True)) for label in _labels(table, keys)]
    means = {tuple(label.items()): mean for label, mean in zip(labels, table["mean"], strict=True)}
    nothing = float("nan")
    if not baseline:
        return [nothing] * len(table)
    return [
        nothing if {**label, **baseline} == label else mean - means.get(tuple({**label, **baseline}.items()), nothing)
        for label, mean in zip(labels, table["mean"], strict=True)
    ]


def _groups(frame: pd.DataFrame, keys: list[str]) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    """Rows of the frame that agree in the keys, in order of appearance; None is a value like others."""
    labels = [tuple(row) for row in frame[keys].astype(object).itertuples(index=False)] if keys else [()] * len(frame)
    order = dict.fromkeys(labels)
    return [(values, frame[[label == values for label in labels]]) for values in order]


def render(ablation: Ablation, frame: pd.DataFrame, style: str) -> str:
    """The table as text, csv, markdown or json.

    csv and json hold the numbers of `cells`; text and markdown are laid out in rows and columns.
    """
    table = cells(ablation, frame)
    if style == "csv":
        return table.to_csv(index=False)
    if style == "json":
        rows = [{str(name): finite(value) for name, value in row.items()} for row in table.to_dict("records")]
        return json.dumps({"ablation": ablation.name, "metric": ablation.report.metric, "cells": rows}, indent=1) + "\n"
    layout = _layout(ablation, table)
    lines = markdown(layout) if style == "markdown" else aligned(layout)
    return (
        "\n".join([*_heading(ablation), "", *lines, "", *_notes(ablation.report.equivalence, table, frame)]).rstrip()
        + "\n"
    )


def _heading(ablation: Ablation) -> list[str]:
    unit = "%" if ablation.report.metric.endswith("accuracy") else "nats"
    baseline = " ".join(f"{short(name)}={text(value)}" for name, value in ablation.report.baseline.items())
    lines = [
        f"{ablation.name}: {ablation.question}" if ablation.question else ablation.name,
        f"{ablation.report.metric} in {unit}, mean ± standard deviation over seeds (n)"
        + (f", and the difference to {baseline}" if baseline else ""),
    ]
    if asked := ablation.report.equivalence:
        margin = f"{100 * asked.margin:g} % points" if unit == "%" else f"{asked.margin:g} nats"
        lines.append(
            f"p (n): that {short(asked.between)}s differ by {margin} or more, two one-sided t-tests over n paired "
            "seeds; same: all pairs alike"
        )
    return lines


def _layout(ablation: Ablation, table: pd.DataFrame) -> list[list[str]]:
    """Header and rows of the table as strings."""
    rows, columns, metric = list(ablation.report.rows), list(ablation.report.columns), ablation.report.metric
    heads = [values for values, _ in _groups(table, columns)]
    tested = [head for head, group in _groups(table, columns) if "equivalence_p" in table and _is_tested(group)]
    body = []
    for values, group in _groups(table, rows):
        of_head = {head: group.iloc[i] for i, head in enumerate(_labels(group, columns))}
        shown = [cell_text(of_head[head], metric) if head in of_head else "—" for head in heads]
        shown += [_p_text(of_head[head]) if head in of_head else "—" for head in tested]
        body.append([*map(text, values), *shown])
    header = [*map(short, rows), *(_head(columns, head) or metric for head in heads)]
    return [[*header, *(f"{_head(columns, head)} p (n)".lstrip() for head in tested)], *body]


def _is_tested(group: pd.DataFrame) -> bool:
    return bool((group["equivalence_n"] > 0).any())


def _p_text(cell: "pd.Series[Any]") -> str:
    p, n = float(cell["equivalence_p"]), int(cell["equivalence_n"])
    if n == 0:
        return "—"
    if p in (0.0, 1.0):  # differences without any spread
        return f"{'same' if p == 0 else 'differ'} ({n})"
    return f"? ({n})" if pd.isna(p) else f"{'<0.001' if p < 0.001 else f'{p:.3f}'} ({n})"


def _head(columns: list[str], values: tuple[Any, ...]) -> str:
    """Words speak for themselves; numbers are given with the field that they are of."""
    named = zip(columns, values, strict=True)
    return " ".join(value if isinstance(value, str) else f"{short(name)}={text(value)}" for name, value in named)


def _labels(group: pd.DataFrame, columns: list[str]) -> list[tuple[Any, ...]]:
    return (
        [tuple(row) for row in group[columns].astype(object).itertuples(index=False)] if columns else [()] * len(group)
    )


def cell_text(cell: "pd.Series[Any]", metric: str) -> str:
    """One cell: `86.1 ± 0.4 (3)`; `(2 of 3)` where seeds are not done; why, where none is."""
    n, planned = int(cell["n"]), int(cell["planned"])
    if n == 0:
        states = [f"{int(cell[state])} {state}" for state in ("failed", "running", "missing") if cell[state]]
        return ", ".join(states)
    scale, digits = (100, 1) if metric.endswith("accuracy") else (1, 4)
    if pd.isna(cell["mean"]):
        return f"no {metric} ({n})"
    spread = f"{scale * cell['std']:.{digits}f}" if n > 1 else "?"
    count = f"{n}" if n == planned else f"{n} of {planned}"
    difference = "" if pd.isna(cell["difference"]) else f" {scale * cell['difference']:+.{digits}f}"
    return f"{scale * cell['mean']:.{digits}f} ± {spread} ({count}){difference}"


def _notes(asked: EquivalenceSpec | None, table: pd.DataFrame, frame: pd.DataFrame) -> list[str]:
    """What a reader must know about cells that are not whole."""
    notes = []
    if (table["n"] == 1).any():
        notes.append("± ? : one seed has no spread.")
    for _, row in frame[frame["status"] != "done"].iterrows():
        notes.append(f"{row['id']} ({row['settings']}) {row['status']}{': ' if row['why'] else ''}{row['why']}")
    for _, row in frame[frame["trained_on"] != ""].iterrows():
        notes.append(f"{row['id']} ({row['settings']}) was trained on {row['trained_on']}")
    if asked and not (table["equivalence_n"] > 0).any() and (table["n"] > 0).sum() > 1:
        notes.append(f"No p: no two cells that are done differ in {asked.between} alone.")
    limit = 100
    return notes[:limit] + ([f"and {len(notes) - limit} more; see mixlab status"] if len(notes) > limit else [])
