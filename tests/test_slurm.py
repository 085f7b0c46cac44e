"""Grids on a real Slurm: submitted, packed, watched, cancelled, retried; the store is looked at afterwards."""

import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from analysis.table.render import FORMATS
from experiments.results.store import Store
from slurm.testbed.config import Options
from slurm.testbed.down import down
from slurm.testbed.up import up
from tests.conftest import ROOT, base, end, environment, records, results, wait_until, write_yaml
from tests.slurm_bench import BACKENDS, Bench

pytestmark = pytest.mark.slurm


def test_forty_trials_go_as_two_packed_arrays_and_the_report_follows(bench: Bench) -> None:
    """Both frameworks; four jobs at a time; the report has every seed in it."""
    path = write_yaml(
        bench.folder / "forty.yaml",
        base=base(run={"threads": 1}),
        grid={"backend": ["torch", "jax"], "seed": list(range(20))},
        report={"columns": ["backend"]},
    )
    began = time.monotonic()
    said = bench.submit(path, pack=10, array_parallelism=4, report=True).out
    assert time.monotonic() - began < 20  # it returns at once: nothing has been trained by then
    assert "40 sent as 4 jobs" in said and "mixlab status forty --watch" in said
    assert [len(array.packs) for array in bench.arrays()] == [2, 2]
    most = 0
    while jobs := bench.jobs():
        most = max(most, len(bench.jobs("RUNNING")))
        assert len(jobs) <= 5
        time.sleep(0.2)
    assert 1 < most <= 4
    bench.assert_as_undisturbed(path)
    folder = bench.store.root / "ablations" / "forty" / "report"
    table = (folder / "table.txt").read_text()
    assert table == bench.mixlab("report", str(path)).out
    assert table.count("(20)") == 2 and "missing" not in table
    files = {
        "figures",
        "report.html",
        "report.md",
        "tidy.csv",
        "tidy.parquet",
        *(f"table.{end}" for end in FORMATS.values()),
    }
    assert {file.name for file in folder.iterdir()} == files
    again = bench.submit(path, pack=10, report=True).out
    assert "40 trials: 40 done, 0 on their way, 0 sent" in again and len(bench.arrays()) == 2


def test_an_error_of_one_trial_leaves_the_others_of_its_pack(bench: Bench) -> None:
    path = bench.write(backend="quick", grid={"train.label_smoothing": [0.0, 0.25, 0.1]})
    bench.submit(path, pack=3)
    bench.wait_empty()
    found = records(bench.store.root)
    assert sorted(record["status"] for record in found.values()) == ["done", "done", "failed"]
    (failed,) = (record for record in found.values() if record["status"] == "failed")
    assert (failed["cause"], failed["reason"]) == ("error", "RuntimeError: boom")
    said = bench.mixlab("status", "grid").out
    assert "RuntimeError: boom" in said and "2 done, 1 failed" in said and "mixlab retry grid --failed" in said
    logs = bench.mixlab("logs", "grid", "--failed").out
    assert 'raise RuntimeError("boom")' in logs and str(failed["id"]) in logs
    assert "1 sent" in bench.mixlab("retry", "grid", "--failed").out  # and no other


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_process_of_a_trial_is_replaced_in_its_job(bench: Bench, backend: str) -> None:
    path = bench.write(backend=backend)
    bench.submit(path, pack=2)
    (trial_id,) = bench.wait_running()
    os.kill(bench.owner(trial_id)["pid"], signal.SIGKILL)
    bench.assert_as_undisturbed(path)
    assert len(records(bench.store.root)[trial_id]["sessions"]) == 2  # the second went on from a checkpoint
    assert len(bench.arrays()) == 1


