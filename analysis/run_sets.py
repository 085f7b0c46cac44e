"""Sets of runs, and the trials that two sets share: two stores, or two commits of the project."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.one_trial import flat
from backends.errors import MixlabError, choices, show_chain
from experiments.design import archive
from experiments.design.labels import Labels
from experiments.results import metrics
from experiments.results.store import CorruptRecord, OtherSchema, Store
from experiments.spec.trial import with_later_fields

NOT_SCIENCE = ("data.source",)  # where data lies; its content is compared
Key = tuple[tuple[str, Any], ...]  # a trial's resolved fields


@dataclass(frozen=True)
class RunSet:
    """The done trials of a store, or those of one commit.

    unread: why, of each record that cannot be read.    labels: those on which the store's ablations agree.
    """

    name: str
    root: Path
    records: Mapping[str, dict[str, Any]]  # by id
    unread: tuple[str, ...] = ()
    labels: Labels = field(default_factory=dict)


def read_run_set(text: str, store: Path) -> RunSet:
    """Read the done trials that a text names.

    Args:   text: a store's folder; or a commit, or its first digits, of `store`; or FOLDER@COMMIT.
    Raises: MixlabError: there is no such store, or no done trial of that commit.
    """
    folder, _, commit = text.rpartition("@") if "@" in text and not Path(text).exists() else (text, "", "")
    if not commit and not Path(text).is_dir():
        if not re.fullmatch("[0-9a-f]{4,40}", text):
            raise MixlabError(
                f"command line: expected a store's folder, a commit or FOLDER@COMMIT, got {text!r}, which is neither a "
                f"folder nor a commit"
            )
        folder, commit = str(store), text
    held = Store(Path(folder or store))
    done, unread = _records(held)
    if not commit:
        return RunSet(text, held.root, done, unread, archive.labels(held))
    chosen = {key: record for key, record in done.items() if any(one.startswith(commit) for one in _commits(record))}
    if not chosen:
        there = sorted({one[:12] for record in done.values() for one in _commits(record)})
        raise MixlabError(
            f"command line: {text!r} is not a folder, and no done trial of {held.root} ran under such a commit; "
            f"{choices(commit, there)}"
        )
    return RunSet(text, held.root, chosen, unread, archive.labels(held))


def _records(store: Store) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Done records by id, and why others cannot be read."""
    done, unread = {}, []
    for trial_id in store.trial_ids():
        try:
            record = store.record(trial_id)
        except (CorruptRecord, OtherSchema) as error:
            show_chain(error)
            unread.append(str(error))
            continue
        if record is not None and record["status"] == "done" and isinstance(record.get("spec"), dict):
            done[trial_id] = record
    return done, tuple(unread)


def _commits(record: dict[str, Any]) -> list[str]:
    return [str(one["commit"]) for one in record["sessions"] if one.get("commit")]


def matched(first: RunSet, second: RunSet) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs of records: those with the same id, then those whose fields are the same where both have them.

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
    names = [{name for record in side for name, _ in key_of(record)} for side in left]
    common = names[0] & names[1]
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
    when, split, asked = metrics.parse(metric)
    number = (record["metrics"][when][split] or {}).get(asked.name)
    return math.nan if number is None else float(number)


def key_of(record: dict[str, Any]) -> Key:
    """The resolved fields of a trial that can change its result."""
    spec = {name: part for name, part in with_later_fields(record["spec"]).items() if name != "run"}
    return tuple((name, part) for name, part in flat(spec, "") if name not in NOT_SCIENCE)


def _restricted(record: dict[str, Any], common: set[str]) -> Key:
    return tuple(sorted((name, json.dumps(part)) for name, part in key_of(record) if name in common))
