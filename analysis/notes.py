"""What a reader must know of a table: its heading, its signs, and the cells that are not whole."""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from analysis.cells import Options, baseline_of, is_mixed, label_text, labels
from analysis.statistics import ALPHA, LEVEL
from experiments.ablation import Ablation
from experiments.fields import short, text

MAX_NOTES = 100
SIGNIFICANT, BELOW_FLOOR, UNEQUAL = "*", "°", "†"


def is_accuracy(ablation: Ablation) -> bool:
    return ablation.report.metric.endswith("accuracy")


def unit(ablation: Ablation) -> str:
    return "%" if is_accuracy(ablation) else "nats"


def number(ablation: Ablation, value: float, sign: str = "") -> str:
    """A metric, or a difference of two (with sign "+"), in the table's unit and with its digits."""
    scale, digits = (100, 1) if is_accuracy(ablation) else (1, 4)
    return f"{round(scale * value, digits) + 0.0:{sign}.{digits}f}"  # + 0.0: no -0.0


def heading(ablation: Ablation, table: pd.DataFrame, options: Options) -> list[str]:
    baseline = baseline_text(ablation)
    lines = [
        f"{ablation.name}: {ablation.question}" if ablation.question else ablation.name,
        f"{ablation.report.metric} in {unit(ablation)}, mean ± standard deviation over seeds (n)"
        + (f", and the difference to {baseline}" if baseline else ""),
    ]
    if asked := ablation.report.equivalence:
        margin = f"{100 * asked.margin:g} % points" if is_accuracy(ablation) else f"{asked.margin:g} nats"
        lines.append(
            f"p (n): that {short(asked.between)}s differ by {margin} or more, two one-sided t-tests over n paired "
            "seeds; same: all pairs alike"
        )
    signs = [marks(cell, options) for _, cell in table.iterrows()]
    meanings = {
        SIGNIFICANT: f"p < {ALPHA:g}, paired t-test, Holm's correction for {int(table['p'].notna().sum())} tests",
        BELOW_FLOOR: "less than the number of test examples alone leaves open",
        UNEQUAL: "see below",
    }
    if used := [f"{sign} {said}" for sign, said in meanings.items() if any(sign in mark for mark in signs)]:
        lines.append("; ".join(used))
    return lines


def baseline_text(ablation: Ablation) -> str:
    return " ".join(f"{short(name)}={text(value)}" for name, value in ablation.report.baseline.items())


def is_significant(cell: "pd.Series[Any]") -> bool:
    return bool(cell["p_holm"] < ALPHA)


def is_below_floor(cell: "pd.Series[Any]") -> bool:
    return bool(abs(cell["difference"]) < cell["floor"])


def marks(cell: "pd.Series[Any]", options: Options) -> str:
    """The signs behind a cell's number."""
    found = SIGNIFICANT if is_significant(cell) else ""
    found += BELOW_FLOOR if is_below_floor(cell) else ""
    return found + (UNEQUAL if _is_unequal(cell, options) else "")


def _is_unequal(cell: "pd.Series[Any]", options: Options) -> bool:
    """Whether its trials, or the pairs of its difference, are not of one kind."""
    few_pairs = not math.isnan(cell["difference"]) and cell["pairs"] < cell["n"]
    return bool(few_pairs or cell["environments"] > 1 or len(cell["commits"]) > 1)


def notes(ablation: Ablation, table: pd.DataFrame, frame: pd.DataFrame, options: Options) -> list[str]:
    """The lines under a table."""
    found = [*_of_cells(ablation, table, options), *_of_trials(frame), *_of_all(ablation, table, frame)]
    more = [f"and {len(found) - MAX_NOTES} more; see mixlab status"] if len(found) > MAX_NOTES else []
    return found[:MAX_NOTES] + more


def _of_cells(ablation: Ablation, table: pd.DataFrame, options: Options) -> Iterator[str]:
    if (table["n"] == 1).any():
        yield "± ? : one seed has no spread."
    known = dict.fromkeys(labels(ablation, table))
    for label, (_, cell) in zip(known, table.iterrows(), strict=True):
        where, commits = label_text(ablation, label) or ablation.name, cell["commits"]
        if is_mixed(commits, options):
            several = f"{len(commits)} commits ({' '.join(commits)})"
            yield f"{where}: its trials ran under {several}; --mix-commits averages them"
        elif len(commits) > 1:
            yield f"{where}: averaged over trials of {len(commits)} commits ({' '.join(commits)})"
        if cell["environments"] > 1:
            yield f"{where}: its trials ran in {cell['environments']} environments (device, processor, packages)"
        if not math.isnan(cell["difference"]) and not cell["pairs"]:
            yield f"{where}: no seed has a pair in the baseline; its difference is that of the means, without a test"
        elif not math.isnan(cell["difference"]) and cell["pairs"] < cell["n"]:
            yield f"{where}: its difference is over the {cell['pairs']} seeds that the baseline has too"
        if (other := baseline_of(ablation, label)) is not None and other not in known:
            yield f"{where}: no cell has {label_text(ablation, other)}, so it has no difference to the baseline"


def _of_trials(frame: pd.DataFrame) -> Iterator[str]:
    for _, row in frame[frame["status"] != "done"].iterrows():
        yield f"{row['id']} ({row['settings']}) {row['status']}{': ' if row['why'] else ''}{row['why']}"
    for _, row in frame[frame["trained_on"].fillna("") != ""].iterrows():
        yield f"{row['id']} ({row['settings']}) was trained on {row['trained_on']}"


def _of_all(ablation: Ablation, table: pd.DataFrame, frame: pd.DataFrame) -> Iterator[str]:
    asked = ablation.report.equivalence
    if asked and not (table["equivalence_n"] > 0).any() and (table["n"] > 0).sum() > 1:
        yield f"No p: no two cells that are done differ in {asked.between} alone."
    commits = sorted({commit for several in table["commits"] for commit in several})
    if len(commits) > 1 and all(len(several) < 2 for several in table["commits"]):
        yield f"The cells are of {len(commits)} commits: {' '.join(commits)}."
    if "dirty" in frame and frame["dirty"].fillna(False).astype(bool).any():
        count = int(frame["dirty"].fillna(False).astype(bool).sum())
        yield f"{count} of {len(frame)} trials ran from files that their commit does not have."


def interval_text(ablation: Ablation, low: float, high: float) -> str:
    """`[-0.4, 0.8]`; empty where there is no interval."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"[{number(ablation, low)}, {number(ablation, high)}]"


def level_text() -> str:
    return f"{100 * LEVEL:g} %"