def test_a_killed_job_goes_back_into_the_queue(bench: Bench) -> None:
    """Not the trial's process, but the one above it, which nothing in the job outlives."""
    path = bench.write(backend="quick")
    bench.submit(path, pack=2)
    (trial_id,) = bench.wait_running()
    parent = psutil.Process(bench.owner(trial_id)["pid"]).parent()
    assert parent is not None and "submitit" in " ".join(parent.cmdline())
    parent.kill()
    bench.assert_as_undisturbed(path)
    assert len(records(bench.store.root)[trial_id]["sessions"]) == 2 and len(bench.arrays()) == 1


def test_memory_that_runs_out_is_told_from_other_deaths(quick_package: Path, tmp_path: Path) -> None:
    with_limit = up(f"/tmp/mixlab-oom-{os.getpid()}", Options(nodes=1, over_memory=True))
    try:
        bench = Bench(with_limit, tmp_path, quick_package)
        path = bench.write(backend="quick", grid={"train.label_smoothing": [0.5, 0.1]})
        bench.submit(path, pack=2, memory_gb=0.4)
        bench.wait_empty()
        lost = bench.mixlab("status", "grid").out
        assert lost.count("out_of_memory") == 2, lost
        bench.cluster_file(memory_gb=2.0, pack=2)
        bench.mixlab("retry", "grid", "--cluster", "cluster.yaml", QUICK_SPARES="1")
        bench.assert_as_undisturbed(path)
    finally:
        down(with_limit.layout.directory, purge=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_jobs_that_others_have_cancelled_are_lost_and_retried(bench: Bench, backend: str) -> None:
    """One that runs, and one that waits, of which Slurm keeps no trace."""
    path = bench.write(backend=backend, grid={"seed": [0, 1, 2]})
    bench.submit(path, pack=1, array_parallelism=1)
    (running,) = bench.wait_running()
    (waiting,) = [job for job in bench.jobs("PENDING") if job.endswith("_2")]
    bench.slurm("scancel", waiting)
    bench.slurm("scancel", bench.owner(running)["job"])
    bench.wait_empty()
    states = bench.states()
    assert sorted(states.values()) == ["done", "lost", "lost"] and states[running] == "lost"
    assert "2 lost or cancelled: mixlab retry grid --lost" in bench.mixlab("status", "grid").out
    assert "2 sent" in bench.mixlab("retry", "grid", "--lost").out
    bench.assert_as_undisturbed(path)
    assert len(records(bench.store.root)[running]["sessions"]) == 2


def test_cancel_knows_what_it_has_cancelled(bench: Bench) -> None:
    path = bench.write(backend="quick", grid={"seed": [0, 1, 2, 3]})
    bench.variables["QUICK_STEP_S"] = "0.5"  # so that none ends meanwhile
    bench.submit(path, pack=2, array_parallelism=1)
    (running,) = bench.wait_running()
    (pack,) = [pack for array in bench.arrays() for pack in array.packs if running in pack]
    other = next(trial_id for trial_id in pack if trial_id != running)
    assert "cancelled 1 of 1 trial;" in bench.mixlab("cancel", running).out  # its job goes on with the other
    wait_until(lambda: bench.owner(other), "the other trial of the pack has begun")
    assert bench.states()[running] == "cancelled"
    said = bench.mixlab("cancel", "grid").out
    assert "cancelled 3 of 4 trials" in said
    bench.wait_empty()
    assert set(bench.states().values()) == {"cancelled"}
    bench.mixlab("retry", "grid", QUICK_STEP_S="0")
    bench.assert_as_undisturbed(path)


def test_two_people_submit_the_same_ablation_at_once(bench: Bench) -> None:
    path = bench.write(backend="quick", grid={"seed": [0, 1, 2, 3]})
    words = ("submit", str(path), "--cluster", bench.cluster_file())
    both = [end(process) for process in [bench.start(*words), bench.start(*words)]]
    assert [ended.code for ended in both] == [0, 0], both
    sent = sorted(int(re.findall(r"(\d+) sent", ended.out)[0]) for ended in both)
    assert sent == [0, 4]
    bench.assert_as_undisturbed(path)
    assert {len(record["sessions"]) for record in records(bench.store.root).values()} == {1}


def test_a_broken_tree_breaks_no_queued_job(bench: Bench, tmp_path: Path) -> None:
    """What was submitted runs, whatever is edited between then and its beginning."""
    copy = tmp_path / "copy"
    for name in ("analysis", "backends", "experiments", "mixlab", "slurm"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    path = bench.write(backend="quick")
    bench.slurm("scontrol", "update", "NodeName=ALL", "State=DRAIN", "Reason=test")
    mine = environment(**{**bench.variables, "PYTHONPATH": f"{copy}{os.pathsep}{bench.variables['PYTHONPATH']}"})
    bench.mixlab("submit", str(path), "--cluster", bench.cluster_file(), PYTHONPATH=mine["PYTHONPATH"])
    plan = copy / "experiments" / "training" / "plan.py"
    plan.write_text(plan.read_text().replace("train.learning_rate * rising", "0.0 * rising"))
    (copy / "experiments" / "running" / "worker.py").write_text("this is not Python")
    shutil.rmtree(copy / "slurm")
    bench.slurm("scontrol", "update", "NodeName=ALL", "State=RESUME")
    bench.assert_as_undisturbed(path)
    (snapshot,) = {record["environment"]["snapshot"] for record in records(bench.store.root).values()}
    assert (bench.store.root / "snapshots" / snapshot / "experiments" / "running" / "worker.py").exists()


def test_a_changed_snapshot_runs_nothing(bench: Bench) -> None:
    path = bench.write(backend="quick")
    bench.slurm("scontrol", "update", "NodeName=ALL", "State=DRAIN", "Reason=test")
    bench.submit(path, pack=1)
    (snapshot,) = (bench.store.root / "snapshots").iterdir()
    plan = snapshot / "experiments" / "training" / "plan.py"
    plan.chmod(0o640)
    plan.write_text(plan.read_text().replace("train.learning_rate * rising", "0.0 * rising"))
    bench.slurm("scontrol", "update", "NodeName=ALL", "State=RESUME")
    bench.wait_empty()
    assert records(bench.store.root) == {}
    assert "was changed since the job was submitted; submit again" in bench.mixlab("status", "grid").out
    bench.submit(path)  # makes a new one
    bench.assert_as_undisturbed(path)


def test_a_python_without_the_backend_is_refused(bench: Bench) -> None:
    path = bench.write(backend="torch", grid={"seed": [0]})
    bare = bench.folder / "bare python"
    bare.write_text(f'#!/bin/sh\nexec {shutil.which("python3", path="/usr/bin")} "$@"\n')
    bare.chmod(0o755)
    file = bench.cluster_file(environments={"torch": {"python": str(bare)}})
    said = bench.mixlab("submit", str(path), "--cluster", file, code=2, PYTHONPATH="").err
    assert "environments: torch" in said and "lacks" in said and "torch" in said
    file = bench.cluster_file(environments={"torch": {"setup": ["false"]}})
    assert bench.mixlab("submit", str(path), "--cluster", file, "--dry-run").code == 0
    assert bench.jobs() == []


def test_an_import_error_stops_the_array(bench: Bench) -> None:
    """Of six jobs, one at a time, the first one fails; the others are not begun one after the other to do the same."""
    path = bench.write(backend="quick", grid={"seed": [0, 1, 2, 3, 4, 5]})
    bench.submit(path, pack=1, array_parallelism=1, environments={"quick": {"setup": ["export PYTHONPATH="]}})
    bench.wait_empty()
    assert records(bench.store.root) == {}
    said = bench.mixlab("status", "grid").out
    assert set(bench.states().values()) == {"lost"} and said.count("its array was stopped") == 6, said
    assert len(list(bench.arrays()[0].folder.glob("slurm/*_log.out"))) < 6
    bench.submit(path)
    bench.assert_as_undisturbed(path)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"partition": "lo"}, "nvalid partition"),
        ({"cpus": 64}, "More processors"),
        ({"constraint": "nowhere"}, "nvalid feature"),
        ({"memory_gb": 900}, "node configuration"),
        ({"gpus": 9}, "node configuration"),
        ({"sbatch": {"licenses": "x:1"}}, "nvalid license"),
    ],
    ids=str,
)
def test_what_slurm_refuses_is_said_in_its_words(bench: Bench, keys: dict[str, Any], words: str) -> None:
    path = bench.write(backend="quick")
    ended = bench.mixlab("submit", str(path), "--cluster", bench.cluster_file(**keys), code=2)
    assert words in ended.err and len(ended.err.strip().splitlines()) == 1, ended.err
    assert "cluster.yaml: slurm: sbatch: " in ended.err and "mixlab cluster check" in ended.err
    assert bench.jobs() == []
    bench.submit(path)  # nothing of it stands in the way
    bench.wait_done(2)


