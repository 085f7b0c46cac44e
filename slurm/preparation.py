"""A job that prepares data: `mixlab data prepare SOURCE OUT`, with the code as it was when it was sent."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments.files import write_json
from experiments.results.store import Store
from slurm import client, ledger, options, snapshot
from slurm.batch import Ask, Batch, check_path
from slurm.cluster import ClusterSpec
from slurm.job import Job
from slurm.request import seen

NAME = ".prepare"  # in place of an ablation's, in the store


class PrepareJob(Job):
    """A job that prepares data. Where it gives way or its time is over, it goes on from there at its next start."""

    def __call__(self) -> None:
        client.private()
        work = json.loads(Path(self.path).read_text())
        snapshot.check(Path(work["snapshot"]))
        # The user's own command: what a job does and what a terminal does cannot come apart.
        code = subprocess.run([sys.executable, "-m", "mixlab", *work["words"]]).returncode
        if code:
            sys.exit(1)


def send(cluster: ClusterSpec, store: Store, words: Sequence[str], folders: Sequence[Path]) -> tuple[str, Path]:
    """Hand the command to Slurm; returns the number of the job and the folder of its log.

    Args:   words: of the command, but for --jobs, which is what the job gets.    folders: what it must see.
    Raises: MixlabError: Slurm refuses or does not answer, or the code is too large.
    """
    client.begin()
    check_path(store.root)
    store.check_writable()
    code = snapshot.take(store.root.absolute() / "snapshots", cluster.snapshot_limit_mb)
    folder = ledger.new_submission(store, NAME).absolute()
    ledger.make_private(folder)
    ask = ask_of(cluster, code, [store.root, *folders])
    command = [*words, "--jobs", str(ask.needs.cpus)]
    write_json(folder / "prepare.json", {"snapshot": str(code), "words": command})
    batch = Batch(folder / "slurm", f"mixlab-prepare-{folder.name}", ask)
    return batch.submit([PrepareJob(str(folder / "prepare.json"))], hold=False), folder / "slurm"


def ask_of(cluster: ClusterSpec, code: Path, folders: Sequence[Path]) -> Ask:
    """What the job asks for: the cores, memory and time that the cluster file gives to all trials, and no GPU."""
    needs = replace(cluster.common, gpus=0, gpu_type=None, nodes=1)
    environment = cluster.environment(next(iter(cluster.environments), ""))
    cluster = replace(cluster, sbatch=options.without_gpus(cluster.sbatch))
    return Ask(cluster, needs, environment, code, seen(cluster, *folders))
