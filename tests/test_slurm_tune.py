"""A tuned ablation on a real Slurm: a job submits the table when the tuning has ended, whatever becomes of it."""

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from slurm import ledger
from slurm.testbed.cluster import Cluster
from slurm.testbed.config import Options
from slurm.testbed.down import down
from slurm.testbed.up import up
from tests.conftest import base, records, results, wait_until, write_yaml
from tests.slurm_bench import Bench

pytestmark = pytest.mark.slurm

STEPS = 40
NEXT = "slurm.next_round"


def write(bench: Bench, **keys: Any) -> Path:
    """Two settings, two values, one seed to tune: 4 trials choose for 2."""
    given = base(
        model={"num_blocks": 2},
        train={"steps": STEPS, "evaluate_every": STEPS // 2},
        run={"checkpoint_every_s": 0.2, "threads": 1},
        backend="quick",
    )
    asked = {
        "base": given,
        "grid": {"model.token_mixing": ["tied", "untied"], "seed": [0]},
        "tune": {"over": {"train.learning_rate": [0.01, 0.1]}, "seeds": [100]},
        "report": {"rows": ["model.token_mixing"]},
    }
    return write_yaml(bench.folder / "tuned.yaml", **{**asked, **keys})


def next_jobs(bench: Bench) -> list[str]:
    lines = bench.slurm("squeue", "-h", "-o", "%i %j").splitlines()
    return [job for job, name in map(str.split, lines) if name.endswith("-next")]


def processes(bench: Bench, word: str) -> list[psutil.Process]:
    """Pythons whose command line has a word and a path in this test's folder: other tests run at the same time."""
    found, where = [], str(bench.folder)
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "python" in " ".join(words[:1]) and all(any(part in one for one in words) for part in (word, where)):
            found.append(process)
    return found


def test_the_table_follows_the_tuning_and_nothing_is_sent_twice(bench: Bench) -> None:
    path = write(bench)
    said = bench.submit(path, pack=2, report=True).out
    (job,) = next_jobs(bench)
    assert "4 trials: 0 done, 0 on their way, 4 sent" in said
    assert f"2 more wait for the choice of what is tuned: job {job} sends them then" in said
    assert "0 sent" in bench.submit(path, pack=2, report=True).out and next_jobs(bench) == [job]
    status = bench.mixlab("status", "tuned").out
    assert f"2 trials of the table wait for a choice; job {job} sends them then" in status
    watched = bench.mixlab("status", "tuned", "--watch").out  # until the table is done too
    assert "6 trials: 6 done" in watched.splitlines()[-1]
    bench.assert_as_undisturbed(path)
    sent = [key for array in bench.arrays() for pack in array.packs for key in pack]
    assert len(sent) == len(set(sent)) == 6
    table = (bench.store.ablation("tuned") / "report" / "table.txt").read_text()
    assert table == bench.mixlab("report", str(path)).out and "of 2 values, best.validation.accuracy" in table


@pytest.mark.parametrize("victim", [NEXT, "submitit"])
def test_a_killed_job_that_goes_on_begins_again(bench: Bench, victim: str) -> None:
    """Either of its two processes."""
    path = write(bench)
    bench.submit(path, pack=2)
    inner = wait_until(lambda: processes(bench, NEXT), "the job that goes on has begun")[0]
    killed = inner if victim == NEXT else inner.parent()
    assert victim in " ".join(killed.cmdline())
    os.kill(killed.pid, signal.SIGKILL)
    bench.wait_done(6)
    bench.assert_as_undisturbed(path)
    sent = [key for array in bench.arrays() if array.state != "void" for pack in array.packs for key in pack]
    assert len(sent) == len(set(sent)) == 6


def test_a_retry_and_a_killed_job_bring_halving_to_its_end_and_send_nothing_twice(bench: Bench) -> None:
    """The job after the first stage is ended, and somebody sends the second one; the job after this one is killed."""
    rates, halving = [0.001, 0.01, 0.1, 0.3], {"steps": [STEPS // 2], "keep": "1/2"}
    tuned = {"over": {"train.learning_rate": rates}, "seeds": [100], "halving": halving}
    path = write(bench, grid={"model.token_mixing": ["tied"], "seed": [0]}, tune=tuned)
    assert "4 trials: 0 done, 0 on their way, 4 sent" in bench.submit(path, pack=2).out
    (job,) = next_jobs(bench)
    bench.slurm("scancel", job)
    bench.wait_empty()
    assert not records(bench.store.root)
    assert sorted(bench.states("tuned").values()) == ["paused", "paused", "pruned", "pruned"]
    assert "0 done, 2 paused or pruned, 0 on their way, 2 sent" in bench.mixlab("retry", "tuned").out
    second = ledger.submissions(bench.store, "tuned")[1].name
    inner = wait_until(
        lambda: [one for one in processes(bench, NEXT) if any(second in word for word in one.cmdline())],
        "the job that goes on has begun",
    )[0]
    os.kill(inner.pid, signal.SIGKILL)
    bench.wait_done(3)
    bench.wait_empty()
    assert "5 trials: 3 done, 2 pruned" in bench.mixlab("status", "tuned").out
    arrays = [array for array in bench.arrays() if array.state != "void"]
    sent = [(key, array.until.get(key)) for array in arrays for pack in array.packs for key in pack]
    assert len(sent) == len(set(sent)) and Counter(step for _, step in sent) == {STEPS // 2: 4, None: 3}
    assert results(bench.store.root) == bench.reference(path)
    assert "by halving (4 values to step 20, 2 to the end)" in bench.mixlab("report", "tuned").out


def test_whoever_submits_again_sends_a_job_that_was_ended_anew_and_then_the_table(bench: Bench) -> None:
    """While the tuning is on its way, a job is sent that goes on; after it the table itself."""
    path = write(bench)
    bench.submit(path, pack=2)
    (first,) = next_jobs(bench)
    bench.slurm("scancel", first)
    wait_until(lambda: not next_jobs(bench), "the job is gone")
    assert "run or submit it again when the others have ended" in bench.mixlab("status", "tuned").out
    assert "0 sent" in bench.submit(path, pack=2).out
    (second,) = next_jobs(bench)
    bench.slurm("scancel", second)
    bench.wait_empty()
    assert len(records(bench.store.root)) == 4
    assert "6 trials: 4 done, 0 on their way, 2 sent" in bench.mixlab("retry", "tuned").out
    bench.wait_done(6)
    bench.assert_as_undisturbed(path)


def test_a_controller_that_is_away_is_waited_for(slurm_cluster: Cluster, quick_package: Path, tmp_path: Path) -> None:
    """On a cluster of its own: nodes need a while to find a controller that has begun again."""
    mine = up(f"/tmp/mixlab-tune-{os.getpid()}", Options(nodes=1))
    try:
        bench = Bench(mine, tmp_path, quick_package)
        path = write(bench)
        bench.submit(path, pack=2)
        inner = wait_until(lambda: processes(bench, NEXT), "the job that goes on has begun")[0]
        os.kill(inner.pid, signal.SIGSTOP)
        mine.kill("slurmctld", signal.SIGTERM)
        os.kill(inner.pid, signal.SIGCONT)
        log = ledger.submissions(bench.store, "tuned")[0] / "slurm"
        wait_until(lambda: any("slurm: " in file.read_text() for file in log.glob("*_log.out")), "its silence is noted")
        mine.start("slurmctld")
        bench.wait_done(6)
        bench.assert_as_undisturbed(path)
    finally:
        down(mine.layout.directory, purge=True)


def test_cancelling_ends_the_job_that_goes_on_too(bench: Bench) -> None:
    path = write(bench)
    bench.submit(path, pack=2)
    (job,) = next_jobs(bench)
    said = bench.mixlab("cancel", "tuned").out
    assert f"ended job {job}" in said and "cancelled 4 of 4 trials" in said
    bench.wait_empty()
    assert set(bench.states("tuned").values()) == {"cancelled"}
