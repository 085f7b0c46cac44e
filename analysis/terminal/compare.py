"""A comparison of two sets of runs: a test for each setting, and the trials that differ."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from analysis import settings
from analysis.examples import Examples
from analysis.labels import plain_text
from analysis.predictions import Reader, Right, reader
from analysis.run_sets import Key, RunSet, key_of, matched, value
from analysis.settings import FRAMEWORK, Compared, Tested
from analysis.table.layout import aligned
from analysis.table.tested import kind_text, number_text, other_level_text
from analysis.table.wording import p_text
from analysis.terminal import agreement
from backends.errors import MixlabError, choices, counted
from experiments.design.labels import Labels, agreed, words
from experiments.results import metrics
from experiments.results.metrics import Metric
from experiments.results.store import Store

MAX_LINES = 40  # of settings, and of trials, that differ


@dataclass(frozen=True)
class Pair:
    """The same trial in both sets."""

    trials: tuple[str, str]  # its id in the first, and in the second
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
    read: Reader  # of a trial's predictions, by "0 id" in the first set and "1 id" in the second
    labels: Labels

    @property
    def unit(self) -> str:
        """Of a difference."""
        return self._metric.difference_unit

    @property
    def _metric(self) -> Metric:
        return metrics.parse(self.metric).metric

    @property
    def split(self) -> str:
        return metrics.parse(self.metric).split

    def number(self, value: float, sign: str = "") -> str:
        return f"{round(self._metric.scale * value, 3) + 0.0:{sign}.3f}"  # + 0.0: no -0.0

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
            *((one["id"], other["id"]), key_of(one), value(one, metric), value(other, metric)),
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
    labels = agreed(side.labels for side in sides)
    both = Comparison((first.name, second.name), metric, with_numbers, _reader(sides, metric), labels)
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


def _reader(sides: tuple[RunSet, RunSet], metric: str) -> Reader:
    readers = [reader(Store(side.root), metric) for side in sides]

    def read(trial: str) -> Right | None:
        place, _, key = trial.partition(" ")
        return readers[int(place)](key)

    return read


def _unread(side: RunSet) -> list[str]:
    number = counted(len(side.unread), "record")
    return [f"{side.name}: {number} left out, the first: {side.unread[0]}"] if side.unread else []


def _framework_lines(first: RunSet, second: RunSet, metric: str) -> list[str]:
    """Agreement of the frameworks within each set; of one set where both are the same."""
    is_one = first.root.resolve() == second.root.resolve() and first.records.keys() == second.records.keys()
    found = [agreement.framework_lines(side, metric) for side in ((first,) if is_one else (first, second))]
    return [line for lines in found if lines for line in ["", *lines]]


def _setting_lines(both: Comparison) -> Iterator[str]:
    """The test of a table for each setting that differs: of a seed, the trials of all frameworks are averaged."""
    by_setting: dict[str, list[Pair]] = {}
    for pair in both.pairs:
        by_setting.setdefault(pair.setting, []).append(pair)
    apart = {
        setting: pairs for setting, pairs in by_setting.items() if any(pair.first != pair.second for pair in pairs)
    }
    tests = settings.tests([cell for pairs in apart.values() for cell in _cells(pairs)], both.read)
    yield _rule(both, list(tests.values()))
    for setting, pairs in list(apart.items())[:MAX_LINES]:
        yield _setting_line(both, pairs, tests[(setting,)])
    if len(apart) > MAX_LINES:
        yield f"and {counted(len(apart) - MAX_LINES, 'more setting')}"
    if len(by_setting) > len(apart):
        yield f"{counted(len(by_setting) - len(apart), 'setting')} without a difference"


def _cells(pairs: Sequence[Pair]) -> Iterator[Compared]:
    """A setting's frameworks, each with the first set as the baseline of the second."""
    frameworks: dict[str, list[tuple[Any, Pair]]] = {}
    for pair in pairs:
        fields = dict(pair.fields)
        frameworks.setdefault(str(fields.get(FRAMEWORK)), []).append((fields.get("seed"), pair))
    for name, by_seed in frameworks.items():
        first, second = ({seed: getattr(pair, side) for seed, pair in by_seed} for side in ("first", "second"))
        trials = tuple({seed: f"{place} {pair.trials[place]}" for seed, pair in by_seed} for place in (0, 1))
        yield Compared((pairs[0].setting,), name, first, second, math.nan, trials)  # type: ignore[arg-type]


def _rule(both: Comparison, tests: Sequence[Tested]) -> str:
    """The line above the tests: their kind, and what they are corrected for."""
    names = dict.fromkeys(str(dict(pair.fields).get(FRAMEWORK)) for pair in both.pairs)
    frameworks = [words(both.labels, FRAMEWORK, name) for name in names]
    mean = f" on the mean of {' and '.join(frameworks)}" if len(frameworks) > 1 else ""
    number = sum(not math.isnan(one.paired.p) for one in tests)
    holm = f", Holm's correction for {number} settings" if number > 1 else ""
    return f"each setting is tested by a {kind_text({one.over for one in tests if one.over}, both.split)}{mean}{holm}:"


def _setting_line(both: Comparison, pairs: Sequence[Pair], one: Tested) -> str:
    found, p = one.paired, one.p_holm
    where = _words(both, pairs[0], [name for name in both.varying if name not in ("seed", FRAMEWORK)])
    what = f"{where}: {both.names[1]} minus {both.names[0]}".removeprefix(": ")
    ends = f" [{both.number(found.low)}, {both.number(found.high)}]{other_level_text(found.level)}"
    interval = "" if math.isnan(found.low) else ends
    tested = "" if math.isnan(p) else f", {p_text(p)}"
    return f"{what}: {both.number(found.difference, '+')} {both.unit}{interval}, {number_text(one, both.split)}{tested}"


def _trial_lines(both: Comparison) -> list[str]:
    tested = any(pair.examples for pair in both.apart)
    heads = ["n10", "n01", "p"] if tested else []
    layout = [["trial", "settings apart from the others", *both.names, f"difference ({both.unit})", *heads]]
    order, varying = sorted(both.apart, key=lambda pair: -abs(pair.difference)), both.varying
    for pair in order[:MAX_LINES]:
        numbers = [both.number(pair.first), both.number(pair.second), both.number(pair.difference, "+")]
        cells = agreement.mcnemar_cells(pair.examples) if tested else []
        layout.append([pair.trials[0], _words(both, pair, varying), *numbers, *cells])
    rule = [agreement.rule(both.names)] if tested else []
    more = [f"and {len(order) - MAX_LINES} more"] if len(order) > MAX_LINES else []
    return [*rule, *aligned(layout), *more]


def _words(both: Comparison, pair: Pair, names: Sequence[str]) -> str:
    fields: dict[str, Any] = dict(pair.fields)
    return " ".join(plain_text(both.labels, name, fields.get(name)) for name in names)


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
