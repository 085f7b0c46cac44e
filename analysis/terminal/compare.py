"""Two sets of runs side by side: a test for each setting, and the trials that differ."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from analysis import inference
from analysis.inference import Paired
from analysis.run_sets import Key, RunSet, key_of, matched, value
from analysis.settings import FRAMEWORK, averaged
from analysis.table.layout import aligned
from analysis.table.wording import counted, few_text, p_text
from backends.errors import MixlabError, choices
from experiments.results import metrics
from experiments.results.metrics import Metric
from experiments.spec.fields import short, text

MAX_LINES = 40  # of settings, and of trials, that differ


@dataclass(frozen=True)
class Pair:
    """The same trial in both sets."""

    trial: str  # its id in the first
    fields: Key
    first: float
    second: float

    @property
    def difference(self) -> float:
        return self.second - self.first

    @property
    def setting(self) -> str:
        """All fields but the seed and the framework."""
        return json.dumps([field for field in self.fields if field[0] not in ("seed", FRAMEWORK)])


@dataclass(frozen=True)
class Comparison:
    """The pairs of two sets of runs that have a number on both sides."""

    names: tuple[str, str]
    metric: str
    pairs: tuple[Pair, ...]

    @property
    def unit(self) -> str:
        """Of a difference."""
        return self._metric.difference_unit

    @property
    def _metric(self) -> Metric:
        return metrics.parse(self.metric).metric

    def number(self, value: float, sign: str = "") -> str:
        return f"{self._metric.scale * value:{sign}.3f}"

    @cached_property
    def varying(self) -> list[str]:
        """Fields that differ between the pairs."""
        values: dict[str, set[str]] = {}
        for name, part in (field for pair in self.pairs for field in pair.fields):
            values.setdefault(name, set()).add(json.dumps(part))
        return [name for name, found in values.items() if len(found) > 1]

    @cached_property
    def apart(self) -> list[Pair]:
        return [pair for pair in self.pairs if pair.first != pair.second]


def compare_lines(first: RunSet, second: RunSet, metric: str) -> list[str]:
    """What both have in common, and where they differ. Raises: MixlabError: no such metric."""
    if metric not in metrics.names():
        raise MixlabError(f"command line: --metric: {metric!r} is not known; {choices(metric, metrics.names())}")
    found = [
        Pair(one["id"], key_of(one), value(one, metric), value(other, metric)) for one, other in matched(first, second)
    ]
    lines = [
        f"{first.name}: {len(first.records)} done trials; {second.name}: {len(second.records)}; "
        f"{len(found)} of the same settings, backend and seed"
    ]
    for side in (first, second):
        if side.unread:
            lines.append(f"{side.name}: {counted(len(side.unread), 'record')} left out, the first: {side.unread[0]}")
    if not found:
        return [*lines, *_nothing_common(first, second)]
    known = tuple(pair for pair in found if not math.isnan(pair.difference))
    both = Comparison((first.name, second.name), metric, known)
    lines.append(f"{metric}: {len(known) - len(both.apart)} of {len(found)} pairs equal to the last bit")
    if len(known) < len(found):
        lines.append(f"{len(found) - len(known)} pairs have no {metric} on one side or both, and are left out below")
    return [*lines, *_setting_lines(both), "", *_trial_lines(both)] if both.apart else lines


def _setting_lines(both: Comparison) -> Iterator[str]:
    """A test for each setting, over seeds: of a seed, the trials of all frameworks are averaged."""
    settings: dict[str, list[Pair]] = {}
    for pair in both.pairs:
        settings.setdefault(pair.setting, []).append(pair)
    apart = [pairs for pairs in settings.values() if any(pair.first != pair.second for pair in pairs)]
    found = [_tested(pairs) for pairs in apart]
    corrected = inference.holm([one.p for one in found])
    yield _rule(both, sum(not math.isnan(p) for p in corrected))
    for pairs, one, p in list(zip(apart, found, corrected, strict=True))[:MAX_LINES]:
        yield _setting_line(both, pairs, one, p)
    if len(apart) > MAX_LINES:
        yield f"and {counted(len(apart) - MAX_LINES, 'more setting')}"
    if len(settings) > len(apart):
        yield f"{counted(len(settings) - len(apart), 'setting')} without any difference"
    if any(one.n == 2 and not math.isnan(one.low) for one in found):
        yield few_text(2)


def _tested(pairs: Sequence[Pair]) -> Paired:
    seeds = [dict(pair.fields).get("seed") for pair in pairs]
    sides = [({seed: pair.first}, {seed: pair.second}) for seed, pair in zip(seeds, pairs, strict=True)]
    return inference.paired(*averaged(sides))


def _rule(both: Comparison, num_tests: int) -> str:
    """What is tested, and how."""
    frameworks = list(dict.fromkeys(str(dict(pair.fields).get(FRAMEWORK)) for pair in both.pairs))
    mean = f" on the mean of {' and '.join(frameworks)}" if len(frameworks) > 1 else ""
    holm = f", Holm's correction for {num_tests} settings" if num_tests > 1 else ""
    return f"each setting by a paired t-test over seeds{mean}{holm}:"


def _setting_line(both: Comparison, pairs: Sequence[Pair], found: Paired, p: float) -> str:
    words = _words(pairs[0], [name for name in both.varying if name not in ("seed", FRAMEWORK)])
    what = f"{words}: {both.names[1]} minus {both.names[0]}".removeprefix(": ")
    interval = "" if math.isnan(found.low) else f" [{both.number(found.low)}, {both.number(found.high)}]"
    tested = "" if math.isnan(p) else f", {p_text(p)}"
    return f"{what}: {both.number(found.difference, '+')} {both.unit}{interval}, n = {found.n}{tested}"


def _trial_lines(both: Comparison) -> list[str]:
    layout = [["trial", "settings apart from the others", *both.names, f"difference ({both.unit})"]]
    order, varying = sorted(both.apart, key=lambda pair: -abs(pair.difference)), both.varying
    for pair in order[:MAX_LINES]:
        numbers = [both.number(pair.first), both.number(pair.second), both.number(pair.difference, "+")]
        layout.append([pair.trial, _words(pair, varying), *numbers])
    return [*aligned(layout), *([f"and {len(order) - MAX_LINES} more"] if len(order) > MAX_LINES else [])]


def _words(pair: Pair, names: Sequence[str]) -> str:
    fields: dict[str, Any] = dict(pair.fields)
    return " ".join(f"{short(name)}={text(fields.get(name))}" for name in names)


def _nothing_common(first: RunSet, second: RunSet) -> list[str]:
    """Which fields keep the two apart."""
    if not first.records or not second.records:
        return ["nothing to compare"]
    if first.root.resolve() == second.root.resolve():
        return ["one store keeps one record of a trial: give the runs of each commit a store of their own (--store)"]
    a, b = ({name: {json.dumps(dict(key_of(record)).get(name)) for record in side.records.values()}
             for name in dict(key_of(next(iter(side.records.values()))))} for side in (first, second))  # fmt: skip
    apart = [name for name in a if name in b and not a[name] & b[name]]
    return [f"they differ in {name}: {', '.join(sorted(a[name]))} and {', '.join(sorted(b[name]))}" for name in apart]
