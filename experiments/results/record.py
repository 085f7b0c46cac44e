"""Records of trials, as `record.json` holds them: making, reading, and questions to one; shape.py has the keys."""

import json
import os
import time
from pathlib import Path
from typing import Any

import orjson

from experiments.spec.trial import Trial, as_tree

RECORD_SCHEMA = 2
HEAD_BYTES = 16384  # of a file; what stands before the curve is about 4,000 bytes
CURVE_BEGINS, CURVE_ENDS = b'],\n "curve": [', b"]\n}\n"  # the first bracket is that of the notes


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
