"""The work of a job that trains: a pack of trials, and what becomes of the job."""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments import files
from experiments.design import archive
from experiments.design.ablation import GridTrial
from experiments.machine.environment import ROOT, environment
from experiments.results import checkpoint
from experiments.results.store import Store
from experiments.running.failures import NODE_LOST
from experiments.running.local import STOP_SIGNALS, LocalRun
from experiments.running.opener import WorkerSpec
from experiments.running.pool import Pool, Summary
from experiments.running.queue import pending
from experiments.running.rendezvous import Rendezvous
from experiments.running.task import follow_groups
from slurm import ledger
from slurm.attempts import Attempts, PackReporter
from slurm.cluster import ClusterSpec
from slurm.cluster_file import stored_cluster
from slurm.leaving import requeue, stop_array
from slurm.needs import Needs
from slurm.ranks import Rank

SWEEP_S = 60.0  # Slurm looks at time limits twice a minute, so its warning may come this much before its hour
WARNINGS = {signal.SIGUSR1, signal.SIGUSR2}  # that the job's time is over, or another one's has come
MARGIN_S = 8.0  # before the end: a step that lasts longer than the warning must not take the job with it
LAST_WAIT_S = 600.0  # longer than any time that Slurm leaves between its TERM and its KILL
STARTED = time.monotonic()


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

    def follow(self, rank: Rank) -> int:
        """Train what the first task of this job leads; returns the exit code."""
        for number in (*STOP_SIGNALS, signal.SIGCONT):
            signal.signal(number, signal.SIG_IGN)  # the first task saves and decides
        places = self.store.root, self.cache
        cpus, cache = self._cores(rank), self._compile_cache
        spec = WorkerSpec("", cpus, *places, self._about, ROOT, time.monotonic(), rank.device, cache)
        place = rank.rendezvous(self.array.folder, self.needs.tasks)
        follow_groups(replace(spec, num_here=place.num_here), rank.index, place)
        return 0

    @cached_property
    def rendezvous(self) -> Rendezvous | None:
        """Where the tasks of this job meet; None: it is of one task."""
        if self.needs.nodes == 1:
            return None
        return Rank.of_this_job().rendezvous(self.array.folder, self.needs.tasks)

    def _cores(self, rank: Rank) -> tuple[int, ...]:
        tasks = self.needs.tasks
        return cores(self.needs.cpus // tasks, rank.local, tasks)

    @property
    def _compile_cache(self) -> Path | None:
        return Path(self.cluster.compile_cache) if self.cluster.compile_cache else None

    @property
    def _about(self) -> dict[str, Any]:
        return {**environment(), **self.commit, "snapshot": self.snapshot.name}

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
        rank = Rank.of_this_job()
        # With one GPU a worker takes what Slurm shows to the job; of several each worker is shown one.
        devices = tuple(f"auto:{i}" for i in range(needs.gpus)) if needs.gpus > 1 else ()
        if self.rendezvous:
            devices = (rank.device,) if rank.device else ()
        # The other causes end the whole job, so that attempts.py counts them, over the starts of the pack.
        retries = {cause: cluster.tries(cause) for cause in ("killed", "out_of_memory", "error")}

        def note(number: int) -> None:
            if number in WARNINGS:
                # On disk at once: Slurm may kill this process before its trials have saved, and the next start must
                # not take that for the death of a node.
                self.attempts.end("timed_out" if self._is_time_over() else "preempted")
                patience = threading.Timer(max(1.0, cluster.signal_delay_s - MARGIN_S), requeue)
                patience.daemon = True
                patience.start()

        return Pool(
            *(needs.jobs, devices, self._cores(rank), self._compile_cache, retries),
            environment=self._about,
            is_wanted=self._is_wanted,
            on_signal=note,
            rendezvous=self.rendezvous,
        )

    def _is_wanted(self, trial_id: str) -> bool:
        return not ledger.is_cancelled(self.array.folder, trial_id)

    def end(self, summary: Summary) -> int:
        """Requeue the job, let Slurm end it, or return its exit code."""
        if self.rendezvous:
            try:
                self.rendezvous.close()
            except OSError as error:  # with another code than 0 the end of this task ends the others
                print(f"mixlab: the other tasks cannot be told that all is over: {error}", flush=True)
                return self._code(summary) or 1
        return self._code(summary)

    def _code(self, summary: Summary) -> int:
        if summary.error and summary.error.cause == "import_error":
            return stop_array(self.array, summary.error)
        if summary.error:
            print(f"mixlab: {summary.error.reason}", flush=True)
            # A disk may have room again by the next start. A full one cannot note how a start has ended, so the starts
            # without a noted end are what is counted.
            full = summary.error.cause == "disk_full"
            if summary.error.cause == NODE_LOST or (
                full and self.attempts.unnamed() <= self.cluster.tries("disk_full")
            ):
                return requeue()
            return 1
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
    needs = Needs(**work["needs"])
    trials = tuple(_on_devices(archive.from_tree(tree), needs.trial_devices) for tree in work["trials"])
    places = {name: Path(work[name]) for name in ("snapshot", "cache")}
    return Work(
        array,
        index,
        cluster,
        needs,
        store=Store(Path(work["store"])),
        commit=work["commit"],
        trials=trials,
        **places,
    )


def _on_devices(planned: GridTrial, number: int | None) -> GridTrial:
    """The trial on so many devices; None: on those that it says."""
    if number is None:
        return planned
    trial = planned.trial
    return replace(planned, trial=replace(trial, run=replace(trial.run, devices=number)))


def write_work(array: ledger.Array, index: int, trials: tuple[dict[str, Any], ...], about: dict[str, Any]) -> None:
    """The file of a pack: see Work."""
    tree = {**about, "trials": trials}
    files.replace(array.pack_file(index), json.dumps(tree).encode(), durable=False)


def cores(number: int, place: int = 0, tasks: int = 1) -> tuple[int, ...]:
    """The cores of a task. Where Slurm does not bind tasks, each takes as many as it asked for, another one others.

    Args: place: of the task among those of its job on its node.    tasks: their number.
    """
    ours = sorted(os.sched_getaffinity(0))
    first = (int(os.environ.get("SLURM_JOB_ID", "0")) * tasks + place) * number % len(ours)
    return tuple((ours[first:] + ours[:first])[:number])
