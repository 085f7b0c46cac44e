"""Callables of Slurm jobs: a pack of trials, an ablation's report. Their pickles hold a path and no more."""

import json
import subprocess
import sys
import time
from pathlib import Path

from submitit.helpers import DelayedSubmission

from backends.errors import MixlabError, show_chain
from experiments.design import archive
from experiments.files import StoreError
from experiments.running.failures import Failure, failure
from experiments.running.pool import Summary
from slurm import client, snapshot
from slurm.leaving import stop_array
from slurm.ranks import Rank
from slurm.work import array_of, read_work

FIRST_S = 10.0  # for the first task to stop an array, which the end of another task would end


class Job:
    """A callable for submitit: the path of a file that says what to do."""

    # A path alone. submitit calls the object as it was pickled at submission, also after a requeue or on another node;
    # all that may have changed since is read from the store.
    def __init__(self, path: str):
        self.path = path

    def __call__(self) -> None:
        raise NotImplementedError

    def checkpoint(self) -> DelayedSubmission:
        """Answer a signal that comes before our handlers are set: nothing has begun, so the same job begins again."""
        client.leave_to_caller()
        return DelayedSubmission(self)


class PackJob(Job):
    """A job that trains a pack."""

    def __call__(self) -> None:
        client.private()
        code = run_pack(Path(self.path))
        sys.stdout.flush()
        if code:  # to Slurm, a job that returns is COMPLETED, whatever has become of its trials
            sys.exit(code)


class ReportJob(Job):
    """A job that writes an ablation's report, from what the store holds."""

    def __call__(self) -> None:
        client.private()
        work = json.loads(Path(self.path).read_text())
        snapshot.check(Path(work["snapshot"]))
        resolved = str(Path(self.path).with_name(archive.FILE))
        # The user's own command: what a job writes and what a terminal writes cannot come apart.
        words = ["report", resolved, "--store", work["store"], "--out", work["out"]]
        subprocess.run([sys.executable, "-m", "mixlab", *words], check=True)


def run_pack(path: Path) -> int:
    """Train the pack of a file, or what is left of it; returns the exit code.

    Where the job has several tasks, the first one does so, and the others follow it.
    """
    array, index = array_of(path)
    rank = Rank.of_this_job()
    try:
        work = read_work(path, array, index)
        snapshot.check(work.snapshot)
    except MixlabError as error:  # of the code or of the pack's file, which the array's other jobs would meet too
        show_chain(error)
        if rank.index:
            print(f"mixlab: rank {rank.index} on {rank.node}: {error}", flush=True)
            time.sleep(FIRST_S)
            return 1
        return stop_array(array, Failure("import_error", str(error)))
    if rank.index:
        return work.follow(rank)
    # Whoever submitted it died before noting that Slurm had it. The next submission sends these trials in other jobs.
    if array.state in ("intended", "void"):
        print("mixlab: not begun: its submission was not completed", flush=True)
        return 1
    if stopped := array.stopped():
        print(f"mixlab: not begun: another job of the array has stopped it: {stopped['reason']}", flush=True)
        return 1
    try:
        return work.run()
    except StoreError as error:  # of what this process writes itself; a trial's own are its worker's
        return work.end(Summary(error=failure(error)))
