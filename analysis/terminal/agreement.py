"""Agreement of runs example by example, as lines: of the frameworks that trained one setting, and of pairs of runs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

from analysis.examples import Examples, both, mcnemar
from analysis.labels import plain_text
from analysis.run_sets import RunSet, key_of
from analysis.settings import FRAMEWORK
from analysis.table.layout import aligned
from analysis.table.wording import p_value
from backends.errors import counted
from experiments.design.labels import words
from experiments.results import metrics, predictions
from experiments.results.store import Store

MAX_LINES = 20  # settings of two frameworks
SHARE_DIGITS = 2  # of a share in %


def is_by_example(metric: str) -> bool:
    """Tell whether a metric is the share of examples whose predictions are right, of a split that keeps them."""
    place = metrics.parse(metric)
    return place.metric is metrics.ACCURACY and place.split in predictions.KEPT_SPLITS


def of_runs(sides: tuple[RunSet, RunSet], ids: tuple[str, str], metric: str) -> Examples | None:
    """How far two runs agree, by their ids; None: see `both`."""
    when, split, _ = metrics.parse(metric)
    first, second = (
        predictions.read(Store(side.root).folder(trial_id), when, split)
        for side, trial_id in zip(sides, ids, strict=True)
    )
    return both(first, second)


def pair_lines(found: Sequence[Examples | None], metric: str) -> Iterator[str]:
    """How many pairs of runs say the same of each example, and how many cannot be compared so."""
    name, there = _name(metric), [one for one in found if one]
    if there:
        same = sum(one.same_class == one.num for one in there)
        yield f"{name}: {same} of {counted(len(there), 'pair')} say the same class of each example"
    if missing := len(found) - len(there):
        yield f"{name}: {counted(missing, 'pair')} without predictions of the same examples on both sides"


def rule(names: tuple[str, str]) -> str:
    """What `mcnemar_cells` are."""
    return (
        f"p: McNemar's exact test of each pair alone, uncorrected, over the examples that one of both has right: n10, "
        f"{names[0]} alone; n01, {names[1]} alone"
    )


def mcnemar_cells(found: Examples | None) -> list[str]:
    """n10, n01 and p of two runs."""
    if found is None:
        return ["—"] * 3
    return [f"{found.first_alone:,}", f"{found.second_alone:,}", p_value(mcnemar(found))]


def framework_lines(side: RunSet, metric: str) -> list[str]:
    """How far the frameworks of a set of runs say the same of each example, setting by setting; the worst first."""
    if metrics.parse(metric).split not in predictions.KEPT_SPLITS:
        return []
    settings = _settings(side)
    names = sorted({name for seeds in settings.values() for found in seeds.values() for name in found})
    lines: list[str] = []
    for pair in combinations(names, 2):
        shared = {
            setting: [(found[pair[0]], found[pair[1]]) for found in seeds.values() if {*pair} <= found.keys()]
            for setting, seeds in settings.items()
        }
        lines += _pair_lines(side, metric, pair, {setting: found for setting, found in shared.items() if found})
    return lines


def _settings(side: RunSet) -> dict[str, dict[str, dict[str, str]]]:
    """Ids by the fields but framework and seed, then by seed, then by framework."""
    settings: dict[str, dict[str, dict[str, str]]] = {}
    for trial_id, record in side.records.items():
        fields = dict(key_of(record))
        name, seed = str(fields.pop(FRAMEWORK, "")), json.dumps(fields.pop("seed", None))
        settings.setdefault(json.dumps(fields), {}).setdefault(seed, {})[name] = trial_id
    return settings


def _pair_lines(
    side: RunSet, metric: str, names: tuple[str, str], settings: Mapping[str, list[tuple[str, str]]]
) -> Iterator[str]:
    if not settings:
        return
    found: dict[str, list[Examples]] = {}
    missing = 0
    for setting, seeds in settings.items():
        pairs = [of_runs((side, side), ids, metric) for ids in seeds]
        missing += pairs.count(None)
        found[setting] = [pair for pair in pairs if pair is not None]
    told = {setting: pairs for setting, pairs in found.items() if pairs}
    told_as = [words(side.labels, FRAMEWORK, name) for name in names]
    what = f"{side.name}: {' and '.join(told_as)}, {_name(metric)} example by example"
    if missing:
        yield f"{what}: {counted(missing, 'seed')} of a setting without predictions of both on the same examples"
    if not told:
        return
    yield f"{what}:"
    order = sorted(told, key=lambda setting: fmean(pair.same_class / pair.num for pair in told[setting]))
    layout = [
        ["setting", "seeds", "same class %", "both right or both wrong %", *(f"{name} alone right" for name in told_as)]
    ]
    for setting in order[:MAX_LINES]:
        layout.append([_words(side, setting, settings), *_cells(told[setting])])
    yield from aligned(layout)
    if len(order) > MAX_LINES:
        yield f"and {counted(len(order) - MAX_LINES, 'more setting')}"


def _cells(pairs: list[Examples]) -> list[str]:
    same, correctness = (
        f"{100 * fmean(share):.{SHARE_DIGITS}f}"
        for share in ([one.same_class / one.num for one in pairs], [one.same_correctness / one.num for one in pairs])
    )
    alone = (sum(one.first_alone for one in pairs), sum(one.second_alone for one in pairs))
    return [str(len(pairs)), same, correctness, *(f"{number:,}" for number in alone)]


def _words(side: RunSet, setting: str, settings: Mapping[str, Any]) -> str:
    """The fields of a setting that are not the same in all of them; `all` where there is only one."""
    values: dict[str, set[str]] = {}
    for fields in map(json.loads, settings):
        for name, value in fields.items():
            values.setdefault(name, set()).add(json.dumps(value))
    own = json.loads(setting)
    return " ".join(plain_text(side.labels, name, own.get(name)) for name in values if len(values[name]) > 1) or "all"


def _name(metric: str) -> str:
    """`last.test`, of `last.test.accuracy`."""
    return metric.rpartition(".")[0]
