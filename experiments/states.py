"""What the store says of a trial."""

from typing import Any

from experiments import checkpoint
from experiments.store import CHECKPOINT, CorruptRecord, OtherSchema, Store

STATUSES = ("done", "running", "failed", "missing")


def status(store: Store, trial_id: str) -> tuple[str, str, dict[str, Any] | None]:
    """(done, running, failed or missing; why or how far; the record if there is one)."""
    try:
        record = store.record(trial_id)
    except CorruptRecord as error:
        return "missing", f"{error}; the trial runs again with the next run", None
    except OtherSchema as error:
        return "missing", str(error), None
    if record is not None and record["status"] == "done":
        return "done", "", record
    if (owner := store.owner(trial_id)) is not None:
        step = f"step {owner['step']} of {owner['steps']}, " if "step" in owner else ""
        return "running", f"{step}process {owner.get('pid')} on {owner.get('host')}", None
    if record is not None:
        return "failed", str(record["reason"]), record
    return "missing", _progress(store, trial_id), None


def _progress(store: Store, trial_id: str) -> str:
    """How far a trial is that was stopped or killed; nothing of one that has saved no step."""
    said, last = "", store.folder(trial_id) / CHECKPOINT
    for path in (last, checkpoint.before(last)):
        try:
            return f"{said}stopped, its last checkpoint is of step {checkpoint.read_progress(path)['step']}"
        except FileNotFoundError:
            continue
        except checkpoint.CorruptCheckpoint as error:
            said += f"store: {path} is corrupt: {error}; the next run sets it aside; "
    return said.removesuffix("; ")
