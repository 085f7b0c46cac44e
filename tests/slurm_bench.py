"""What the proofs on a real Slurm share: a cluster, a store, commands, and the look at the store afterwards."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from experiments.results import checkpoint
from experiments.results.store import Store
from slurm import ledger
from slurm.testbed.cluster import Cluster
from tests.conftest import Ended, base, command, environment, records, results, start, wait_until, write_yaml

# `make test-slurm-long` proves everything on both frameworks; else most is proved on the quick backend of conftest.py.
LONG = os.environ.get("MIXLAB_SLURM") == "long"
BACKENDS = ("torch", "jax") if LONG else ("quick",)
STEP_S = 0.05  # of the quick backend
STEPS = {"quick": 60, "torch": 2500, "jax": 8000}  # some seconds of each

CLUSTER: dict[str, Any] = {
    "partition": "low",
    "time_min": 30,
    "gpus": 1,
    "cpus": 1,
    "memory_gb": 0.5,
    "array_parallelism": 4,
    "pack": 2,
    "signal_delay_s": 60,
    "report": False,
}


def states_in(printed: str) -> dict[str, str]:
    """The state of each trial in what `mixlab status` prints: in the rows below its head."""
    _, _, rows = printed.partition("\nid ")
    return dict(re.findall(r"^([0-9a-f]{12}) +(\w+)", rows, re.MULTILINE))


class Bench:
    """A cluster, and a folder with a store."""

    def __init__(self, cluster: Cluster, folder: Path, quick: Path):
        self.cluster, self.folder, self.store = cluster, folder, Store(folder / "runs")
        self.variables = {**cluster.environment, "PYTHONPATH": str(quick), "QUICK_STEP_S": str(STEP_S)}

    def write(self, name: str = "grid", backend: tuple[str, ...] | str = BACKENDS, **keys: Any) -> Path:
        """An ablation of trials that take some seconds and save their state often; `grid` may be given."""
        backends = [backend] if isinstance(backend, str) else list(backend)
        given = base(
            model={"num_blocks": 2, "dropout": 0.1},
            train={"steps": STEPS[backends[0]], "evaluate_every": STEPS[backends[0]] // 3, "ema_decay": 0.9},
            run={"checkpoint_every_s": 0.2, "threads": 1},
        )
        grid = {"backend": backends, **keys.pop("grid", {"seed": [0, 1]})}
        return write_yaml(self.folder / f"{name}.yaml", base=given, grid=grid, **keys)

    def cluster_file(self, **keys: Any) -> str:
        path = self.folder / "cluster.yaml"
        path.write_text(yaml.safe_dump({**CLUSTER, **keys}))
        return str(path)

    def mixlab(self, *arguments: str, code: int = 0, **variables: str) -> Ended:
        ended = command(self.folder, *arguments, **{**self.variables, **variables})
        assert ended.code == code, f"{arguments} ended with {ended.code}:\n{ended.out}\n{ended.err}"
        assert "Traceback" not in ended.err, ended.err
        return ended

    def start(self, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        return start(self.folder, *arguments, **{**self.variables, **variables})

    def submit(self, path: Path, *arguments: str, **cluster: Any) -> Ended:
        return self.mixlab("submit", str(path), "--cluster", self.cluster_file(**cluster), *arguments)

    def slurm(self, *words: str) -> str:
        """A command of Slurm's."""
        done = subprocess.run(words, env=environment(**self.variables), capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def jobs(self, *states: str) -> list[str]:
        """Numbers of the jobs in the queue, a task of an array each; of some states, or all."""
        lines = self.slurm("squeue", "-h", "-r", "-o", "%i %T").splitlines()
        return [job for job, state in map(str.split, lines) if not states or state in states]

    def arrays(self) -> list[ledger.Array]:
        return list(ledger.all_arrays(self.store))

    def owner(self, trial_id: str) -> dict[str, Any]:
        return self.store.owner(trial_id) or {}

    def running(self) -> list[str]:
        """Trials that train now and have saved some steps."""
        return [key for key in self.store.trial_ids() if self.owner(key) and self.store.can_go_on(key)]

    def saved(self, trial_id: str) -> int:
        """The step of the last checkpoint."""
        return int((checkpoint.newest_progress(self.store.checkpoint(trial_id)) or {"step": 0})["step"])

    def wait_running(self, number: int = 1) -> list[str]:
        found: list[str] = wait_until(
            lambda: ids if len(ids := self.running()) >= number else None, f"{number} trials train"
        )
        return found

    def wait_empty(self) -> None:
        wait_until(lambda: not self.jobs(), "the queue is empty")

    def wait_done(self, number: int) -> None:
        def done() -> bool:
            return sum(record["status"] == "done" for record in records(self.store.root).values()) >= number

        wait_until(done, f"{number} trials are done")

    def states(self, name: str = "grid") -> dict[str, str]:
        """The state of each trial as `mixlab status` prints it."""
        return states_in(self.mixlab("status", name).out)

    def reference(self, path: Path) -> dict[str, Any]:
        """The results of an undisturbed local run of the same trials, and of those asked for before."""
        whole = self.folder / "whole"
        quickly = {"QUICK_STEP_S": "0", "QUICK_SPARES": "1", "QUICK_ENDS": ""}
        self.mixlab("run", str(path), "--store", str(whole), "--jobs", "2", **quickly)
        return results(whole)

    def assert_as_undisturbed(self, path: Path) -> None:
        """Every trial is done once, with the results of an undisturbed run, bit for bit; nothing else is left."""
        self.wait_empty()
        self.assert_equal(self.reference(path))

    def assert_equal(self, expected: dict[str, Any]) -> None:
        found = results(self.store.root)
        assert set(found) == set(expected)
        for key, record in expected.items():
            for name, value in record.items():
                assert found[key][name] == value, f"{name} of trial {key} differs"
        for trial_id in self.store.trial_ids():
            folder = self.store.folder(trial_id)
            curve = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            assert curve == found[trial_id]["curve"]
            names = {file.name for file in folder.iterdir() if ".corrupt-" not in file.name}
            kept = {"filters.safetensors", "predictions.safetensors.gz", "weights.safetensors"}
            assert names == {"record.json", "spec.json", "env.json", "metrics.jsonl", *kept}, names

    def python(self, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A piece of Python that has the project, Slurm and the store's folder."""
        words = [sys.executable, "-c", code]
        given = environment(**{**self.variables, **variables})
        return subprocess.run(words, cwd=self.folder, env=given, capture_output=True, text=True)

    def clear(self) -> None:
        """Leave an idle cluster to the next test."""
        for daemon in ("slurmctld", *self.cluster.nodes):
            self.cluster.start(daemon)
        self.slurm("scancel", "--quiet", "-u", str(os.geteuid()))
        self.wait_empty()
        for node in self.cluster.nodes:
            if "idle" not in self.slurm("sinfo", "-h", "-n", node, "-o", "%T", "-p", "low"):
                self.slurm("scontrol", "update", f"NodeName={node}", "State=RESUME")
