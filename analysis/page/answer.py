"""The answer to an ablation's question in sentences, made from its statistics."""

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from analysis import settings
from analysis.inference import t_factor
from analysis.labels import Label, baseline_of, field_text, keys, setting_text, value_text
from analysis.report import Report
from analysis.table.wording import (
    baseline_text,
    difference_text,
    interval_text,
    is_below_floor,
    is_significant,
    metric,
    number,
    unit,
)

MAX_SENTENCES = 8


def sentences(report: Report) -> list[str]:
    """The answer, then a sentence for each setting, the largest differences first."""
    with_mean = [label for label, cell in report.rows.items() if not math.isnan(cell["mean"])]
    if not with_mean:
        return [_nothing(report)]
    compared = settings.rows_of(report.ablation, report.table)
    if not compared:
        return [_best(report, with_mean)]
    order = sorted(compared, key=lambda label: -abs(compared[label]["difference"]))
    told = [_difference(report, label, compared[label]) for label in order[:MAX_SENTENCES]]
    if len(order) == 1:
        return told
    clear = [label for label, cell in compared.items() if is_significant(cell)]
    tested = [label for label, cell in compared.items() if not math.isnan(cell["p"])]
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
    return f"No answer: {done} trials are done, but no cell has a {report.ablation.report.metric} that may be averaged."


def _best(report: Report, labels: list[Label]) -> str:
    better = max if metric(report.ablation).higher_is_better else min
    label = better(labels, key=lambda label: report.rows[label]["mean"])
    cell = report.rows[label]
    interval = interval_text(report.ablation, cell["low"], cell["high"])
    value = f"{number(report.ablation, cell['mean'])} {unit(report.ablation)} {interval}".strip()
    alike = len(_settings(report, (other for other in labels if report.rows[other]["mean"] == cell["mean"]))) - 1
    ties = f", and {alike} more alike" if alike else ""
    count = len(_settings(report, labels))
    of_all = f"best of {count}{ties}: " if count > 1 else ""
    best = f"{of_all}{report.text(label)}: {value}, n = {int(cell['n'])}{_one_seed(cell)}"
    base = baseline_text(report.ablation)
    return f"there is no difference to {base} yet, since it has no number; {best}" if base else best


def _settings(report: Report, labels: Iterable[Label]) -> set[Label]:
    """The cells without their frameworks, which are one experiment done several times."""
    places = [place for place, name in enumerate(keys(report.ablation)) if name != settings.FRAMEWORK]
    return {tuple(label[place] for place in places) for label in labels}


def _difference(report: Report, label: Label, cell: "pd.Series[Any]") -> str:
    """`untied token mixing: +0.2 points [-0.4, 0.8], n = 5, not distinguishable from tied; 31x the parameters`.

    Args: cell: of settings.rows_of.
    """
    ablation = report.ablation
    other = baseline_of(ablation, label)
    assert other is not None
    base = report.rows[other]
    sentence = (
        f"{_words(report, label, other, settings.frameworks_text(ablation, cell))}: {difference_text(ablation, cell)}"
    )
    against = _against(report, label, other)
    verdict = "distinguishable" if is_significant(cell) else "not distinguishable"
    why_not = "for lack of pairs of seeds" if cell["pairs"] < 2 else "since all pairs differ by the same"
    tested = f"not tested, {why_not}" if math.isnan(cell["p"]) else f"{verdict} from {against}"
    sentence += f", n = {int(cell['pairs'] or cell['n'])}{_few(report, cell)}, {tested}"
    if is_below_floor(cell):
        sentence += (
            f"; this is less than the ±{number(ablation, cell['floor'])} that the number of test examples leaves open"
        )
    ratio = cell["parameters"] / base["parameters"] if base["parameters"] else math.nan
    if not math.isnan(ratio) and abs(ratio - 1) > 0.005:
        sentence += f"; {ratio:.3g}x the parameters"
    return sentence


def _against(report: Report, label: Label, other: Label) -> str:
    """The baseline's values where the cell has others; with their fields where there are several."""
    apart = [
        (name, value) for name, value, own in zip(keys(report.ablation), other, label, strict=True) if value != own
    ]
    if len(apart) == 1:
        return value_text(report.ablation, *apart[0])
    return " ".join(setting_text(report.ablation, name, value) for name, value in apart)


def _few(report: Report, cell: "pd.Series[Any]") -> str:
    """The warning that two pairs leave an interval one degree of freedom; empty for more pairs."""
    if cell["pairs"] != 2 or math.isnan(cell["difference_low"]) or report.options.interval != "t":
        return ""
    return f" (one degree of freedom: ±{t_factor(1):.1f} standard errors)"


def _words(report: Report, label: Label, other: Label, together: str) -> str:
    """A cell in words: first what it does not share with its baseline, then what both share and varies in the table.

    Args: together: the frameworks that are averaged over, of which the label names but one.
    """
    named = list(zip(keys(report.ablation), label, other, strict=True))
    named = [one for one in named if not together or one[0] != settings.FRAMEWORK]
    apart = " ".join(
        f"{value_text(report.ablation, name, value)} {field_text(report.ablation, name).replace('_', ' ')}"
        for name, value, base in named
        if value != base
    )
    shared = " ".join(
        setting_text(report.ablation, name, value)
        for name, value, base in named
        if value == base and name not in report.ablation.report.baseline and len(report.values(name)) > 1
    )
    shared = ", ".join(filter(None, (shared, f"mean of {together}" if together else "")))
    return f"{apart} ({shared})" if shared else apart


def _one_seed(cell: Any) -> str:
    return " (one seed: no interval)" if cell["n"] == 1 else ""
