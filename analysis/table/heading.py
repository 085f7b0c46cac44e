"""Lines above a table: the question, the metric, and the meaning of its signs."""

import pandas as pd

from analysis import inference, matching, settings, tuned
from analysis.cells import Options
from analysis.inference import ALPHA
from analysis.labels import Rows, field_text, rows
from analysis.table.interim import heading_text
from analysis.table.tested import split_of, test_text
from analysis.table.wording import (
    SIGNIFICANT,
    UNEQUAL,
    asked_text,
    baseline_text,
    marks,
    metric,
    points,
    unit,
)
from backends.errors import counted
from experiments.design.ablation import Ablation
from experiments.results import metrics


def heading(ablation: Ablation, table: pd.DataFrame, options: Options, with_equivalence: bool = True) -> list[str]:
    """Lines above a table. Args: with_equivalence: the table has the columns of its test, if it is asked for."""
    cells = rows(ablation, table)
    baseline = ", ".join(filter(None, (baseline_text(ablation), matching.heading_text(ablation, cells))))
    name = " ".join((ablation.name, *(("with", *ablation.overrides) if ablation.overrides else ())))
    asked = asked_text(ablation)
    less = "" if metric(ablation).higher_is_better else " (less is better)"
    lines = [
        f"{name}: {asked}" if asked else name,
        f"{ablation.report.metric} in {unit(ablation)}{less}, mean ± standard deviation over seeds (n)"
        + (f", and the difference to {baseline}" if baseline else ""),
    ]
    lines[1:1] = heading_text(table)
    if metrics.parse(ablation.report.metric).when == metrics.BEST:
        extreme = "highest" if metrics.CHOOSES.higher_is_better else "lowest"
        chosen = f"at the first evaluation of {extreme} validation {metrics.CHOOSES.name}"
        lines.append(f"{metrics.BEST}: {chosen}, without validation data at the last")
    if tuned_line := tuned.heading_text(ablation):
        lines.append(tuned_line)
    if options.interval != "t":
        least = inference.BOOTSTRAP_LEAST
        covers = f"of {least} it covers a mean in {inference.BOOTSTRAP_COVERAGE[least]} %"
        lines.append(f"intervals of means by {options.interval}, for {least} seeds or more ({covers})")
    if ablation.report.equivalence and with_equivalence:
        lines.append(_equivalence(ablation, table))
    signs = [marks(cell, options) for cell in cells.values()]
    meanings = {
        SIGNIFICANT: f"p < {ALPHA:g}, {test_text(ablation, cells)}{family_text(ablation, cells)}",
        UNEQUAL: "see below",
    }
    if shown := [f"{sign} {meaning}" for sign, meaning in meanings.items() if any(sign in mark for mark in signs)]:
        lines.append("; ".join(shown))
    return lines


def family_text(ablation: Ablation, rows: Rows) -> str:
    """The end of a sentence on tests: `, Holm's correction for 2 tests`, or for settings if they span frameworks."""
    tested = [cell for cell in settings.rows_of(ablation, rows).values() if pd.notna(cell["p_holm"])]
    together = next(filter(None, (settings.frameworks_text(ablation, cell) for cell in tested)), "")
    if not together:
        return f", Holm's correction for {counted(len(tested), 'test')}"
    return f" on the mean of {together} seed by seed, Holm's correction for {counted(len(tested), 'setting')}"


def _equivalence(ablation: Ablation, table: pd.DataFrame) -> str:
    asked = ablation.report.equivalence
    assert asked is not None
    margin = _points_text(ablation, metric(ablation).scale * asked.margin)
    kinds = {
        "same": "all pairs are identical",
        "within": "all pairs differ by the same, which is less",
        "differ": "all pairs differ by the same, which is not less",
    }
    used = "".join(f"; {kind}: {meaning}" for kind, meaning in kinds.items() if kind in set(table["equivalence_kind"]))
    return (
        f"p (n, largest): p of two one-sided t-tests (TOST) against a difference of {margin} or more between "
        f"{field_text(ablation, asked.between)}s, over n paired seeds, and the largest of their differences; "
        f"{split_of(ablation)} examples fixed, no correction{used}"
    )


def _points_text(ablation: Ablation, number: float) -> str:
    """`1 point`, `0.5 points`, `0.01 nats`."""
    word = points(ablation)
    return f"{number:g} {word.removesuffix('s') if number == 1 else word}"
