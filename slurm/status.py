"""State of trials that were sent to Slurm: the store's word counts first, then the queue's, then the accounts'.

A trial is lost only if Slurm has answered and no longer has its job. An unknown state never means dead.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from backends.errors import MixlabError, show_chain
from experiments.results import curves
from experiments.results.states import Halt, TrialState, state
from experiments.results.store import Store
from experiments.running.failures import CAUSES
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
GOING_ON = ("running", "queued", "unknown")
NOT_LAST = ("RUNNING", "PENDING", "COMPLETING", "REQUEUED")  # accounts lag behind the queue
# Reasons to wait that end only when somebody does something.
STUCK = ("held", "launch failed", "JobHeld", "DependencyNeverSatisfied", "Bad", "Invalid", "PartitionTimeLimit")
NOT_COMPLETED = "its submission was not completed; submit again"
OUT_OF_MEMORY = ("oom-kill", "oom_kill", "exceeded memory limit", "Out Of Memory")


@dataclass(frozen=True)
class Overview:
    """The states of some trials, and what of them is on its way."""

    states: Mapping[str, TrialState]
    silence: str | None  # why Slurm's word is missing
    live: frozenset[str]  # ids of those that are on their way


def overview(store: Store, ids: Iterable[str], halts: Mapping[str, Halt] = MappingProxyType({})) -> Overview:
    """The state of each trial, with what Slurm adds to it. Slurm is asked first: what ends meanwhile is then done.

    Args: halts: of stages.halts.
    """
    wanted, sent = list(ids), list(ledger.all_arrays(store))
    places, silence, jobs = ledger.places(sent), None, {}
    try:
        jobs = queued(sent)
    except MixlabError as error:  # the store still says much, so this is no reason to print nothing
        show_chain(error)
        silence = str(error)
    there, nothing = set(store.trial_ids()), TrialState("missing")
    own = {key: _own_state(store, key, places.get(key), halts.get(key)) if key in there else nothing for key in wanted}
    gone = [place for key in wanted if _may_be_lost(own[key]) and (place := places.get(key))]
    # The accounts are slow, and lag behind the queue by seconds: they are asked only about jobs that it no longer has.
    tasks = {place.task for place in gone if place.task and place.task not in jobs} if silence is None else set()
    words = _last_words(tasks)
    states = {key: _with_job(own[key], key, places.get(key), jobs, words, silence) for key in wanted}
    live = {key for key, now in states.items() if _is_live(now, places.get(key), jobs, silence)}
    return Overview(states, silence, frozenset(live))


def _may_be_lost(own: TrialState) -> bool:
    return own.status == "missing" or (own.halt is not None and own.halt.goes_on)


def _last_words(tasks: Collection[str]) -> Mapping[str, tuple[str, str]] | str:
    """The last words of jobs that have ended, from Slurm's accounts; a sentence if they do not answer."""
    try:
        return client.ended(sorted(tasks)) if tasks else {}
    except MixlabError as error:
        show_chain(error)
        return str(error)


def _own_state(store: Store, trial_id: str, place: Place | None, halt: Halt | None) -> TrialState:
    """The state by the store alone; a trial that failed before it was last submitted is missing, to be tried again.

    One that has come as far as it was sent is paused, also where nobody knows what halving says of it.
    """
    sent = place.array.until.get(trial_id) if place else None
    if halt is None and sent is not None and curves.has_come_to(store, trial_id, sent):
        halt = Halt(sent)
    now = state(store, trial_id, halt)
    if now.status == "failed" and place and store.recorded_at(trial_id) < place.array.submitted:
        return TrialState("missing", f"failed before: {now.why}")
    return replace(now, record=None)


def _is_live(now: TrialState, place: Place | None, jobs: Mapping[str, QueuedJob], silence: str | None) -> bool:
    """Tell whether a trial is on its way: it waits in the queue, or runs, in a job that Slurm has or without Slurm."""
    if now.status == "running" and place and now.said.get("job") == place.task and silence is None:
        return place.task in jobs  # else its heartbeat is that of a node which is gone
    return now.status in GOING_ON


def queued(arrays: list[Array]) -> dict[str, QueuedJob]:
    """The jobs of these arrays that Slurm has, by their number; asked by names, which no other job ever has.

    Raises: SlurmSilent.   SlurmError.
    """
    names = [array.name for array in arrays if array.is_asked]
    return {job.id: job for job in client.queue(names)} if names else {}


