"""The answer to an ablation's question in sentences, made from its statistics."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from analysis import settings, tuned
from analysis.labels import Label, Row, baseline_of, listed
from analysis.matching import beside
from analysis.power import POWER, detectable
from analysis.report import Report
from analysis.roles import Roles, roles_of
from analysis.table.interim import answer_text, interim_text
from analysis.table.tested import number_text, split_of, verdict_text
from analysis.table.wording import (
    digits_apart,
    interval_and_level_text,
    interval_text,
    is_significant,
    metric,
    metric_text,
    number,
    points,
    unit,
)
from backends.errors import counted
from experiments.results import metrics

MAX_SENTENCES, MAX_NAMED = 8, 3


def sentences(report: Report) -> list[str]:
    """The answer, which says if it is interim, then a sentence for each setting, the largest differences first."""
    first, *others = _sentences(report)
    return [answer_text(report.table, first), *others]


def _sentences(report: Report) -> list[str]:
    with_mean = [label for label, cell in report.rows.items() if not math.isnan(cell["mean"])]
    if not with_mean:
        return [_nothing(report)]
    compared = settings.rows_of(report.ablation, report.rows)
    if not compared:
        return [" ".join((*_best(report, with_mean), *_unfinished(report)))]
    told = Answer(report, roles_of(report), compared)
    first = (told.headline(), tuned.tuned_text(report.ablation, report.choices), *_unfinished(report))
    return [" ".join(first), *map(told.sentence, told.order[1:MAX_SENTENCES]), *told.left_out()]


def _nothing(report: Report) -> str:
    done = int(report.table["n"].sum())
    if not done:
        return f"No answer yet: none of {len(report.frame)} trials is done."
    return f"No answer: {done} trials are done, but no cell has a {report.ablation.report.metric} that may be averaged."


def _unfinished(report: Report) -> list[str]:
    """A sentence where trials have failed; where some have not ended, the answer says so as its first."""
    done, total = int((report.frame["status"] == "done").sum()), len(report.frame)
    return [f"{done} of {total} trials are done."] if done < total and not interim_text(report.table) else []


@dataclass(frozen=True, eq=False)
class Answer:
    """The settings of a report that have a difference to their baseline."""

    report: Report
    roles: Roles
    compared: dict[Label, Row]  # of settings.rows_of

    @cached_property
    def order(self) -> list[Label]:
        """The settings, the largest differences first."""
        return sorted(self.compared, key=lambda label: -abs(self.compared[label]["difference"]))

    def headline(self) -> str:
        """How many settings are distinguishable, and the largest difference."""
        where, first = f"In {metric_text(self.report.ablation)}", self.sentence(self.order[0])
        return f"{where}, {first if len(self.order) == 1 else f'{self._count()}. The largest difference: {first}'}"

    def _count(self) -> str:
        """`2 of 4 settings are distinguishable from tied token mixing: untied with 2 blocks, untied with 4 blocks`."""
        clear = [label for label in self.order if is_significant(self.compared[label])]
        num_tested = sum(not math.isnan(cell["p"]) for cell in self.compared.values())
        base = _baseline(self.report, self.roles)
        if not num_tested:
            return f"none of {len(self.order)} settings could be tested against {base}"
        is_or_are = f"{len(clear)} of {num_tested} settings {'is' if len(clear) == 1 else 'are'}"
        if num_tested == 1:
            is_or_are = f"the only setting that could be tested is{'' if clear else ' not'}"
        elif not clear:
            is_or_are = f"none of {num_tested} settings is"
        named = clear if len(clear) <= MAX_NAMED and clear != self.order[:1] else []
        untested = len(self.order) - num_tested
        more = f", and {untested} more could not be tested" if untested and num_tested > 1 else ""
        names = "; ".join(" ".join(filter(None, (self._name(label), self._place(label)))) for label in named)
        return f"{is_or_are} distinguishable from {base}{f' ({names})' if names else ''}{more}"

    def left_out(self) -> list[str]:
        more = len(self.order) - MAX_SENTENCES
        return [f"{counted(more, 'setting')} more, of smaller differences, in the table"] if more > 0 else []

    def sentence(self, label: Label) -> str:
        """`with 4 blocks, untied token mixing scored 0.20 points above tied [-0.41, 0.83], at 31x the parameters,
        equal training FLOPs and steps: not distinguishable; with 80 % power a difference of 0.90 points would have been
        found. n = 5 seeds and 360 test examples, mean of torch and jax.`
        """
        ablation, cell = self.report.ablation, self.compared[label]
        other, one = baseline_of(ablation, label), settings.tested_of(cell)
        assert other is not None
        interval = interval_and_level_text(ablation, cell["difference_low"], cell["difference_high"], cell["level"])
        shown = f"{self._subject(label)} scored {_apart(self.report, cell)} {self._object(label)} {interval}".rstrip()
        shown = ", ".join(filter(None, (self._place(label), shown, beside(cell, self.report.rows[other]))))
        verdict = "; ".join(filter(None, (verdict_text(one), _detectable(self.report, cell))))
        counts = ", ".join(
            filter(None, (number_text(one, split_of(ablation), int(cell["n"])), self._frameworks(label, cell)))
        )
        return f"{shown}: {verdict}. {counts}."

    def _subject(self, label: Label) -> str:
        """What sets a cell apart from its baseline: `untied token mixing`, `untied, 4 blocks` where both vary."""
        names = self.roles.compared
        if len(names) == 1:
            return self.roles.words(names[0], self.roles.part(label, names)[0], whole=True)
        return self._name(label)

    def _name(self, label: Label) -> str:
        return self.roles.phrase(self.roles.compared, self.roles.part(label, self.roles.compared), baseline=True)

    def _object(self, label: Label) -> str:
        """`tied`; where several fields are compared `the baseline`, which the headline has in words."""
        names, other = self.roles.compared, baseline_of(self.report.ablation, label)
        assert other is not None
        if len(names) == 1:
            return self.roles.words(names[0], self.roles.part(other, names)[0])
        return "the baseline" if len(self.order) > 1 else _baseline(self.report, self.roles)

    def _place(self, label: Label) -> str:
        """`with 4 blocks and learning rate 0.01`: what a cell shares with its baseline, and varies in the table."""
        names = self.roles.beside
        named = zip(names, self.roles.part(label, names), strict=True)
        shared = listed([self.roles.words(name, value, whole=True) for name, value in named])
        return f"with {shared}" if shared else ""

    def _frameworks(self, label: Label, cell: Row) -> str:
        """`mean of torch and jax`, `on torch alone`; empty where the table has one."""
        if together := settings.frameworks_text(self.report.ablation, cell):
            return f"mean of {together}"
        return f"on {self.roles.framework_text(self.roles.framework(label))} alone" if self.roles.frameworks else ""


def _baseline(report: Report, roles: Roles) -> str:
    """`tied token mixing`, `the baseline (tied, 2 blocks)`."""
    base, names = report.ablation.report.baseline, roles.compared
    if len(names) == 1:
        return roles.words(names[0], base[names[0]], whole=True)
    return f"the baseline ({roles.phrase(names, [base[name] for name in names])})"


def _apart(report: Report, cell: Row) -> str:
    """`0.20 points above`, of a difference."""
    difference = float(cell["difference"])
    shown = number(report.ablation, abs(difference), more=digits_apart(report.ablation, cell))
    way = "above" if difference > 0 else "below"
    return f"{shown} {points(report.ablation)} {way}" if float(shown) else "level with"


def _detectable(report: Report, cell: Row) -> str:
    """The difference that would have been found, by the error that was; empty where one was found, or none tested."""
    if math.isnan(cell["p"]) or is_significant(cell):
        return ""
    found = settings.tested_of(cell).paired
    least = detectable(found.error, found.n - 1 or math.inf, found.level, POWER, found.seeds_share)
    shown = f"{number(report.ablation, least, more=1)} {points(report.ablation)}"
    return f"with {100 * POWER:.0f} % power a difference of {shown} would have been found"


def _best(report: Report, labels: Sequence[Label]) -> list[str]:
    """Sentences on the best cell, and why nothing is compared with a baseline."""
    chosen_by, how = _validation(report, labels)
    roles, ablation = roles_of(report), report.ablation
    better = max if metric(ablation).higher_is_better else min
    label = better(labels, key=lambda label: chosen_by[label])
    cell = report.rows[label]
    interval = interval_text(ablation, cell["low"], cell["high"])
    value = f"{number(ablation, cell['mean'])} {unit(ablation)} {interval}".strip()
    n = "n = 1 seed, which has no spread" if cell["n"] == 1 else f"n = {counted(int(cell['n']), 'seed')}"
    count = len({roles.setting(other) for other in labels})
    alike = len({roles.setting(other) for other in labels if chosen_by[other] == chosen_by[label]}) - 1
    ties = f", and {alike} more alike" if alike else ""
    words = _cell(roles, label)
    best = f"The {metric_text(ablation)}{f' of {words}' if words else ''} is {value}, {n}."
    if count > 1:
        best = f"{how} of {count} settings{ties}: {words}. Its {metric_text(ablation)} is {value}, {n}."
    if not ablation.report.baseline:
        return [best, "There is no baseline, so nothing is tested."] if count > 1 else [best]
    if not roles.compared or not set(roles.compared) <= set(ablation.report.baseline):
        return [best, "All of them are baselines, so nothing is tested."] if count > 1 else [best]
    base = _baseline(report, roles)
    return [f"There is no difference to {base} yet, since no setting and its baseline both have a number.", best]


def _cell(roles: Roles, label: Label) -> str:
    """`4 blocks, untied token mixing, on jax`."""
    names = (*roles.beside, *roles.compared)
    words = [roles.words(*one, whole=True) for one in zip(names, roles.part(label, names), strict=True)]
    if roles.frameworks:
        words.append(f"on {roles.framework_text(roles.framework(label))}")
    return ", ".join(words)


def _validation(report: Report, labels: Sequence[Label]) -> tuple[dict[Label, float], str]:
    """The number of each cell that the best is chosen by, and what the best is called.

    It is that of validation, since the best of several on test is less good than its number. Without validation data it
    is the table's own, and is said to be.
    """
    split = metrics.parse(report.ablation.report.metric).split
    name = metrics.on_validation(report.ablation.report.metric)
    if split != "validation":
        means = {label: float(report.groups[label].numbers(name).mean()) for label in labels}
        if not any(map(math.isnan, means.values())):
            return means, "Best on validation"
    own = {label: float(report.rows[label]["mean"]) for label in labels}
    return own, f"Best on {split}{', by which it was chosen,' if split == 'test' else ''}"
