"""The answer to an ablation's question in sentences, made from its statistics."""

import math
from collections.abc import Iterable
from typing import Any

from analysis import settings, tuned
from analysis.labels import Label, Row, baseline_of, field_words, keys, setting_text, value_text
from analysis.matching import beside
from analysis.power import POWER, detectable
from analysis.report import Report
from analysis.table.interim import answer_text
from analysis.table.tested import number_text, split_of, verdict_text
from analysis.table.wording import (
    baseline_text,
    difference_text,
    interval_text,
    is_significant,
    metric,
    number,
    points,
    unit,
)
from experiments.results import metrics

MAX_SENTENCES = 8


def sentences(report: Report) -> list[str]:
    """The answer, which says if it is interim, then a sentence for each setting, the largest differences first."""
    first, *others = _sentences(report)
    return [answer_text(report.table, first), *others]


def _sentences(report: Report) -> list[str]:
    with_mean = [label for label, cell in report.rows.items() if not math.isnan(cell["mean"])]
    if not with_mean:
        return [_nothing(report)]
    compared = settings.rows_of(report.ablation, report.table)
    if not compared:
        return [_best(report, with_mean)]
    order = sorted(compared, key=lambda label: -abs(compared[label]["difference"]))
    told = [_difference(report, label, compared[label]) for label in order[:MAX_SENTENCES]]
    told[0] = "; ".join(filter(None, (told[0], tuned.tuned_text(report.ablation))))
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
    chosen_by, how = _validation(report, labels)
    better = max if metric(report.ablation).higher_is_better else min
    label = better(labels, key=lambda label: chosen_by[label])
    cell = report.rows[label]
    interval = interval_text(report.ablation, cell["low"], cell["high"])
    value = f"{number(report.ablation, cell['mean'])} {unit(report.ablation)} {interval}".strip()
    alike = len(_settings(report, (other for other in labels if chosen_by[other] == chosen_by[label]))) - 1
    ties = f", and {alike} more alike" if alike else ""
    count = len(_settings(report, labels))
    of_all = f"{how} of {count}{ties}: " if count > 1 else ""
    best = f"{of_all}{report.text(label)}: {value}, n = {int(cell['n'])}{_one_seed(cell)}"
    base = baseline_text(report.ablation)
    return f"there is no difference to {base} yet, since it has no number; {best}" if base else best


def _validation(report: Report, labels: list[Label]) -> tuple[dict[Label, float], str]:
    """The number of each cell that the best is chosen by, and what the best is called.

    It is that of validation, since the best of several on test is less good than its number. Without validation data it
    is the table's own, and is said to be.
    """
    split = metrics.parse(report.ablation.report.metric).split
    name = metrics.on_validation(report.ablation.report.metric)
    if split != "validation":
        means = {label: float(report.groups[label].numbers(name).mean()) for label in labels}
        if not any(map(math.isnan, means.values())):
            return means, "best on validation"
    own = {label: float(report.rows[label]["mean"]) for label in labels}
    return own, f"best on {split}{', by which it was chosen,' if split == 'test' else ''}"


def _settings(report: Report, labels: Iterable[Label]) -> set[Label]:
    """The cells without their frameworks, which are one experiment done several times."""
    places = [place for place, name in enumerate(keys(report.ablation)) if name != settings.FRAMEWORK]
    return {tuple(label[place] for place in places) for label in labels}


def _difference(report: Report, label: Label, cell: Row) -> str:
    """`untied token mixing: +0.20 points [-0.41, 0.83], n = 5 seeds and 360 test examples, not distinguishable from
    tied; with 80 % power 0.9 points would have been; at 31x the parameters, equal training FLOPs and steps`.

    Args: cell: of settings.rows_of.
    """
    ablation = report.ablation
    other = baseline_of(ablation, label)
    assert other is not None
    together = settings.frameworks_text(ablation, cell)
    told = f"{_words(report, label, other, together)}: {difference_text(ablation, cell)}"
    one = settings.tested_of(cell)
    count = number_text(one, split_of(ablation), int(cell["n"]))
    told = f"{told}, {count}, {verdict_text(one, _against(report, label, other))}"
    return "; ".join(filter(None, (told, _detectable(report, cell), beside(cell, report.rows[other]))))


def _detectable(report: Report, cell: Row) -> str:
    """The difference that would have been found, by the error that was; empty where one was found, or none tested."""
    if math.isnan(cell["p"]) or is_significant(cell):
        return ""
    found = settings.tested_of(cell).paired
    least = detectable(found.error, found.n - 1 or math.inf, found.level, POWER, found.seeds_share)
    shown = f"{number(report.ablation, least, more=1)} {points(report.ablation)}"
    return f"with {100 * POWER:.0f} % power a difference of {shown} would have been found"


def _against(report: Report, label: Label, other: Label) -> str:
    """The baseline's values where the cell has others; with their fields where there are several."""
    apart = [
        (name, value) for name, value, own in zip(keys(report.ablation), other, label, strict=True) if value != own
    ]
    if len(apart) == 1:
        return value_text(report.ablation, *apart[0])
    return " ".join(setting_text(report.ablation, name, value) for name, value in apart)


def _words(report: Report, label: Label, other: Label, together: str) -> str:
    """A cell in words: first what it does not share with its baseline, then what both share and varies in the table.

    Args: together: the frameworks that are averaged over, of which the label names but one.
    """
    named = list(zip(keys(report.ablation), label, other, strict=True))
    named = [one for one in named if not together or one[0] != settings.FRAMEWORK]
    apart = " ".join(
        f"{value_text(report.ablation, name, value)} {field_words(report.ablation, name)}"
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
