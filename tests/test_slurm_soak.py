"""Ten minutes of random faults: nothing is lost, and nothing is run twice to its end. `make slurm-soak` runs it."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slurm.testbed.cluster import Cluster
from tests.conftest import TIMEOUT_S, is_alive, records
from tests.slurm_bench import Bench

TRIALS, MINUTES = 300, float(os.environ.get("MIXLAB_SOAK_MIN", "0"))
EVERY_S = (0.3, 3.0)  # between two faults
SEED = 20211121

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(not MINUTES, reason="ten minutes of faults; make slurm-soak")]


class Faults:
    """What can be done to a cluster at any instant."""

    def __init__(self, bench: Bench, dice: random.Random, words: tuple[str, ...]):
        self.bench, self.dice, self.words, self.struck = bench, dice, words, Counter[str]()

    def strike(self) -> None:
        kinds: list[Callable[[], bool]] = [
            self.kill_trial, self.warn_job, self.requeue_job, self.cancel_task, self.node_down, self.kill_slurmd,
            self.preempt, self.kill_submitter, self.damage_checkpoint,
        ]  # fmt: skip
        kind = self.dice.choice(kinds)
        if kind():
            self.struck[kind.__name__] += 1

    def owner(self) -> dict[str, object] | None:
        found = [said for key in self.bench.store.trial_ids() if (said := self.bench.owner(key)) and said.get("job")]
        return self.dice.choice(found) if found else None

    def kill_trial(self) -> bool:
        said = self.owner()
        if said and is_alive(int(str(said["pid"]))):
            os.kill(int(str(said["pid"])), signal.SIGKILL)
        return said is not None

    def warn_job(self) -> bool:
        return self._to_a_job("scancel", "--signal=USR2")

    def requeue_job(self) -> bool:
        return self._to_a_job("scontrol", "requeue")

    def cancel_task(self) -> bool:
        jobs = self.bench.jobs()
        return bool(jobs) and self._try("scancel", self.dice.choice(jobs))

    def node_down(self) -> bool:
        node = self.dice.choice(self.bench.cluster.nodes)
        self._try("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=soak")
        return self._try("scontrol", "update", f"NodeName={node}", "State=RESUME")

    def kill_slurmd(self) -> bool:
        node = self.dice.choice(self.bench.cluster.nodes)
        self.bench.cluster.kill(node)
        self.bench.cluster.start(node)
        return True

    def preempt(self) -> bool:
        return self._try(
            "sbatch", "-p", "high", "-N1", "--exclusive", "--time=1", "--output=/dev/null", "--wrap=sleep 1"
        )

    def kill_submitter(self) -> bool:
        process = self.bench.start(*self.words)
        time.sleep(self.dice.uniform(0.2, 2.0))
        process.kill()
        process.communicate(timeout=TIMEOUT_S)
        return True

    def damage_checkpoint(self) -> bool:
        """Of a trial that nobody runs now."""
        for key in self.bench.store.trial_ids():
            last = self.bench.store.checkpoint(key)
            if last.exists() and not self.bench.owner(key):
                content = bytearray(last.read_bytes())
                content[-1] ^= 1
                last.write_bytes(content)
                return True
        return False

    def _to_a_job(self, *words: str) -> bool:
        said = self.owner()
        return said is not None and self._try(*words, str(said["job"]))

    def _try(self, *words: str) -> bool:
        try:
            self.bench.slurm(*words)
        except AssertionError:  # it has ended meanwhile
            return False
        return True


def test_ten_minutes_of_faults_lose_nothing(slurm_cluster: Cluster, quick_package: Path, tmp_path: Path) -> None:
    """Laps over 300 trials of a second each, each in a store of its own, until the time is over."""
    dice, until, struck, laps = random.Random(SEED), time.monotonic() + 60 * MINUTES, Counter[str](), 0
    reference: dict[str, Any] = {}
    while time.monotonic() < until:
        laps += 1
        (tmp_path / f"lap{laps}").mkdir()
        bench = Bench(slurm_cluster, tmp_path / f"lap{laps}", quick_package)
        reference = reference or bench.reference(write(bench))
        struck += lap(bench, dice, until, reference)
    print(f"{struck.total()} faults in {laps} laps over {TRIALS} trials: {dict(struck)}")
    assert len(struck) >= 8 and struck.total() > 10 * MINUTES


def write(bench: Bench) -> Path:
    return bench.write(backend="quick", grid={"seed": list(range(TRIALS))})


def lap(bench: Bench, dice: random.Random, until: float, reference: dict[str, Any]) -> Counter[str]:
    """Submit until every trial is done, with a fault every few seconds as long as there is time; returns the faults."""
    ends = bench.folder / "ends"
    path = write(bench)
    file = bench.cluster_file(pack=10, array_parallelism=4, cpus=1, gpus=0, memory_gb=0.2)
    words = ("submit", str(path), "--cluster", file)
    bench.variables |= {"QUICK_STEP_S": "0.017", "QUICK_ENDS": str(ends)}  # a second a trial
    faults, rounds = Faults(bench, dice, words), 0
    while len(done := [one for one in records(bench.store.root).values() if one["status"] == "done"]) < TRIALS:
        bench.mixlab(*words)
        rounds += 1
        while bench.jobs():
            if time.monotonic() < until:
                time.sleep(dice.uniform(*EVERY_S))
                faults.strike()
            else:
                time.sleep(1)
        assert rounds < 50
    bench.assert_equal(reference)
    finished = Counter(ends.read_text().split())
    assert [key for key, number in finished.items() if number > 1] == []
    assert len(finished) > 0.9 * TRIALS  # a process may be killed between its record and this note
    sessions = sum(len(record["sessions"]) for record in done)
    print(f"{faults.struck.total()} faults, {rounds} submissions, {sessions} processes for {TRIALS} trials", flush=True)
    assert bench.states() == dict.fromkeys(records(bench.store.root), "done")
    return faults.struck
