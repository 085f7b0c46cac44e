"""Records of trials: what `record.json` holds."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from experiments.spec.trial import Trial, as_tree

RECORD_SCHEMA = 2
HEAD_BYTES = 16384  # of a file; what stands before the curve is about 4,000 bytes
CURVE_BEGINS, CURVE_ENDS = b'],\n "curve": [', b"]\n}\n"  # the first bracket is that of the notes
SECONDS, SPLITS = ("compile", "train", "evaluate"), ("train", "validation", "test")
NUMBERS = ("steps", "images_per_s", "parameters", "forward_flops_per_image", "training_flops", "peak_memory_bytes")


def make_record(
    trial: Trial, outcome: dict[str, Any], environment: dict[str, Any], started: float, result: dict[str, Any] | None
) -> dict[str, Any]:
    """Make a record, ready to be written.

    Args:   outcome: status (done or failed), reason, and the traceback of an error.
            environment: of environment.environment, and `backend`: what the backend says about itself.
            started: seconds since 1970, of this process's work on the trial.
            result: of TrialRun.result; None where the training never began or left nothing.
    """
    return {
        "schema": RECORD_SCHEMA,
        "id": trial.id,
        **outcome,
        "spec": as_tree(trial),
        "environment": environment,
        "started": started,
        "finished": time.time(),
        **(result or {"notes": [], "curve": []}),
    }


def read(path: Path, with_curve: bool) -> Any:
    """Read a record's file; its curve, which is its last part and nine tenths of it, is read only if asked for.

    Raises: ValueError: it is not JSON.   OSError.
    """
    with path.open("rb", buffering=0) as file:
        before, begin, curve = file.read(-1 if with_curve else HEAD_BYTES).partition(CURVE_BEGINS)
        if begin:
            file.seek(-len(CURVE_ENDS), os.SEEK_END)
        if not begin or file.read() != CURVE_ENDS:
            return json.loads(path.read_bytes())
    record = json.loads(before + begin + CURVE_ENDS)
    return {**record, "curve": orjson.loads(b"[" + curve[: 1 - len(CURVE_ENDS)])} if with_curve else record


def is_final(record: dict[str, Any]) -> bool:
    """Tell whether to leave a trial as it is: a divergence repeats each time; other failures may be the machine's."""
    return record["status"] == "done" or str(record["reason"]).startswith("diverged")


def faults(record: dict[str, Any]) -> Iterator[str]:
    """Names of parts that tables and lists show, and that are missing, of a wrong type or out of range."""
    if not _is_whole(record):
        yield from _faults(record)


def _is_whole(record: dict[str, Any]) -> bool:
    """Tell whether a record has no faults, in a tenth of the time: reports ask this of ten thousand records at once."""
    try:
        numbers = [*map(record.__getitem__, NUMBERS), *map(record["seconds"].__getitem__, SECONDS)]
        accuracies: list[Any] = []
        for point in (record["metrics"]["last"], record["metrics"]["best"]):
            numbers.append(point["step"])
            for split in map(point.__getitem__, SPLITS):
                numbers += [] if split is None else [split["accuracy"], split["loss"]]
                accuracies += [] if split is None else [split["accuracy"]]
        listed = type(record["notes"]) is list and all(type(one) is dict for one in record["sessions"])
        kinds = all(type(number) in (int, float, type(None)) for number in numbers)
        kinds = kinds and all(number is None or number >= 0 for number in numbers)
        kinds = kinds and all(accuracy is None or accuracy <= 1 for accuracy in accuracies)
        return listed and kinds and type(record["sessions"]) is list and record["status"] == "done"
    except (KeyError, TypeError, AttributeError):
        return False


def _faults(record: dict[str, Any]) -> Iterator[str]:
    if record.get("status") not in ("done", "failed"):
        yield "status"
    if not isinstance(record.get("notes"), list):
        yield "notes"
    if record.get("status") == "failed" and not isinstance(record.get("reason"), str):
        yield "reason"
    if record.get("status") != "done":
        return
    sessions = record.get("sessions")
    if not isinstance(sessions, list) or not all(isinstance(session, dict) for session in sessions):
        yield "sessions"
    paths: list[tuple[str, ...]] = [(name,) for name in NUMBERS]
    paths += [("seconds", what) for what in SECONDS]
    for when in ("last", "best"):
        paths.append(("metrics", when, "step"))
        for split in SPLITS:
            if _part(record, "metrics", when, split) is not None:  # null: there are no such examples
                paths += [("metrics", when, split, value) for value in ("accuracy", "loss")]
    for path in paths:
        value = _part(record, *path)
        if not _is_number(value) or (value is not None and not 0 <= value <= (1 if path[-1] == "accuracy" else value)):
            yield ".".join(path)


def _part(tree: Any, *path: str) -> Any:
    try:
        for name in path:
            tree = tree[name]
    except (KeyError, TypeError, IndexError):
        return ""
    return tree


def _is_number(value: Any) -> bool:
    """Tell whether a value is a number, or null, which stands for NaN."""
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