def test_names_that_a_shell_would_read_are_names(bench: Bench, tmp_path: Path) -> None:
    """A store with all that is awkward in its path; and a path that a batch script cannot hold is refused."""
    path = bench.write(backend="quick")
    store = tmp_path / 'it\'s "a" $(touch pwned) `x` & ; store'
    bench.mixlab("submit", str(path), "--cluster", bench.cluster_file(), "--store", str(store).replace("$", "$$"))
    wait_until(lambda: len(records(store)) == 2, "both trials are done")
    bench.wait_empty()
    assert {record["status"] for record in results(store).values()} == {"done"}
    assert not list(tmp_path.rglob("pwned"))
    for name in ("100%j", "two\nlines", "back\\slash"):
        ended = bench.mixlab(
            "submit", str(path), "--cluster", bench.cluster_file(), "--store", str(tmp_path / name), code=2
        )
        assert "which Slurm reads as its own in a batch script" in ended.err
    assert bench.jobs() == []


def test_what_is_written_is_private_to_user_and_group(bench: Bench) -> None:
    path = bench.write(backend="quick")
    bench.submit(path)
    bench.assert_as_undisturbed(path)
    open_to_all = [
        file for file in bench.store.root.rglob("*") if file.stat().st_mode & 0o007 and not file.is_symlink()
    ]
    assert [file for file in open_to_all if "__pycache__" not in file.parts] == []
    pickles = list(bench.store.root.rglob("*.pkl"))
    assert pickles and all(file.parent.stat().st_mode & 0o022 == 0 for file in pickles)
    for pickle in bench.store.root.rglob("*submitted.pkl"):
        assert len(pickle.read_bytes()) < 1000 + len(str(bench.store.root))  # a path, and the name of a class


