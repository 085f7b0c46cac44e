"""What is known of trials that were sent to Slurm: the store's word first, then the queue's, then the accounts'.

A trial is lost only if Slurm has answered and no longer has its job. An unknown state never means dead.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from backends.errors import MixlabError
from experiments.failures import CAUSES
from experiments.states import TrialState, state
from experiments.store import Store
from slurm import client, ledger
from slurm.client import QueuedJob
from slurm.ledger import Array, Place

LOG_TAIL = 4000  # bytes of a job's standard error that are looked through
# Slurm's last words, and the cause that each stands for.
WORDS = {
    "OUT_OF_MEMORY": "out_of_memory",
    "TIMEOUT": "timed_out",
    "DEADLINE": "timed_out",
    "PREEMPTED": "preempted",
    "NODE_FAIL": "node_lost",
    "BOOT_FAIL": "node_lost",
    "CANCELLED": "cancelled",
}
NOT_LAST = ("RUNNING", "PENDING", "COMPLETING", "REQUEUED")  # accounts lag behind the queue
OUT_OF_MEMORY = ("oom-kill", "oom_kill", "exceeded memory limit", "Out Of Memory")


@dataclass(frozen=True)
class Overview:
    """All that is known of some trials."""

    states: Mapping[str, TrialState]
    silence: str | None  # why Slurm's word is missing
    live: frozenset[str]  # ids of trials that a job of the queue holds


def overview(store: Store, ids: Iterable[str]) -> Overview:
    """The state of each trial, with what Slurm adds to it."""
    wanted, there = list(ids), set(store.trial_ids())
    nothing = TrialState("missing")
    own = {key: replace(state(store, key), record=None) if key in there else nothing for key in wanted}
    found = list(ledger.all_arrays(store))
    places, silence, jobs = ledger.places(found), None, {}
    try:
        jobs = queued(found)
    except MixlabError as error:
        silence = str(error)
    gone = [place for trial_id in wanted if own[trial_id].status == "missing" and (place := places.get(trial_id))]
    tasks = {place.task for place in gone if place.task and place.task not in jobs} if silence is None else set()
    words = client.ended(sorted(tasks)) if tasks else {}
    states = {
        trial_id: _with_job(own[trial_id], trial_id, places.get(trial_id), jobs, words, silence) for trial_id in wanted
    }
    held = {trial_id for trial_id, place in places.items() if place.task in jobs}
    return Overview(states, silence, frozenset(held))


def queued(arrays: list[Array]) -> dict[str, QueuedJob]:
    """The jobs of these arrays that Slurm has, by their number; asked by names, which no other job ever has.

    Raises: SlurmSilent.   SlurmError.
    """
    names = [array.name for array in arrays if array.state in ledger.OPEN]
    return {job.id: job for job in client.queue(names)} if names else {}


def _with_job(
    own: TrialState,
    trial_id: str,
    place: Place | None,
    jobs: Mapping[str, QueuedJob],
    words: Mapping[str, tuple[str, str]],
    silence: str | None,
) -> TrialState:
    if place is None or own.status == "done":
        return own
    task = str(own.said.get("job") or place.task or "")
    job = jobs.get(task)
    known = replace(own, job=task, node=str(own.said.get("node", "")), left=job.left if job else "")
    if own.status == "running":
        return replace(known, why="" if own.said.get("job") else own.why)
    if own.status == "failed":
        return known
    if ledger.is_cancelled(place.array.folder, trial_id):
        return replace(known, status="cancelled", why=own.why)
    if silence is not None and place.array.state in ledger.OPEN:
        return replace(known, status="unknown", why="submitted; Slurm does not answer")
    if job is not None and place.array.state != "released":
        return replace(known, why="its submission was not completed; submit again")
    if job is not None:
        return replace(known, status="queued", node=job.node, why=_why_it_waits(job, own))
    if place.array.state == "intended":
        return replace(known, why="its submission was not completed; submit again")
    return replace(known, status="lost", why=_why_it_is_lost(place, words))


def _why_it_waits(job: QueuedJob, own: TrialState) -> str:
    if job.state != "PENDING":
        return own.why or "waits for the trials before it in its job"
    return "; ".join(filter(None, (job.reason, own.why)))


def _why_it_is_lost(place: Place, words: Mapping[str, tuple[str, str]]) -> str:
    """One sentence: what ended the job, as far as anything says so."""
    if stopped := place.array.stopped():
        return f"its array was stopped: {stopped['reason']}"
    name, word = words.get(str(place.task), ("", ""))
    if name != place.array.name or word.startswith(NOT_LAST):  # ids are used again: another job's word is not ours
        word = ""
    cause = next((cause for begin, cause in WORDS.items() if word.startswith(begin)), None)
    said = _last_error(place)
    if said and any(sign in said for sign in OUT_OF_MEMORY):
        cause = "out_of_memory"
    if cause:
        return f"{cause}: {CAUSES[cause]}" + (f" (Slurm says {word})" if word else "")
    ending = f"Slurm says {word}" if word else "Slurm has no word of it"
    return f"its job ended without a result; {ending}" + (f"; its last line: {said}" if said else "")


def _last_error(place: Place) -> str:
    """The last line of a job's standard error that says something."""
    for path in reversed(place.array.log_files(place.pack)):
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - LOG_TAIL))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            continue
        told = [line.strip() for line in lines if "error" in line.lower() or "mixlab:" in line]
        if signs := [line for line in told if any(sign in line for sign in OUT_OF_MEMORY)]:
            return signs[-1][:200]
        if told:
            return told[-1][:200]
    return ""


def hints(name: str, states: Mapping[str, TrialState], silence: str | None) -> list[str]:
    """What needs a hand: a sentence each, with the command."""
    counts = Counter(now.status for now in states.values())
    found = [silence] if silence else []
    if counts["failed"]:
        found.append(f"{counts['failed']} failed: mixlab logs {name} --failed; then mixlab retry {name} --failed")
    if counts["lost"] + counts["cancelled"]:
        found.append(f"{counts['lost'] + counts['cancelled']} lost or cancelled: mixlab retry {name} --lost")
    stuck = sorted({now.why for now in states.values() if now.status == "queued" and _is_stuck(now.why)})
    return found + [f"jobs wait for what will not come by itself: {why}" for why in stuck]


def _is_stuck(why: str) -> bool:
    return why.startswith(("JobHeld", "DependencyNeverSatisfied", "Bad", "Invalid", "PartitionTimeLimit"))
