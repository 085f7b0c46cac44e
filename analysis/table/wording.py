"""Words of a table: its units and signs, its numbers and its differences."""

import math

import pandas as pd

from analysis import settings
from analysis.cells import Options
from analysis.inference import ALPHA, LEVEL
from analysis.labels import Label, Row, Rows, label_text, rows, setting_text
from analysis.table.tested import other_level_text
from backends.errors import counted
from experiments.design.ablation import Ablation
from experiments.results import metrics
from experiments.results.metrics import Metric

SIGNIFICANT, UNEQUAL = "*", "†"
LEAST_P = 0.001  # that is shown as a number


def metric(ablation: Ablation) -> Metric:
    """What the table is of, without the evaluation and the split."""
    return metrics.parse(ablation.report.metric).metric


def metric_text(ablation: Ablation) -> str:
    """`test accuracy`, `training loss (less is better)`, `test accuracy at the best evaluation`."""
    when, split, asked = metrics.parse(ablation.report.metric)
    words = f"{'training' if split == metrics.TRAIN else split} {asked.name}"
    at_best = " at the best evaluation" if when == metrics.BEST else ""
    return f"{words}{at_best}{'' if asked.higher_is_better else ' (less is better)'}"


def unit(ablation: Ablation) -> str:
    return metric(ablation).unit


def points(ablation: Ablation) -> str:
    """The unit of a difference."""
    return metric(ablation).difference_unit


def scale(ablation: Ablation) -> int:
    """The factor that brings a metric to its unit."""
    return metric(ablation).scale


def number(ablation: Ablation, value: float, sign: str = "", more: int = 0) -> str:
    """A metric, or with sign "+" a difference of two, in the table's unit, with its digits and `more` of them."""
    return metric(ablation).text(value, sign, more)


def p_text(p: float) -> str:
    """`p = 0.012`, `p < 0.001`; empty where there is none."""
    return "" if math.isnan(p) else "p < 0.001" if p < LEAST_P else f"p = {p_value(p)}"


def p_value(p: float) -> str:
    """`0.012`, `<0.001`; with digits enough to show on which side of 0.05 it is."""
    digits = 3
    while (round(p, digits) < ALPHA) != (p < ALPHA):
        digits += 1
    return "<0.001" if p < LEAST_P else f"{p:.{digits}f}"


def difference_text(ablation: Ablation, cell: Row) -> str:
    """`+0.20 points [-0.41, 0.83]`: with a digit more than the table, so that an interval shows where it ends.

    Args: cell: of settings.rows_of or settings.alone. The level of its interval is named where it is not 95 %.
    """
    more = digits_apart(ablation, cell)
    shown = f"{number(ablation, cell['difference'], '+', more)} {points(ablation)}"
    interval = interval_and_level_text(ablation, cell["difference_low"], cell["difference_high"], cell["level"])
    return f"{shown} {interval}".rstrip()


def digits_apart(ablation: Ablation, cell: Row) -> int:
    """The digits that a difference has more than the table: as many as its interval. Args: as of `difference_text`."""
    return _digits(ablation, cell["difference_low"], cell["difference_high"], 1)


def interval_and_level_text(ablation: Ablation, low: float, high: float, level: float) -> str:
    """`[-0.41, 0.83]`, `[-0.41, 0.83] (98.3 %)`: of a difference, with a digit more than the table."""
    interval = interval_text(ablation, low, high, 1)
    return f"{interval}{other_level_text(level)}" if interval else ""


def asked_text(ablation: Ablation) -> str:
    """The question on one line; empty where there is none."""
    return " ".join((ablation.question or "").split())


def baseline_text(ablation: Ablation) -> str:
    return " ".join(setting_text(ablation, name, value) for name, value in ablation.report.baseline.items())


def is_significant(cell: Row) -> bool:
    return bool(cell["p_holm"] < ALPHA)


def has_star(cell: Row) -> bool:
    """Whether a difference is shown as distinguishable, which waits for the end of all trials; see interim.py."""
    return is_significant(cell) and not cell["interim"]


def marks(cell: Row, options: Options) -> str:
    """The signs behind a cell's numbers."""
    if math.isnan(cell["mean"]):
        return ""
    signs = SIGNIFICANT if has_star(cell) else ""
    return signs + (UNEQUAL if _is_unequal(cell, options) else "")


def _is_unequal(cell: Row, options: Options) -> bool:
    """Tell whether a cell's trials, or the pairs of its difference, are not of one kind."""
    few_pairs = not math.isnan(cell["difference"]) and cell["pairs"] < cell["n"]
    return bool(few_pairs or cell["unlike"] or len(cell["environments"]) > 1 or len(cell["commits"]) > 1)


def interval_text(ablation: Ablation, low: float, high: float, more: int = 0) -> str:
    """`[-0.4, 0.8]`; empty where there is no interval. One that leaves out 0 has digits enough to show that."""
    if math.isnan(low) or math.isnan(high):
        return ""
    more = _digits(ablation, low, high, more)
    return f"[{number(ablation, low, more=more)}, {number(ablation, high, more=more)}]"


def _digits(ablation: Ablation, low: float, high: float, more: int) -> int:
    """At least `more`, so that an interval that leaves out 0 shows on which side."""
    near = low if low > 0 else high
    while low * high > 0 and not float(number(ablation, near, more=more)):
        more += 1
    return more


def differences(ablation: Ablation, table: pd.DataFrame) -> list[str]:
    """A line for each difference: interval, effect size, p and pairs.

    Frameworks that are tested together have a line of their mean, with interval and p, and none of their own.
    """
    lines, cells = [], rows(ablation, table)
    for label, row in cells.items():
        if not math.isnan(row["difference"]):
            cell = settings.alone(row)
            effect = "" if math.isnan(cell["effect_size"]) else f", d_z {cell['effect_size']:.2f}"
            tested = "" if settings.frameworks_text(ablation, cell) else _tested_text(cell)
            where = label_text(ablation, label)
            lines.append(
                f"{where}: {difference_text(ablation, cell)}{effect}{tested}, {counted(cell['pairs'], 'pair')}"
            )
    return lines + together(ablation, cells)


def together(ablation: Ablation, rows: Rows) -> list[str]:
    """A line for each setting of several frameworks, with their mean difference and its test."""
    found = settings.rows_of(ablation, rows).items()
    return [_setting_text(ablation, label, cell) for label, cell in found if settings.frameworks_text(ablation, cell)]


def _setting_text(ablation: Ablation, label: Label, cell: Row) -> str:
    """`token_mixing=untied, mean of torch and jax: +0.20 points [-0.41, 0.83], p = 0.400 (Holm), 3 pairs`."""
    where = label_text(ablation, label, without=settings.FRAMEWORK)
    where = f"{where}, mean of {settings.frameworks_text(ablation, cell)}".removeprefix(", ")
    return f"{where}: {difference_text(ablation, cell)}{_tested_text(cell)}, {counted(cell['pairs'], 'pair')}"


def _tested_text(cell: Row) -> str:
    return "" if math.isnan(cell["p_holm"]) else f", {p_text(cell['p_holm'])} (Holm)"


def level_text() -> str:
    return f"{100 * LEVEL:g} %"