def test_a_submission_from_inside_a_job_takes_nothing_of_that_job_along(bench: Bench) -> None:
    path = bench.write(backend="quick")
    inside = {
        "SLURM_JOB_ID": "1",
        "SLURM_CPUS_PER_TASK": "9",
        "SBATCH_PARTITION": "nowhere",
        "SLURM_ARRAY_TASK_ID": "7",
    }
    bench.mixlab("submit", str(path), "--cluster", bench.cluster_file(), **inside)
    bench.assert_as_undisturbed(path)


def test_the_cluster_is_checked_and_two_nodes_see_each_other(bench: Bench) -> None:
    """On both frameworks: the base for trials on several nodes."""
    file = bench.cluster_file(environments={"torch": {}, "jax": {}})
    said = bench.mixlab("cluster", "check", file, "--nodes", "2").out
    # Any two: the nodes of the first job may not be free again when the second begins.
    assert len(re.findall(r"job on 2 nodes, \w+: n\d, n\d sees the store", said)) == 2, said
    assert said.count("2 ranks see each other") == 2, said
    assert all(line.startswith("ok") for line in said.splitlines()), said
    for keys, words in (
        ({"partition": "lo"}, "allowed: high, low"),
        ({"environments": {"jax": {"python": "/no"}}}, "/no"),
    ):
        ended = bench.mixlab("cluster", "check", bench.cluster_file(**keys), "--wait", "20", code=2)
        assert words in ended.out, ended.out
    assert bench.jobs() == []


