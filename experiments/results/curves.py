"""The curve of a trial, ended or not: its evaluations in order of their steps."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.results.metrics import BEST, CHOOSES, STEP
from experiments.results.record import is_final
from experiments.results.store import Store

FILE = "metrics.jsonl"

Point = dict[str, Any]  # of a curve


def points(store: Store, trial_id: str, record: dict[str, Any] | None) -> list[Point]:
    """The evaluations of a trial by now, of its record where it has ended for good; none where they are damaged.

    Args: record: its own, with the curve.
    """
    recorded = list(record["curve"]) if record else []
    if record and is_final(record):
        return recorded
    try:
        return read(store.folder(trial_id) / FILE)
    except (OSError, ValueError):
        return recorded


def read(path: Path) -> list[Point]:
    """The evaluations that a file holds, a line each. Raises: OSError.    ValueError: a line is no evaluation."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    if all(isinstance(point, dict) and isinstance(point.get(STEP), int) for point in found):
        return found
    raise ValueError("a line is no evaluation")


def has_come_to(store: Store, trial_id: str, step: int) -> bool:
    """Tell whether a trial that has not ended for good has been evaluated at a step."""
    record = store.sound_record(trial_id, with_curve=True)
    if record and is_final(record):
        return False
    return any(point[STEP] == step for point in points(store, trial_id, record))


def at(curve: Sequence[Point], when: str, step: int) -> Point | None:
    """What `last` or `best` is of a curve that ends with a step; None: it has no evaluation at exactly this step."""
    until = [point for point in curve if point[STEP] <= step]
    if not until or until[-1][STEP] != step:
        return None
    return best(until) if when == BEST else until[-1]


def best(curve: Sequence[Point]) -> Point | None:
    """The first point that is best on validation; without a validation split, the last point."""
    if not curve or curve[-1]["validation"] is None:
        return curve[-1] if curve else None
    better = max if CHOOSES.higher_is_better else min
    return better(curve, key=lambda point: point["validation"][CHOOSES.name])
