"""Jobs that follow the arrays of a submission: one writes the report, one sends what the arrays' results decide.

Where fields are tuned, the trials of the table are not known before the tuning trials have ended. A job that depends on
them (next_round.py) submits them then, as `mixlab submit` would. What a submission has of it is `next.json`: `job` is
null until Slurm has it; `ended` says that it has begun, and counts no more. Whoever submits again looks whether such a
job is in the queue, and sends another where none is and trials that tune are on their way.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from backends.errors import MixlabError
from experiments import clock
from experiments.design import archive
from experiments.files import write_json
from experiments.results.store import Store
from slurm import client, ledger, snapshot
from slurm.batch import Ask, Batch
from slurm.cluster import ClusterSpec
from slurm.cluster_file import stored_cluster
from slurm.job import Job, ReportJob
from slurm.leaving import requeue
from slurm.request import seen
from slurm.status import queued

REPORT, NEXT = "report.json", "next.json"
LATER, REFUSED = "later", "refused"  # in place of a job's number: another submission has it; Slurm did not take it


class NextJob(Job):
    """A job that submits what the results of those before it have decided; see next_round.py."""

    def __call__(self) -> None:
        client.private()
        work = json.loads(Path(self.path).read_text())
        snapshot.check(Path(work["snapshot"]))
        # A process of its own: it forgets the job that it runs in, which this one must know to go back into the queue.
        code = subprocess.run([sys.executable, "-m", "slurm.next_round", self.path]).returncode
        if code in (client.GO_BACK, -signal.SIGKILL):
            code = requeue()
        if code:
            sys.exit(1)


def prepare(folder: Path, about: dict[str, Any], waiting: int) -> None:
    """Write what the jobs of a submission need to know.

    Args: about: of submission.py.    waiting: trials of the table that are not known; then the report is left to the
          submission that has them.
    """
    out = str(folder.parent.parent.absolute() / "report")
    write_json(folder / REPORT, {**about, "out": out, "job": LATER if waiting else None})
    if waiting:
        write_json(folder / NEXT, {**about, "job": None})


def follow(folder: Path, warn: Callable[[str], None]) -> None:
    """Send the jobs that follow the arrays of a submission, each once. Raises: SlurmSilent."""
    name = folder.parent.parent.name
    for send, instead in (
        (_send_report, f"no job will write the report: mixlab report {name}"),
        (_send_next, f"no job will send the trials of the table: mixlab retry {name}, when those that tune have ended"),
    ):
        try:
            send(folder)
        except client.SlurmError as error:
            warn(f"{error}; {instead}")


def _send_report(folder: Path) -> None:
    """Raises: SlurmSilent.   SlurmError."""
    after = [str(array.job) for array in ledger.arrays(folder) if array.state == "released"]
    if after and _cluster(folder).report:
        _send(folder, REPORT, ledger.report_name(folder), after)


def _send_next(folder: Path) -> None:
    """Raises: SlurmSilent.   SlurmError."""
    if (ledger.read(folder / NEXT) or {"job": LATER})["job"] is not None:
        return
    if _cluster(folder).environment("").container is not None:
        _note(folder, NEXT, REFUSED)
        raise client.SlurmError("slurm: sbatch is not in the container of the cluster file")
    tuning = {one.trial.id for one in archive.read(folder / archive.FILE)[1] if one.tunes}
    _send(folder, NEXT, ledger.next_name(folder), jobs_of(Store(folder.parents[3]), tuning))


def jobs_of(store: Store, trial_ids: Collection[str]) -> list[str]:
    """Numbers of the arrays, of any submission, that have these trials and that Slurm has."""
    places = ledger.places(list(ledger.all_arrays(store)))
    arrays = list(dict.fromkeys(places[key].array for key in sorted(trial_ids) if key in places))
    names = {job.name for job in queued(arrays).values()}
    return [str(array.job) for array in arrays if array.name in names and array.job]


def _send(folder: Path, file: str, name: str, after: list[str]) -> None:
    """Raises: SlurmSilent.   SlurmError."""
    work = ledger.read(folder / file) or {}
    if work.get("job") is not None:
        return
    client.cancel(f"--name={name}")  # of a submission that was killed before it could note the number
    cluster = _cluster(folder)
    ask = Ask.small(cluster, Path(work["snapshot"]), seen(cluster, Path(work["store"]), Path(work["cache"])))
    if file == NEXT:  # it submits by the Python that has submitted, as what the file says of all backends
        ask = replace(ask, environment=cluster.environment(""))
    job = (NextJob if file == NEXT else ReportJob)(str((folder / file).absolute()))
    try:
        number = Batch(folder / "slurm", name, ask).submit([job], hold=False, after=after)
    except client.SlurmError:
        _note(folder, file, REFUSED)
        raise
    _note(folder, file, number)


def _note(folder: Path, file: str, job: str) -> None:
    write_json(folder / file, {**(ledger.read(folder / file) or {}), "job": job})


def _cluster(folder: Path) -> ClusterSpec:
    return stored_cluster(ledger.read(folder / ledger.CLUSTER) or {}, str(folder / ledger.CLUSTER))


def next_jobs(store: Store, ablation: str) -> list[str]:
    """Numbers of the jobs in the queue that go on with an ablation's table later. Raises: SlurmSilent.   SlurmError."""
    return _in_queue([folder for folder in ledger.submissions(store, ablation) if is_sent(folder)])


def is_sent(folder: Path, is_over: bool = False) -> bool:
    """Tell whether a submission has sent the job that goes on with the table, and that has not begun.

    Args: is_over: whether one counts too that has begun lately, and may still run.
    """
    work = ledger.read(folder / NEXT) or {}
    if work.get("job") in (None, LATER, REFUSED):
        return False
    age_s = clock.now(folder.parents[3]) - (folder / NEXT).stat().st_mtime
    return not work.get("ended") or (is_over and age_s < ledger.LATE_S)


def cancel_next(store: Store, ablation: str) -> list[str]:
    """End the jobs that would go on with an ablation's table; returns their numbers. Raises: SlurmSilent."""
    jobs = _in_queue(_sent(store, ablation))
    if jobs:
        client.cancel(*jobs)
    return jobs


def who_goes_on(store: Store, ablation: str) -> str:
    """The end of a sentence on trials that wait for a choice: which job sends them; empty: none does."""
    try:
        jobs = _in_queue(_sent(store, ablation))
    except MixlabError as error:
        return f"it is not known which job sends them: {error}"
    return f"job {jobs[0]} sends them then" if jobs else ""


def _sent(store: Store, ablation: str) -> list[Path]:
    return [folder for folder in ledger.submissions(store, ablation) if is_sent(folder, is_over=True)]


def _in_queue(folders: Collection[Path]) -> list[str]:
    """Numbers of the jobs of submissions, by their names. Raises: SlurmSilent.   SlurmError."""
    return [job.id for job in client.queue(map(ledger.next_name, folders))] if folders else []
