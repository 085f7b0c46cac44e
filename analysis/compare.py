"""Two sets of runs side by side: the same trials in two stores, or under two commits of the project."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis import statistics
from analysis.layout import aligned
from analysis.notes import p_text
from backends.errors import MixlabError, choices
from experiments.report_spec import METRICS
from experiments.store import CorruptRecord, OtherSchema, Store

MAX_LINES = 40  # of trials that differ
NOT_SCIENCE = ("data.source",)  # where data lies; its content is compared
Key = tuple[tuple[str, Any], ...]  # a trial's resolved fields


@dataclass(frozen=True)
class RunSet:
    """The done trials of a store, or those of one commit."""

    name: str
    root: Path
    records: Mapping[str, dict[str, Any]]  # by id


def read_run_set(text: str, store: Path) -> RunSet:
    """Args:   text: a store's folder; or a commit, or its first digits, of `store`; or FOLDER@COMMIT.
    Raises: MixlabError: there is no such store, or no done trial of that commit.
    """
    folder, _, commit = text.rpartition("@") if "@" in text and not Path(text).exists() else (text, "", "")
    if not commit and not Path(text).is_dir():
        if not re.fullmatch("[0-9a-f]{4,40}", text):
            raise MixlabError(
                f"command line: {text!r} is neither a folder nor a commit; allowed: either, or FOLDER@COMMIT"
            )
        folder, commit = str(store), text
    held = Store(Path(folder or store))
    found = dict(_records(held))
    if not commit:
        return RunSet(text, held.root, found)
    chosen = {key: record for key, record in found.items() if any(one.startswith(commit) for one in _commits(record))}
    if not chosen:
        known = sorted({one[:12] for record in found.values() for one in _commits(record)})
        raise MixlabError(
            f"command line: {text!r} is no folder, and no done trial of {held.root} is of such a commit; "
            f"{choices(commit, known)}"
        )
    return RunSet(text, held.root, chosen)


def _records(store: Store) -> Iterator[tuple[str, dict[str, Any]]]:
    for trial_id in store.trial_ids():
        try:
            record = store.record(trial_id)
        except (CorruptRecord, OtherSchema):
            continue
        if record is not None and record["status"] == "done" and isinstance(record.get("spec"), dict):
            yield trial_id, record


def _commits(record: dict[str, Any]) -> list[str]:
    return [str(one["commit"]) for one in record["sessions"] if one.get("commit")]


def compare_lines(first: RunSet, second: RunSet, metric: str) -> list[str]:
    """What both have in common, and where they differ. Raises: MixlabError: no such metric."""
    if metric not in METRICS:
        raise MixlabError(f"command line: --metric: {metric!r} is not known; {choices(metric, METRICS)}")
    pairs = matched(first, second)
    lines = [
        f"{first.name}: {len(first.records)} done trials; {second.name}: {len(second.records)}; "
        f"{len(pairs)} of the same settings, backend and seed"
    ]
    if not pairs:
        return [*lines, *_nothing_common(first, second)]
    a, b = ({i: value(pair[place], metric) for i, pair in enumerate(pairs)} for place in (0, 1))
    known = [i for i in a if not math.isnan(b[i] - a[i])]
    equal = {i for i in known if a[i] == b[i]}
    lines.append(f"{metric}: {len(equal)} of {len(pairs)} pairs equal to the last bit")
    if len(known) < len(pairs):
        lines.append(f"{len(pairs) - len(known)} pairs have no {metric} on one side or both, and are left out below")
    accuracy = metric.endswith("accuracy")
    scale, unit = (100, "points") if accuracy else (1, "nats")
    if len(equal) < len(known):
        found = statistics.paired({i: a[i] for i in known}, {i: b[i] for i in known})
        interval = "" if math.isnan(found.low) else f" [{scale * found.low:.3f}, {scale * found.high:.3f}]"
        p = "" if math.isnan(found.p) else f", {p_text(found.p)} (paired t-test)"
        lines.append(f"{second.name} minus {first.name}: {scale * found.difference:+.3f} {unit}{interval}{p}")
    layout = [["trial", "settings apart from the others", first.name, second.name, f"difference ({unit})"]]
    varying = _varying([key_of(pair[0]) for pair in pairs])
    order = sorted((i for i in known if i not in equal), key=lambda i: -abs(b[i] - a[i]))
    for i in order[:MAX_LINES]:
        fields = dict(key_of(pairs[i][0]))
        words = " ".join(f"{name.rpartition('.')[2]}={fields[name]}" for name in varying)
        numbers = [f"{scale * side[i]:.3f}" for side in (a, b)]
        layout.append([pairs[i][0]["id"], words, *numbers, f"{scale * (b[i] - a[i]):+.3f}"])
    if order:
        lines += ["", *aligned(layout)]
    if len(order) > MAX_LINES:
        lines.append(f"and {len(order) - MAX_LINES} more")
    return lines


def matched(first: RunSet, second: RunSet) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Records of both of one id; of the others those with the same resolved fields, as far as both sides know them.

    A record is never paired with itself, nor one of several with an equal claim.
    """
    if first.root.resolve() == second.root.resolve() and first.records.keys() & second.records.keys():
        own = first.records.keys() & second.records.keys()
        first, second = (
            RunSet(side.name, side.root, {key: record for key, record in side.records.items() if key not in own})
            for side in (first, second)
        )
    same = [key for key in first.records if key in second.records]
    left = [[record for key, record in side.records.items() if key not in same] for side in (first, second)]
    known = [{name for record in side for name, _ in key_of(record)} for side in left]
    common = known[0] & known[1]
    places = [[_restricted(record, common) for record in side] for side in left]
    counts = [Counter(side) for side in places]
    there = dict(zip(places[1], left[1], strict=True))
    pairs = [
        (record, there[key])
        for key, record in zip(places[0], left[0], strict=True)
        if counts[0][key] == 1 and counts[1][key] == 1
    ]
    return [*((first.records[key], second.records[key]) for key in same), *pairs]


def value(record: dict[str, Any], metric: str) -> float:
    when, split, name = metric.split(".")
    number = (record["metrics"][when][split] or {}).get(name)
    return math.nan if number is None else float(number)


def key_of(record: dict[str, Any]) -> Key:
    """The resolved fields of a trial that can change its result."""
    spec = {name: part for name, part in record["spec"].items() if name != "run"}
    return tuple((name, part) for name, part in _flat(spec, "") if name not in NOT_SCIENCE)


def _flat(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, part in tree.items():
        if isinstance(part, dict):
            yield from _flat(part, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", part


def _restricted(record: dict[str, Any], common: set[str]) -> Key:
    return tuple(sorted((name, json.dumps(part)) for name, part in key_of(record) if name in common))


def _varying(keys: list[Key]) -> list[str]:
    values: dict[str, set[str]] = {}
    for key in keys:
        for name, part in key:
            values.setdefault(name, set()).add(json.dumps(part))
    return [name for name, found in values.items() if len(found) > 1]


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