def test_the_example_file_works_as_it_is(bench: Bench) -> None:
    path = bench.write(backend="quick")
    bench.mixlab("submit", str(path), "--cluster", str(ROOT / "slurm" / "clusters" / "example.yaml"))
    bench.assert_as_undisturbed(path)
    assert "(2)" in (bench.store.root / "ablations" / "grid" / "report" / "table.md").read_text()


def test_watch_ends_with_the_last_trial_and_follow_prints_its_log(bench: Bench) -> None:
    path = bench.write(backend="quick")
    bench.submit(path)
    watch, follow = bench.start("status", "grid", "--watch"), bench.start("logs", "grid", "--follow")
    watched, followed = end(watch), end(follow)
    assert watched.code == 0 and watched.out.splitlines()[-1] == "2 trials: 2 done", watched.out
    assert followed.code == 0 and followed.out.count(": done") == 2, followed.out
    bench.wait_empty()


def test_a_dry_run_sends_nothing(bench: Bench) -> None:
    path = bench.write(backend="quick")
    said = bench.mixlab("submit", str(path), "--cluster", bench.cluster_file(), "--dry-run").out
    assert "2 trials: 0 done, 0 on their way, 2 to send" in said
    assert "#SBATCH --partition=low" in said and "srun" in said and "PYTHONSAFEPATH=1" in said
    assert "seed=0" in said and "seed=1" in said and "--array" not in said
    assert "Slurm says: Job " in said and "to start at" in said
    assert bench.jobs() == [] and bench.arrays() == []


def test_without_accounting_a_lost_job_is_still_found(quick_package: Path, tmp_path: Path) -> None:
    plain = up(f"/tmp/mixlab-plain-{os.getpid()}", Options(nodes=2, accounting=False))
    try:
        bench = Bench(plain, tmp_path, quick_package)
        path = bench.write(backend="quick")
        bench.submit(path, pack=1)
        running = bench.wait_running(2)
        bench.slurm("scancel", bench.owner(running[0])["job"])
        bench.wait_empty()
        assert sorted(bench.states().values()) == ["done", "lost"]
        assert "without it" in bench.mixlab("cluster", "check", bench.cluster_file(environments={"quick": {}})).out
        bench.mixlab("retry", "grid", "--lost")
        bench.assert_as_undisturbed(path)
    finally:
        down(plain.layout.directory, purge=True)


def test_a_report_that_slurm_refuses_stops_nothing(quick_package: Path, tmp_path: Path) -> None:
    small = up(f"/tmp/mixlab-small-{os.getpid()}", Options(nodes=1, accounting=False, settings=("MaxMemPerNode=1500",)))
    try:
        bench = Bench(small, tmp_path, quick_package)
        path = bench.write(backend="quick")
        assert "no job will write the report: mixlab report grid" in bench.submit(path, report=True).out
        bench.assert_as_undisturbed(path)
        assert "2 done" in bench.submit(path, report=True).out
    finally:
        down(small.layout.directory, purge=True)


@pytest.mark.parametrize("when", ["its jobs wait", "some have begun", "all have ended"])
def test_a_submission_killed_as_it_released_is_completed(bench: Bench, when: str) -> None:
    """Slurm was told, or not, and the ledger does not know."""
    path = bench.write(backend="quick", grid={"seed": [0, 1, 2]})
    if when == "its jobs wait":
        bench.slurm("scontrol", "update", "NodeName=ALL", "State=DRAIN", "Reason=test")
    bench.submit(path, pack=1, array_parallelism=1)
    if when == "its jobs wait":
        bench.slurm("scontrol", "update", f"JobId={bench.arrays()[0].job}", "StartTime=now+10weeks")
    elif when == "some have begun":
        bench.wait_running()
    else:
        bench.wait_empty()
    (array,) = bench.arrays()
    array.become(state="held")
    said = bench.submit(path, pack=1).out
    assert "0 sent" in said and [one.state for one in bench.arrays()] == [
        "ended" if when == "all have ended" else "released"
    ]
    if when == "its jobs wait":
        bench.slurm("scontrol", "update", "NodeName=ALL", "State=RESUME")
    bench.assert_as_undisturbed(path)


