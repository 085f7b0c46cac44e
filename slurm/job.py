"""Callables of Slurm jobs: a pack of trials, an ablation's report. Their pickles hold a path and no more."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from submitit.helpers import DelayedSubmission

from backends.errors import MixlabError, show_chain
from experiments.design import archive
from experiments.design.ablation import GridTrial
from experiments.files import StoreError, replace
from experiments.machine.environment import environment, slurm_job
from experiments.results import checkpoint
from experiments.results.store import Store
from experiments.running.failures import Failure, failure
from experiments.running.local import LocalRun, pending
from experiments.running.pool import Pool, Summary
from slurm import client, ledger, snapshot
from slurm.attempts import Attempts, PackReporter
from slurm.cluster import ClusterSpec
from slurm.cluster_file import stored_cluster
from slurm.needs import Needs

REQUEUES, REQUEUE_WAIT_S = 5, 2.0  # tries to reach the controller before a job gives up
SWEEP_S = 60.0  # Slurm looks at time limits twice a minute, so its warning may come this much before its hour
WARNINGS = {signal.SIGUSR1, signal.SIGUSR2}  # that the job's time is over, or another one's has come
MARGIN_S = 8.0  # before the end: a step that lasts longer than the warning must not take the job with it
LAST_WAIT_S = 600.0  # longer than any time that Slurm leaves between its TERM and its KILL
STARTED = time.monotonic()


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
    """Train the pack of a file, or what is left of it; returns the exit code."""
    array, index = array_of(path)
    try:
        work = read_work(path, array, index)
        snapshot.check(work.snapshot)
    except MixlabError as error:  # of the code or of the pack's file, which the array's other jobs would meet too
        show_chain(error)
        return stop_array(array, Failure("import_error", str(error)))
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


def stop_array(array: ledger.Array, failure: Failure) -> int:
    """Stop an array whose every job would fail as this one does, and cancel those that wait. Returns the exit code."""
    print(f"mixlab: {failure.reason}; the array is stopped", flush=True)
    with contextlib.suppress(OSError):  # for the jobs that have left the queue and look here before they begin
        replace(array.stop_file, json.dumps({"cause": failure.cause, "reason": failure.reason}).encode())
    if array.job:
        with contextlib.suppress(MixlabError):
            client.cancel("--state=PENDING", array.job)
    return 1


@dataclass(frozen=True)
class Work:
    """A pack, as its file describes it."""

    array: ledger.Array
    index: int
    cluster: ClusterSpec
    needs: Needs
    snapshot: Path
    store: Store
    cache: Path
    commit: dict[str, Any]
    trials: tuple[GridTrial, ...]

    def run(self) -> int:
        """Train what is left; returns the exit code."""
        # What this pack recorded as failed stays so over its requeues. An older failure is one that somebody has sent
        # to be tried again.
        left = [one for one in pending(self.trials, self.store, print) if not self._has_failed_here(one.trial.id)]
        todo = [one for one in left if not self._waits(one)]
        console = Console(file=sys.stdout, width=200)
        reporter = PackReporter(console, len(todo), self.attempts)
        run = LocalRun(todo, self.store, self.cache, self._pool(), reporter)
        for planned in todo:
            step = checkpoint.newest_step(self.store.checkpoint(planned.trial.id))
            if idle := self.attempts.given_up(planned.trial.id, step, self.cluster):
                run.give_up(planned, idle)
        return self.end(run.run()) or int(len(todo) < len(left))

    def _waits(self, planned: GridTrial) -> bool:
        """Tell whether a trial begins from one that has not ended: it was lost, and both are to be sent again."""
        start = planned.trial.start_id
        waits = start is not None and self.store.recorded_status(start) is None
        if waits:
            told = f"it begins from the weights of trial {start}, which has not ended; submit both again"
            print(f"mixlab: {planned.trial.id} not begun: {told}", flush=True)
        return waits

    @cached_property
    def attempts(self) -> Attempts:
        return Attempts(self.array.folder / "attempts" / f"{self.array.number}-{self.index:05d}.json")

    def _has_failed_here(self, trial_id: str) -> bool:
        """Tell whether this pack has recorded a trial as failed since its first start."""
        return self.store.sound_record(trial_id) is not None and self.store.recorded_at(trial_id) > self.attempts.begun

    def _pool(self) -> Pool:
        cluster, needs = self.cluster, self.needs
        # With one GPU a worker takes what Slurm shows to the job; of several each worker is shown one.
        devices = tuple(f"auto:{i}" for i in range(needs.gpus)) if needs.gpus > 1 else ()
        # The other causes end the whole job, so that attempts.py counts them, over the starts of the pack.
        retries = {cause: cluster.tries(cause) for cause in ("killed", "out_of_memory", "error")}
        cache = Path(cluster.compile_cache) if cluster.compile_cache else None
        about = {**environment(), **self.commit, "snapshot": self.snapshot.name}

        def note(number: int) -> None:
            if number in WARNINGS:
                # On disk at once: Slurm may kill this process before its trials have saved, and the next start must
                # not take that for the death of a node.
                self.attempts.end("timed_out" if self._is_time_over() else "preempted")
                patience = threading.Timer(max(1.0, cluster.signal_delay_s - MARGIN_S), requeue)
                patience.daemon = True
                patience.start()

        return Pool(
            *(needs.jobs, devices, cores(needs.cpus), cache, retries),
            environment=about,
            is_wanted=self._is_wanted,
            on_signal=note,
        )

    def _is_wanted(self, trial_id: str) -> bool:
        return not ledger.is_cancelled(self.array.folder, trial_id)

    def end(self, summary: Summary) -> int:
        """Requeue the job, let Slurm end it, or return its exit code."""
        if summary.error and summary.error.cause == "import_error":
            return stop_array(self.array, summary.error)
        if summary.error:
            print(f"mixlab: {summary.error.reason}", flush=True)
            # A disk may have room again by the next start. A full one cannot note how a start has ended, so the starts
            # without a noted end are what is counted.
            full = summary.error.cause == "disk_full"
            return requeue() if full and self.attempts.unnamed() <= self.cluster.tries("disk_full") else 1
        if WARNINGS & summary.signals and summary.left:
            return requeue()
        if signal.SIGTERM in summary.signals and summary.left:
            print(
                "mixlab: all is saved; waiting for Slurm to end this job, or to put it back into the queue", flush=True
            )
            time.sleep(LAST_WAIT_S)  # a job that ends by itself is not put back where it gives way to another
        return 1 if summary.failed or summary.left else 0

    def _is_time_over(self) -> bool:
        return time.monotonic() - STARTED > 60 * self.needs.time - self.cluster.signal_delay_s - SWEEP_S


def array_of(path: Path) -> tuple[ledger.Array, int]:
    """The array that a pack's file belongs to, and the place in it, from the file's name."""
    number, _, index = path.stem.partition("-")
    array = next(array for array in ledger.arrays(path.parent.parent) if array.number == int(number))
    return array, int(index)


def read_work(path: Path, array: ledger.Array, index: int) -> Work:
    """The pack of a file that submission.py wrote.

    Raises: MixlabError: it does not fit this code.
    """
    work = json.loads(path.read_text())
    folder = array.folder
    cluster = stored_cluster(json.loads((folder / "cluster.json").read_text()), str(folder / "cluster.json"))
    trials = tuple(map(archive.from_tree, work["trials"]))
    places = {name: Path(work[name]) for name in ("snapshot", "cache")}
    return Work(
        array,
        index,
        cluster,
        Needs(**work["needs"]),
        store=Store(Path(work["store"])),
        commit=work["commit"],
        trials=trials,
        **places,
    )


def write_work(array: ledger.Array, index: int, trials: tuple[dict[str, Any], ...], about: dict[str, Any]) -> None:
    """The file of a pack: see Work."""
    tree = {**about, "trials": trials}
    replace(array.pack_file(index), json.dumps(tree).encode(), durable=False)


def cores(number: int) -> tuple[int, ...]:
    """The job's cores. Where Slurm does not bind jobs, each takes as many as it asked for, another job others."""
    ours = sorted(os.sched_getaffinity(0))
    first = int(os.environ.get("SLURM_JOB_ID", "0")) * number % len(ours)
    return tuple((ours[first:] + ours[:first])[:number])


def requeue() -> int:
    """Put this job back into the queue; Slurm ends it then. Returns the exit code of one that could not be."""
    job = slurm_job()["job"]
    for _ in range(REQUEUES):
        try:
            print(f"mixlab: job {job} goes back into the queue", flush=True)
            client.requeue(job)
        except MixlabError as error:
            show_chain(error)
            print(f"mixlab: {error}", flush=True)  # a controller that restarts answers again within seconds
            time.sleep(REQUEUE_WAIT_S)
        else:
            os._exit(0)  # a return would have submitit write a result, by which the job would count as ended
    return 1
