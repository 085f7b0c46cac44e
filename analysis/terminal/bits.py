"""Whether the same trials of two sets of runs ended at the same bits, as lines."""

from collections.abc import Iterator
from typing import Any

from analysis.records import values_of
from analysis.run_sets import RunSet
from analysis.table.layout import aligned
from backends.errors import counted
from experiments.results.shape import sound

BITS = "bits"  # of a record
SAME, OTHER, UNKNOWN = "same bits", "other bits", "not known"


def verdicts(first: RunSet, second: RunSet) -> dict[str, str]:
    """SAME, OTHER or UNKNOWN of each trial that is done in both, by id."""
    return {
        trial_id: _verdict(sound(record, BITS), sound(second.records[trial_id], BITS))
        for trial_id, record in first.records.items()
        if trial_id in second.records
    }


def _verdict(a: str | None, b: str | None) -> str:
    return UNKNOWN if a is None or b is None else SAME if a == b else OTHER


def _cause(first: dict[str, Any], second: dict[str, Any]) -> str:
    """What may be why two records of a trial have other bits: how it was trained differs there; empty: it does not."""
    own = first["spec"]["backend"]
    here, there = (values_of(own, record) for record in (first, second))
    for column, otherwise in (("trained_on", own), ("ran_on", "an unknown device")):
        if here[column] != there[column]:
            return f"{here[column] or otherwise} against {there[column] or otherwise}"
    packages = [sound(record, "environment.packages") or {} for record in (first, second)]
    for name in sorted(packages[0].keys() & packages[1].keys()):
        if packages[0][name] != packages[1][name]:
            return f"{name} {packages[0][name]} against {packages[1][name]}"
    if here["commit"] != there["commit"]:
        return f"Mixlab at {here['commit']} against {there['commit']}"
    return ""


def bits_lines(first: RunSet, second: RunSet) -> Iterator[str]:
    """A line a trial, and a count. Args: first, second: their trials are matched by id."""
    found = verdicts(first, second)
    rows, causes = [["trial", first.name, second.name, ""]], list[str]()
    for trial_id, verdict in found.items():
        each = [sound(one.records[trial_id], BITS) or "none" for one in (first, second)]
        rows.append([trial_id, *each, verdict])
        if verdict == OTHER and (cause := _cause(first.records[trial_id], second.records[trial_id])):
            causes.append(f"{trial_id}: {cause}")
    if found:
        yield from aligned(rows)
    yield from causes
    counts = {verdict: list(found.values()).count(verdict) for verdict in (SAME, OTHER, UNKNOWN)}
    shown = ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number)
    alone = len(first.records) + len(second.records) - 2 * len(found)
    rest = f"; {counted(alone, 'trial')} in one of them alone" if alone else ""
    yield f"{counted(len(found), 'trial')} in both: {shown or 'none'}{rest}"
    if counts[UNKNOWN]:
        yield "not known: a record of before Mixlab noted the bits of a trial's last state"