def test_what_a_user_has_set_for_squeue_hides_no_job(bench: Bench) -> None:
    path = bench.write(backend="quick", grid={"seed": [0, 1, 2]})
    bench.variables["QUICK_STEP_S"] = "0.5"
    bench.submit(path, pack=1, array_parallelism=1)
    bench.wait_running()
    hiding = {"SQUEUE_STATES": "SUSPENDED", "SQUEUE_PARTITION": "high", "SLURM_CLUSTERS": "nowhere"}
    assert "lost" not in bench.mixlab("status", "grid", **hiding).out
    assert "3 on their way, 0 sent" in bench.mixlab("submit", str(path), "--cluster", "cluster.yaml", **hiding).out
    assert "cancelled 3 of 3" in bench.mixlab("cancel", "grid", **hiding).out
    bench.wait_empty()


def test_an_earlier_form_of_an_ablation_is_still_within_reach(bench: Bench) -> None:
    path = bench.write(backend="quick", grid={"seed": [0, 1]})
    bench.variables["QUICK_STEP_S"] = "0.5"  # so that none ends meanwhile
    bench.submit(path, pack=1, array_parallelism=1)
    first = [key for array in bench.arrays() for pack in array.packs for key in pack]
    assert "grid had other trials here before" in bench.submit(path, "seed=[2]").out
    assert "(of an earlier form)" in bench.mixlab("status", "grid").out
    assert "cancelled 1 of 1 trial;" in bench.mixlab("cancel", first[1]).out
    assert "cancelled 2 of 3 trials" in bench.mixlab("cancel", "grid").out
    bench.wait_empty()
    assert "nothing to cancel" in bench.mixlab("cancel", "grid").out
    assert list(bench.states().values()) == ["cancelled"] * 3
    assert "3 sent" in bench.mixlab("retry", "grid", "--lost", QUICK_STEP_S="0").out
    bench.wait_done(3)


def test_a_trial_that_waits_to_be_retried_is_queued(bench: Bench) -> None:
    path = bench.write(backend="quick", grid={"train.label_smoothing": [0.25]})
    bench.submit(path)
    bench.wait_empty()
    bench.slurm("scontrol", "update", "NodeName=ALL", "State=DRAIN", "Reason=test")
    time.sleep(1.1)  # the submission's time has seconds
    bench.mixlab("retry", "grid", "--failed")
    said = bench.mixlab("status", "grid").out
    assert "1 queued" in said and "failed before: RuntimeError: boom" in said
    assert "0 sent" in bench.mixlab("retry", "grid").out
    bench.slurm("scontrol", "update", "NodeName=ALL", "State=RESUME")
    bench.wait_empty()
    assert "1 failed" in bench.mixlab("status", "grid").out


def test_without_slurm_the_sentence_says_what_to_do(tmp_path: Path, bench: Bench) -> None:
    path = bench.write(backend="quick")
    ended = bench.mixlab("submit", str(path), "--cluster", bench.cluster_file(), code=2, PATH="/usr/local/nowhere")
    assert "is not on PATH" in ended.err and "make slurm-up" in ended.err
    assert Store(tmp_path / "runs").trial_ids() == []


def test_a_snapshot_over_its_limit_names_the_largest_files(bench: Bench) -> None:
    path = bench.write(backend="quick")
    file = bench.cluster_file(snapshot_limit_mb=0.01)
    said = bench.mixlab("submit", str(path), "--cluster", file, code=2).err
    assert "snapshot_limit_mb 0.01" in said and "MiB" in said
    assert bench.jobs() == []
