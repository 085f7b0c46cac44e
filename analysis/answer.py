"""The answer to an ablation's question in sentences, made from its statistics."""

import math
from typing import Any

from analysis.cells import Label, baseline_of, keys
from analysis.notes import (
    baseline_text,
    difference_text,
    interval_text,
    is_accuracy,
    is_below_floor,
    is_significant,
    number,
    unit,
)
from analysis.report import Report
from experiments.fields import short, text

MAX_SENTENCES = 8


def sentences(report: Report) -> list[str]:
    """The first is the answer; those below it say the same of single cells, the largest differences first."""
    known = [label for label, cell in report.rows.items() if not math.isnan(cell["mean"])]
    if not known:
        return [_nothing(report)]
    compared = [label for label in known if not math.isnan(report.rows[label]["difference"])]
    if not compared:
        return [_best(report, known)]
    order = sorted(compared, key=lambda label: -abs(report.rows[label]["difference"]))
    told = [_difference(report, label) for label in order[:MAX_SENTENCES]]
    if len(order) == 1:
        return told
    clear = [label for label in compared if is_significant(report.rows[label])]
    tested = [label for label in compared if not math.isnan(report.rows[label]["p"])]
    base = baseline_text(report.ablation)
    verdict = f"{len(clear)} of {len(tested)} tested settings are distinguishable from {base}"
    if not tested:
        verdict = f"none of {len(compared)} settings could be tested against {base}, for lack of pairs with a spread"
    first = f"{verdict}; the largest difference: {told[0]}"
    return [first, *told[1:]]


def _nothing(report: Report) -> str:
    done = int(report.table["n"].sum())
    if not done:
        return f"No answer yet: none of {len(report.frame)} trials is done."
    return f"No answer: {done} trials are done, and no cell has a {report.ablation.report.metric} that may be averaged."


def _best(report: Report, known: list[Label]) -> str:
    better = max if is_accuracy(report.ablation) else min
    label = better(known, key=lambda label: report.rows[label]["mean"])
    cell = report.rows[label]
    interval = interval_text(report.ablation, cell["low"], cell["high"])
    value = f"{number(report.ablation, cell['mean'])} {unit(report.ablation)} {interval}".strip()
    alike = sum(report.rows[other]["mean"] == cell["mean"] for other in known) - 1
    ties = f", and {alike} more alike" if alike else ""
    of_all = f"best of {len(known)}{ties}: " if len(known) > 1 else ""
    said = f"{of_all}{report.text(label)}: {value}, n = {int(cell['n'])}{_one_seed(cell)}"
    base = baseline_text(report.ablation)
    return f"no difference to {base} yet, which has no number; {said}" if base else said


def _difference(report: Report, label: Label) -> str:
    """`untied token mixing: +0.2 points [-0.4, 0.8], n = 5, not distinguishable from tied; 31x the parameters`."""
    cell, ablation = report.rows[label], report.ablation
    other = baseline_of(ablation, label)
    assert other is not None
    base = report.rows[other]
    said = f"{_words(report, label, other)}: {difference_text(ablation, cell)}"
    against = " ".join(text(value) for value, own in zip(other, label, strict=True) if value != own)
    verdict = "distinguishable" if is_significant(cell) else "not distinguishable"
    why_not = "for lack of pairs of seeds" if cell["pairs"] < 2 else "as all pairs differ by the same"
    tested = f"not tested, {why_not}" if math.isnan(cell["p"]) else f"{verdict} from {against}"
    said += f", n = {int(cell['pairs'] or cell['n'])}, {tested}"
    if is_below_floor(cell):
        said += f"; less than the ±{number(ablation, cell['floor'])} that the number of test examples leaves open"
    ratio = cell["parameters"] / base["parameters"] if base["parameters"] else math.nan
    if not math.isnan(ratio) and abs(ratio - 1) > 0.005:
        said += f"; {ratio:.3g}x the parameters"
    return said


def _words(report: Report, label: Label, other: Label) -> str:
    """What sets a cell apart from its baseline first, then what both share and varies in the table."""
    named = list(zip(keys(report.ablation), label, other, strict=True))
    apart = " ".join(f"{text(value)} {short(name).replace('_', ' ')}" for name, value, base in named if value != base)
    shared = " ".join(
        f"{short(name)}={text(value)}"
        for name, value, base in named
        if value == base and name not in report.ablation.report.baseline and len(report.values(name)) > 1
    )
    return f"{apart} ({shared})" if shared else apart


def _one_seed(cell: Any) -> str:
    return " (one seed: no interval)" if cell["n"] == 1 else ""
