"""Slurm's commands, each with a limit on its answer; one that is silent is an error of its own."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backends.errors import MixlabError

UMASK = 0o007  # taken from the permissions of whatever is written
GO_BACK = 85  # exit code of a job that has no scontrol: whoever called it puts it back into the queue
ANSWER_S = 9.0  # a controller that is down lets squeue wait for 19 s; two questions must fit into 30 s
ELSEWHERE = "run this where jobs are submitted, or try the cluster of one machine: make slurm-up"
NAMES_A_CALL = 200  # job names in one question
# Variables that would change a new job, where a submission comes from inside another.
LEAKING = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_", "SUBMITIT_")
NO_ACCOUNTS = ("accounting storage is disabled", "sacct is not on PATH")
NO_CLUSTER = "Could not establish a configuration source"  # Slurm's programs are here, and no slurm.conf
SILENCE = ("contact slurm controller", "onnection refused", "imed out", "Zero Bytes were transmitted")


class SlurmError(MixlabError):
    """Slurm refused, in its own words."""


class SlurmSilent(MixlabError):
    """Slurm does not answer: nothing is known of its jobs."""


@dataclass(frozen=True)
class QueuedJob:
    """A job that Slurm has in its queue: waiting, running or ending."""

    id: str  # `123`, or `123_4` for a task of an array
    name: str
    state: str  # PENDING, RUNNING, COMPLETING, ...
    reason: str  # why it waits
    node: str
    left: str  # time until its limit, as squeue writes it


def private() -> None:
    """Make what this process writes private to its user and group."""
    os.umask(os.umask(0o077) | UMASK)


def begin() -> None:
    """Make what is written private, and forget the job that this process may run in, which a new job would inherit."""
    private()
    for name in set(os.environ) - set(_clean()):
        del os.environ[name]


def _clean() -> dict[str, str]:
    """The environment without what changes a job or a command's output: SQUEUE_STATES would hide jobs that wait."""
    return {name: value for name, value in os.environ.items() if name == "SLURM_CONF" or not name.startswith(LEAKING)}


def call(*words: str, limit_s: float = ANSWER_S) -> str:
    """The output of a command.

    Raises: SlurmError: it fails.    SlurmSilent: it has not ended in time, or reaches no controller.
    """
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=limit_s, stdin=subprocess.DEVNULL, env=_clean()
        )
    except FileNotFoundError as error:
        raise SlurmError(f"slurm: {words[0]} is not on PATH; {ELSEWHERE}") from error
    except subprocess.TimeoutExpired as error:
        raise SlurmSilent(f"slurm: {words[0]} did not answer in {limit_s:g} s") from error
    if done.returncode == 0:
        return done.stdout
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    text = lines[-1].strip() if lines else f"exit code {done.returncode}"
    raise refusal(words[0], done.stderr, text)


def refusal(command: str, printed: str, text: str) -> MixlabError:
    """The error for what a command has printed; `text` is the sentence in it."""
    if NO_CLUSTER in printed:
        return SlurmError(
            f"slurm: {command} finds no cluster: this machine has Slurm's programs and no slurm.conf; {ELSEWHERE}"
        )
    kind = SlurmSilent if any(word in printed for word in SILENCE) else SlurmError
    return kind(f"slurm: {command}: {text}")


def queue(names: Iterable[str]) -> list[QueuedJob]:
    """The jobs of these names that have not ended; a task of an array is a job.

    Raises: SlurmSilent.   SlurmError.
    """
    jobs, wanted = [], sorted(set(names))
    for part in (wanted[i : i + NAMES_A_CALL] for i in range(0, len(wanted), NAMES_A_CALL)):
        lines = call("squeue", "-h", "-a", "-r", f"--name={','.join(part)}", "-o", "%i|%j|%T|%r|%N|%L").splitlines()
        jobs += [_queued(line) for line in lines if line.strip()]
    return jobs


def _queued(line: str) -> QueuedJob:
    """Read a line of squeue. Raises: SlurmError: it has another form; to leave it out would count its job as lost."""
    words = line.split("|")
    if len(words) < 6 or not re.fullmatch(r"\d+(_\d+)?", words[0]) or not re.fullmatch(r"[A-Z_]+", words[2]):
        raise SlurmError(
            f"slurm: squeue: expected 'id|name|STATE|reason|node|time', got {line[:80]!r}; the state of these jobs "
            f"is not known"
        )
    return QueuedJob(words[0], words[1], words[2], "|".join(words[3:-2]), words[-2], words[-1])


def ended(ids: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Job names and final words of jobs that have ended, by id, where Slurm keeps accounts; {} where it does not.

    A job's last word is OUT_OF_MEMORY if any of its steps says so: the job itself only says FAILED.

    Raises: SlurmSilent.   SlurmError: what the accounts say is not known.
    """
    arrays = sorted({job.partition("_")[0] for job in ids})
    words: dict[str, tuple[str, str]] = {}
    try:
        lines = call("sacct", "-nP", "-o", "JobID,JobName,State", *(f"-j{job}" for job in arrays)).splitlines()
    except SlurmError as error:
        if any(word in str(error) for word in NO_ACCOUNTS):
            return {}
        raise
    for job, name, state in map(_accounted, filter(str.strip, lines)):
        whole, dot, _ = job.partition(".")
        if not dot:
            words[whole] = (name, state)
        elif state.startswith("OUT_OF_ME") and whole in words:
            words[whole] = (words[whole][0], "OUT_OF_MEMORY")
    return words


def _accounted(line: str) -> tuple[str, str, str]:
    """Read a line of sacct. Raises: SlurmError: it has another form."""
    words = line.split("|")
    if len(words) < 3 or not re.fullmatch(r"\d+\S*", words[0]):
        raise SlurmError(f"slurm: sacct: expected 'id|name|state', got {line[:80]!r}")
    return words[0], "|".join(words[1:-1]), words[-1]


def config() -> dict[str, str]:
    """Slurm's configuration, as `scontrol show config` prints it."""
    lines = call("scontrol", "show", "config").splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def qos_submit_limit(qos: str | None) -> int | None:
    """Jobs that a user may have in the queue by this QOS; None: no limit, or not known."""
    if qos is None:
        return None
    try:
        answer = call("sacctmgr", "-nP", "show", "qos", qos, "format=MaxSubmitPU,MaxSubmitPA,GrpSubmit").strip()
    except MixlabError:
        return None
    numbers = [int(word) for word in answer.replace("\n", "|").split("|") if word.isdigit()]
    return min(numbers, default=None)


def cancel(*targets: str) -> None:
    """End jobs, by id or as `--name=...`; one that has ended already is no error.

    Raises: SlurmSilent.   SlurmError.
    """
    call("scancel", "--quiet", *targets)


def own_jobs() -> int:
    """The number of this user's jobs in the queue; each task of an array counts."""
    return len(call("squeue", "-h", "-a", "-r", "-u", str(os.getuid()), "-o", "%i").split())


def release(job: str) -> None:
    """Let a job that was to begin later begin now."""
    call("scontrol", "update", f"JobId={job}", "StartTime=now")


def leave_to_caller() -> None:
    """End this process where there is no scontrol, as in a container: batch.py puts its job back into the queue."""
    if shutil.which("scontrol") is None:
        sys.stdout.flush()
        os._exit(GO_BACK)


def requeue(job: str) -> None:
    """Put this very job back into the queue."""
    leave_to_caller()
    call("scontrol", "requeue", job, limit_s=30.0)
