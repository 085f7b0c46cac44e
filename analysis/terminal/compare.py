"""A comparison of two sets of runs: a test for each setting, and the trials that differ."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from analysis import inference
from analysis.examples import Examples
from analysis.inference import Paired
from analysis.run_sets import Key, RunSet, key_of, matched, value
from analysis.settings import FRAMEWORK, averaged
from analysis.table.layout import aligned
from analysis.table.wording import counted, few_text, p_text
from analysis.terminal import agreement
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
    examples: Examples | None = None  # None: a side has no predictions of them, or the metric is no accuracy

    @property
    def is_apart(self) -> bool:
        """Whether the metric differs, or what was said of an example."""
        return self.first != self.second or (self.examples is not None and self.examples.same_class < self.examples.num)

    @property
    def difference(self) -> float:
        return self.second - self.first

    @property
    def setting(self) -> str:
        """The fields but the seed and the framework, as text."""
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
        return [name for name, parts in values.items() if len(parts) > 1]

    @cached_property
    def apart(self) -> list[Pair]:
        return [pair for pair in self.pairs if pair.is_apart]


def check_metric(metric: str) -> None:
    """Raises: MixlabError: there is no such metric."""
    if metric not in metrics.names():
        raise MixlabError(
            f"command line: --metric: expected a metric, got {metric!r}; {choices(metric, metrics.names())}"
        )


def set_lines(side: RunSet, metric: str) -> list[str]:
    """Lines on one set of runs: how far its frameworks agree. Raises: MixlabError: no such metric."""
    check_metric(metric)
    head = [f"{side.name}: {len(side.records)} done trials", *_unread(side)]
    found = agreement.framework_lines(side, metric)
    nothing = f"{side.name}: no setting and seed of which two frameworks say something of each example"
    return [*head, *(found or [nothing])]


def compare_lines(first: RunSet, second: RunSet, metric: str) -> list[str]:
    """Lines on the trials that both sets have, and on where they differ. Raises: MixlabError: no such metric."""
    check_metric(metric)
    sides = (first, second)
    pairs = [
        Pair(
            *(one["id"], key_of(one), value(one, metric), value(other, metric)),
            agreement.of_runs(sides, (one["id"], other["id"]), metric) if agreement.is_by_example(metric) else None,
        )
        for one, other in matched(first, second)
    ]
    lines = [
        f"{first.name}: {len(first.records)} done trials; {second.name}: {len(second.records)}; "
        f"{len(pairs)} of the same settings, backend and seed"
    ]
    lines += [line for side in sides for line in _unread(side)]
    if not pairs:
        return [*lines, *_nothing_common(first, second), *_framework_lines(first, second, metric)]
    with_numbers = tuple(pair for pair in pairs if not math.isnan(pair.difference))
    both = Comparison((first.name, second.name), metric, with_numbers)
    equal = sum(pair.first == pair.second for pair in with_numbers)
    lines.append(f"{metric}: {equal} of {len(pairs)} pairs are equal to the last bit")
    if len(with_numbers) < len(pairs):
        lines.append(
            f"{counted(len(pairs) - len(with_numbers), 'pair')} left out below, for lack of {metric} on a side"
        )
    if agreement.is_by_example(metric):
        lines += agreement.pair_lines([pair.examples for pair in with_numbers], metric)
    if equal < len(with_numbers):
        lines += _setting_lines(both)
    if both.apart:
        lines += ["", *_trial_lines(both)]
    return [*lines, *_framework_lines(first, second, metric)]


def _unread(side: RunSet) -> list[str]:
    number = counted(len(side.unread), "record")
    return [f"{side.name}: {number} left out, the first: {side.unread[0]}"] if side.unread else []


def _framework_lines(first: RunSet, second: RunSet, metric: str) -> list[str]:
    """Agreement of the frameworks within each set; of one set where both are the same."""
    is_one = first.root.resolve() == second.root.resolve() and first.records.keys() == second.records.keys()
    found = [agreement.framework_lines(side, metric) for side in ((first,) if is_one else (first, second))]
    return [line for lines in found if lines for line in ["", *lines]]


def _setting_lines(both: Comparison) -> Iterator[str]:
    """A test for each setting, over seeds: of a seed, the trials of all frameworks are averaged."""
    settings: dict[str, list[Pair]] = {}
    for pair in both.pairs:
        settings.setdefault(pair.setting, []).append(pair)
    apart = [pairs for pairs in settings.values() if any(pair.first != pair.second for pair in pairs)]
    tests = [_tested(pairs) for pairs in apart]
    corrected = inference.holm([one.p for one in tests])
    yield _rule(both, sum(not math.isnan(p) for p in corrected))
    for pairs, one, p in list(zip(apart, tests, corrected, strict=True))[:MAX_LINES]:
        yield _setting_line(both, pairs, one, p)
    if len(apart) > MAX_LINES:
        yield f"and {counted(len(apart) - MAX_LINES, 'more setting')}"
    if len(settings) > len(apart):
        yield f"{counted(len(settings) - len(apart), 'setting')} without a difference"
    if any(one.n == 2 and not math.isnan(one.low) for one in tests):
        yield few_text(2)


def _tested(pairs: Sequence[Pair]) -> Paired:
    seeds = [dict(pair.fields).get("seed") for pair in pairs]
    sides = [({seed: pair.first}, {seed: pair.second}) for seed, pair in zip(seeds, pairs, strict=True)]
    return inference.paired(*averaged(sides))


def _rule(both: Comparison, num_tests: int) -> str:
    """The line above the tests: their kind, and what they are corrected for."""
    frameworks = list(dict.fromkeys(str(dict(pair.fields).get(FRAMEWORK)) for pair in both.pairs))
    mean = f" on the mean of {' and '.join(frameworks)}" if len(frameworks) > 1 else ""
    holm = f", Holm's correction for {num_tests} settings" if num_tests > 1 else ""
    return f"each setting is tested by a paired t-test over seeds{mean}{holm}:"


def _setting_line(both: Comparison, pairs: Sequence[Pair], test: Paired, p: float) -> str:
    words = _words(pairs[0], [name for name in both.varying if name not in ("seed", FRAMEWORK)])
    what = f"{words}: {both.names[1]} minus {both.names[0]}".removeprefix(": ")
    interval = "" if math.isnan(test.low) else f" [{both.number(test.low)}, {both.number(test.high)}]"
    tested = "" if math.isnan(p) else f", {p_text(p)}"
    return f"{what}: {both.number(test.difference, '+')} {both.unit}{interval}, n = {test.n}{tested}"


def _trial_lines(both: Comparison) -> list[str]:
    tested = any(pair.examples for pair in both.apart)
    heads = ["n10", "n01", "p"] if tested else []
    layout = [["trial", "settings apart from the others", *both.names, f"difference ({both.unit})", *heads]]
    order, varying = sorted(both.apart, key=lambda pair: -abs(pair.difference)), both.varying
    for pair in order[:MAX_LINES]:
        numbers = [both.number(pair.first), both.number(pair.second), both.number(pair.difference, "+")]
        layout.append(
            [pair.trial, _words(pair, varying), *numbers, *(agreement.mcnemar_cells(pair.examples) if tested else [])]
        )
    rule = [agreement.rule(both.names)] if tested else []
    more = [f"and {len(order) - MAX_LINES} more"] if len(order) > MAX_LINES else []
    return [*rule, *aligned(layout), *more]


def _words(pair: Pair, names: Sequence[str]) -> str:
    fields: dict[str, Any] = dict(pair.fields)
    return " ".join(f"{short(name)}={text(fields.get(name))}" for name in names)


def _nothing_common(first: RunSet, second: RunSet) -> list[str]:
    """Lines on the fields that no trial of both sets has in common."""
    if not first.records or not second.records:
        return ["nothing to compare"]
    if first.root.resolve() == second.root.resolve():
        return ["one store keeps one record of a trial: give the runs of each commit a store of their own (--store)"]
    a, b = ({name: {json.dumps(dict(key_of(record)).get(name)) for record in side.records.values()}
             for name in dict(key_of(next(iter(side.records.values()))))} for side in (first, second))  # fmt: skip
    apart = [name for name in a if name in b and not a[name] & b[name]]
    return [f"they differ in {name}: {', '.join(sorted(a[name]))} and {', '.join(sorted(b[name]))}" for name in apart]
