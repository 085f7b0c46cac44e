"""State of a trial by the store alone."""

from dataclasses import dataclass, field
from typing import Any

from experiments.results import checkpoint
from experiments.results.record import is_final
from experiments.results.store import CorruptRecord, OtherSchema, Store

PAUSED, PRUNED = HALTED = ("paused", "pruned")  # only where tuning is by halving; see Halt
# The last four only where trials are sent to Slurm: waiting there; gone from there without a result; cancelled by us;
# there, as far as is known while Slurm does not answer.
STATUSES = ("done", "running", "failed", "missing", *HALTED, "queued", "lost", "cancelled", "unknown")


@dataclass(frozen=True)
class Halt:
    """Where halving has a trial stand that tunes; see experiments/design/halving.py."""

    step: int  # of the stage that it has come to the end of
    is_pruned: bool = False  # it goes no further
    goes_on: bool = False  # it is to be trained further; neither: the others of its stage have not come so far

    @property
    def status(self) -> str:
        return PRUNED if self.is_pruned else PAUSED

    @property
    def why(self) -> str:
        note = "" if self.is_pruned else " (goes on)" if self.goes_on else " (waits for the others)"
        return f"at {self.step}{note}"


@dataclass(frozen=True)
class TrialState:
    """The state of a trial now."""

    status: str  # of STATUSES
    why: str = ""  # it failed, or how far it is
    record: dict[str, Any] | None = None  # of one that has ended
    said: dict[str, Any] = field(default_factory=dict)  # by the living owner of one that runs; see claims.py
    job: str = ""  # Slurm's number of its last job
    node: str = ""
    left: str = ""  # time until the job's limit, as squeue writes it
    halt: Halt | None = None  # of one that is paused or pruned

    @property
    def where(self) -> str:
        """The nodes of Slurm on which its owner trains it."""
        nodes = self.said.get("nodes", []) if "node" in self.said else []
        return ",".join(map(str, nodes)) or str(self.said.get("node", ""))


def state(store: Store, trial_id: str, halt: Halt | None = None) -> TrialState:
    """The state of a trial by its record, its owner, its halt if it has one, and its checkpoint, in this order."""
    try:
        record = store.record(trial_id)
    except CorruptRecord as error:
        return TrialState("missing", f"{error}; the trial runs again with the next run")
    except OtherSchema as error:
        return TrialState("missing", str(error))
    if record is not None and record["status"] == "done":
        return TrialState("done", "", record)
    if (shown := store.owner(trial_id)) is not None:
        step = f"step {shown['step']} of {shown['steps']}, " if {"step", "steps"} <= shown.keys() else ""
        return TrialState("running", f"{step}process {shown.get('pid')} on {shown.get('host')}", None, shown)
    if halt is not None and not (record is not None and is_final(record)):  # a failure after it does not concern it
        return TrialState(halt.status, halt.why, halt=halt)
    if record is not None:
        return TrialState("failed", str(record["reason"]), record)
    return TrialState("missing", _progress(store, trial_id))


def _progress(store: Store, trial_id: str) -> str:
    """The progress of a trial that was stopped or killed, in words; empty if it has saved no step."""
    problems, last = "", store.checkpoint(trial_id)
    for path in (last, checkpoint.before(last)):
        try:
            return f"{problems}stopped, its last checkpoint is of step {checkpoint.read_progress(path)['step']}"
        except FileNotFoundError:
            continue
        except checkpoint.CorruptCheckpoint as error:
            problems += f"store: {path} is corrupt: {error}; the next run sets it aside; "
    return problems.removesuffix("; ")
