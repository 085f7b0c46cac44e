"""What becomes of a trial that has been trained, by what ended it."""

import traceback
from dataclasses import replace
from typing import Any

from backends.errors import Diverged, MixlabError
from experiments.results import checkpoint
from experiments.results.claims import ClaimLost
from experiments.results.store import Store
from experiments.running.events import Ended
from experiments.running.failures import NOT_ITS_OWN, DoesNotFit, Failure, GroupLost, failure
from experiments.training.loop import Paused, Stopped
from experiments.training.transfer import NoStart


def as_recorded(trial_id: str, record: dict[str, Any]) -> Ended:
    """What became of a trial that another process has ended."""
    if record["status"] == "done":
        return Ended(trial_id, "done")
    return Ended(trial_id, "failed", Failure(str(record.get("cause", "error")), str(record["reason"])))


def without_record(trial_id: str, error: Exception | None, store: Store, is_stopping: bool) -> Ended | None:
    """The end of a trial that has no outcome yet, as it goes on later or elsewhere; None: it is done or has failed.

    Args: is_stopping: whether its worker is asked to stop.
    """
    if isinstance(error, (Paused, Stopped)):
        return Ended(trial_id, "paused" if isinstance(error, Paused) else "stopped")
    if isinstance(error, ClaimLost):
        return Ended(trial_id, "busy")
    if isinstance(error, GroupLost) and is_stopping:  # as where a worker dies that was asked to stop
        return Ended(trial_id, "stopped")
    if isinstance(error, MixlabError) or (isinstance(error, GroupLost) and error.failure.cause in NOT_ITS_OWN):
        return Ended(trial_id, "error", _with_way_on(trial_id, failure(error), store))
    return None


def with_record(trial_id: str, error: Exception | None) -> tuple[dict[str, Any], Ended]:
    """What the record says of a trial that is done or has failed, and its end."""
    if error is None:
        return {"status": "done", "reason": None}, Ended(trial_id, "done")
    failed = failure(error)
    if isinstance(error, (Diverged, DoesNotFit, NoStart)):  # expected: where in the code it was found says nothing
        return failed.outcome, Ended(trial_id, "failed", failed)
    trace = "".join(traceback.format_exception(error))
    return {**failed.outcome, "traceback": trace}, Ended(trial_id, "crashed", failed)


def _with_way_on(trial_id: str, failed: Failure, store: Store) -> Failure:
    """The failure; of a trial whose data is lost, with its name, what is saved of it, and how it goes on."""
    if failed.cause != "data_missing":
        return failed
    step = checkpoint.newest_step(store.checkpoint(trial_id))
    where = f"it is saved at step {step:,}, and goes on from there" if step else "it begins"
    whose = "" if trial_id in failed.reason else f"trial {trial_id}: "
    return replace(failed, reason=f"{whose}{failed.reason}; {where} when it is run or submitted again")
