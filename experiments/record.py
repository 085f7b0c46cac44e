"""The record of a trial: what `record.json` holds."""

import time
from dataclasses import asdict
from typing import Any

from experiments.spec import Trial
from experiments.store import RECORD_SCHEMA


def make_record(
    trial: Trial, outcome: dict[str, Any], environment: dict[str, Any], started: float, result: dict[str, Any] | None
) -> dict[str, Any]:
    """A record, ready to be written.

    Args:   outcome: status (done or failed), reason, and the traceback of an error.
            environment: of environment.environment, and `backend`: what the backend says about itself.
            started: seconds since 1970, of this process's work on the trial.
            result: of TrialRun.result; None where the training never began or left nothing.
    """
    return {
        "schema": RECORD_SCHEMA,
        "id": trial.id,
        **outcome,
        "spec": asdict(trial),
        "environment": environment,
        "started": started,
        "finished": time.time(),
        **(result or {"notes": []}),
    }


def is_final(record: dict[str, Any]) -> bool:
    """Whether to leave a trial as it is: a divergence comes again each time; other failures may be the machine's."""
    return record["status"] == "done" or str(record["reason"]).startswith("diverged")