def _with_job(
    own: TrialState,
    trial_id: str,
    place: Place | None,
    jobs: Mapping[str, QueuedJob],
    words: Mapping[str, tuple[str, str]] | str,
    silence: str | None,
) -> TrialState:
    """The state of a trial with its job. The order of the questions is the rule by which the state is found."""
    if place is None or own.status == "done" or (own.halt and _stays(own.halt, trial_id, place, jobs)):
        return own
    task = str(own.said.get("job") or place.task or "")
    job = jobs.get(task)
    sent = replace(own, job=task, node=own.where, left=job.left if job else "")
    if own.status == "running":
        return replace(sent, why="" if own.said.get("job") else own.why)
    if own.status == "failed":
        return sent
    # Before Slurm's word: the store's note holds even where Slurm was silent and the job is still in the queue.
    if ledger.is_cancelled(place.array.folder, trial_id):
        return replace(sent, status="cancelled", why=own.why)
    # Silence is no answer: to call such a trial lost would have it sent, and trained, twice.
    if silence is not None and place.array.is_asked:
        return replace(sent, status="unknown", why="submitted; Slurm does not answer")
    # A submitter that was killed leaves jobs that nobody has released; they would wait for a year.
    if job is not None and job.state == "PENDING" and place.array.state in ("intended", "held"):
        return replace(sent, status="queued", why=f"held: {NOT_COMPLETED}")
    if job is not None:  # in whatever state, also one that is not known here: a job in the queue is never lost
        return replace(sent, status="queued", node=job.node, why=_why_it_waits(job, own))
    if place.array.state == "intended":
        return replace(sent, why=NOT_COMPLETED)
    return replace(sent, status="lost", why=_why_it_is_lost(place, words))


def _stays(halt: Halt, trial_id: str, place: Place, jobs: Mapping[str, QueuedJob]) -> bool:
    """Tell whether a trial stays halted, whatever has become of its job: that was not to bring it further.

    One that was sent further is on its way while Slurm has its job; without it, it is lost if halving has it go on.
    """
    return place.sends_to(trial_id) <= halt.step or (place.task not in jobs and not halt.goes_on)


def _why_it_waits(job: QueuedJob, own: TrialState) -> str:
    if job.state != "PENDING":
        return own.why or "waits for the trials before it in its job"
    return "; ".join(filter(None, (job.reason, own.why)))


def _why_it_is_lost(place: Place, words: Mapping[str, tuple[str, str]] | str) -> str:
    """The sentence on what ended a job, as far as anything says so."""
    if stopped := place.array.stopped():
        return f"its array was stopped: {stopped['reason']}"
    name, word = ("", "") if isinstance(words, str) else words.get(str(place.task), ("", ""))
    if name != place.array.name or word.startswith(NOT_LAST):  # ids are used again: another job's word is not ours
        word = ""
    cause = next((cause for begin, cause in WORDS.items() if word.startswith(begin)), None)
    last_line = _last_error(place)
    # Slurm calls such a job FAILED or CANCELLED; without control groups its standard error alone names the memory.
    if last_line and any(sign in last_line for sign in OUT_OF_MEMORY):
        cause = "out_of_memory"
    if cause:
        return f"{cause}: {CAUSES[cause]}" + (f" (Slurm says {word})" if word else "")
    nothing = f"Slurm's accounts could not be read ({words})" if isinstance(words, str) else ""
    ending = f"Slurm says {word}" if word else nothing or "Slurm says nothing about it"
    if not any(path.exists() for path in place.array.log_files(place.pack)):
        return f"its job ended without a result; {ending}; it has no log: do nodes see the store? mixlab cluster check"
    return f"its job ended without a result; {ending}" + (f"; its last line: {last_line}" if last_line else "")


def _last_error(place: Place) -> str:
    """The last line of a job's logs that tells of an error; one on memory comes before others."""
    files = place.array.log_files(place.pack)
    for path in (*reversed(files[:2]), *files[2:]):
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


def hints(name: str, view: Overview, option: str = "") -> list[str]:
    """Sentences on what needs a hand, each with its command. Args: option: what the commands must say of the store."""
    counts = Counter(
        now.status for now in view.states.values() if now.job
    )  # only those of jobs: of others the local run says what to do
    sentences = [view.silence] if view.silence else []
    if counts["failed"]:
        logs, retry = f"mixlab logs {name} --failed{option}", f"mixlab retry {name} --failed{option}"
        sentences.append(f"{counts['failed']} failed: {logs}; then {retry}")
    if counts["lost"] + counts["cancelled"]:
        sentences.append(
            f"{counts['lost'] + counts['cancelled']} lost or cancelled: mixlab retry {name} --lost{option}"
        )
    stuck = sorted({now.why for now in view.states.values() if now.status == "queued" and now.why.startswith(STUCK)})
    return sentences + [f"jobs wait until somebody helps: {why}" for why in stuck]
