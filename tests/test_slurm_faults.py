"""What a cluster does to jobs: time limits, preemption, nodes and controllers that go away, disks that fill up.

After each, every trial is done once, and its results are those of an undisturbed run, bit for bit.
"""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.results import checkpoint
from slurm.testbed.config import Options
from slurm.testbed.down import down
from slurm.testbed.up import up
from tests.conftest import records, wait_until
from tests.slurm_bench import BACKENDS, LONG, Bench, states_in

pytestmark = pytest.mark.slurm


def restarted(bench: Bench, trial_id: str) -> bool:
    """Whether a trial's record tells of a second process that went on from a checkpoint."""
    sessions = records(bench.store.root)[trial_id]["sessions"]
    return len(sessions) > 1 and sessions[-1]["first_step"] > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_time_limit_is_passed_twice(bench: Bench, backend: str) -> None:
    """Slurm's warning, by hand in the short form; the state is saved at the next step, and the job goes on later."""
    path = bench.write(backend=backend, grid={"seed": [0]})
    bench.submit(path, time_min=2, signal_delay_s=100)
    (trial_id,) = bench.wait_running()
    for _ in range(2):
        before = bench.saved(trial_id)
        wait_until(lambda before=before: bench.owner(trial_id) and bench.saved(trial_id) > before, "it trains")
        bench.slurm("scancel", "--signal=USR2", bench.owner(trial_id)["job"])
        wait_until(lambda: not bench.owner(trial_id), "the job has saved and gone")
    bench.assert_as_undisturbed(path)
    assert len(records(bench.store.root)[trial_id]["sessions"]) >= 3 and restarted(bench, trial_id)


@pytest.mark.skipif(not LONG, reason="Slurm looks at limits twice a minute; make test-slurm-long")
def test_slurms_own_time_limit_is_passed_twice(bench: Bench) -> None:
    path = bench.write(backend="quick", grid={"seed": [0]})
    bench.variables["QUICK_STEP_S"] = "1.5"
    bench.submit(path, time_min=1, signal_delay_s=40)
    wait_until(lambda: not bench.jobs(), "the queue is empty", 600)
    bench.assert_as_undisturbed(path)
    (trial_id,) = records(bench.store.root)
    assert len(records(bench.store.root)[trial_id]["sessions"]) >= 3


def test_a_trial_that_makes_no_progress_is_failed_with_its_reason(bench: Bench) -> None:
    """Its step is longer than the warning: the job goes back into the queue all the same, and that twice."""
    path = bench.write(backend="quick", grid={"seed": [0]})
    bench.variables["QUICK_STEP_S"] = "600"  # no step is ever done
    bench.submit(path, pack=1, signal_delay_s=10)
    (trial_id,) = wait_until(bench.store.trial_ids, "it has begun")
    for restart in range(2):
        wait_until(lambda restart=restart: bench.owner(trial_id).get("restart") == restart, "it has begun")
        time.sleep(1)  # into its step
        bench.slurm("scancel", "--signal=USR2", bench.owner(trial_id)["job"])
    bench.wait_empty()
    (record,) = records(bench.store.root).values()
    assert record["status"] == "failed" and "no progress in 2 starts, which all began at step 0" in record["reason"]
    assert record["cause"] == "preempted"


def test_a_preemption_without_a_warning_loses_nothing(quick_package: Path, tmp_path: Path) -> None:
    """Where Slurm sends TERM alone, the job must not end by itself: it would not be put back into the queue."""
    mine = up(
        f"/tmp/mixlab-term-{os.getpid()}",
        Options(nodes=1, accounting=False, settings=("SlurmctldParameters=idle_on_node_suspend",)),
    )
    try:
        bench = Bench(mine, tmp_path, quick_package)
        path = bench.write(backend="quick", grid={"seed": [0]})
        bench.submit(path)
        (trial_id,) = bench.wait_running()
        bench.slurm("sbatch", "-p", "high", "--exclusive", "--time=1", "--output=/dev/null", "--wrap=sleep 1")
        wait_until(lambda: not bench.owner(trial_id), "it has given way")
        bench.assert_as_undisturbed(path)
        assert restarted(bench, trial_id)
    finally:
        down(mine.layout.directory, purge=True)


def test_what_failed_before_a_requeue_stays_as_it_failed(bench: Bench) -> None:
    path = bench.write(backend="quick", grid={"train.label_smoothing": [0.25, 0.1]})
    bench.submit(path, pack=2)
    wait_until(lambda: records(bench.store.root), "one has failed")
    (failed,) = records(bench.store.root).values()
    (trial_id,) = bench.wait_running()
    bench.slurm("scancel", "--signal=USR2", bench.owner(trial_id)["job"])
    bench.wait_empty()
    assert records(bench.store.root)[failed["id"]] == failed and failed["reason"] == "RuntimeError: boom"
    assert records(bench.store.root)[trial_id]["status"] == "done" and restarted(bench, trial_id)


def test_preempted_trials_go_on_from_where_they_were(bench: Bench) -> None:
    """One of each framework, at once."""
    paths = [bench.write(backend, backend=backend, grid={"seed": [0]}) for backend in ("jax", "torch")]
    for path in paths:
        bench.submit(path, pack=1)
    running = bench.wait_running(2)
    high = ["-p", "high", "--nodes=4", "--ntasks=4", "--exclusive", "--time=1", "--output=/dev/null", "--wrap=sleep 1"]
    bench.slurm("sbatch", *high)
    wait_until(lambda: not any(map(bench.owner, running)), "both have given way")
    bench.wait_empty()
    bench.assert_equal([bench.reference(path) for path in paths][-1])
    assert all(restarted(bench, trial_id) for trial_id in running)
    assert all(record["notes"] == [] for record in records(bench.store.root).values())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_checkpoint_damaged_between_preemption_and_resume_is_replaced_by_the_one_before(
    bench: Bench, backend: str
) -> None:
    path = bench.write(backend=backend, grid={"seed": [0]})
    bench.submit(path)
    (trial_id,) = bench.wait_running()
    last = bench.store.checkpoint(trial_id)
    wait_until(checkpoint.before(last).exists, "two checkpoints were saved")
    bench.slurm("scancel", "--signal=USR2", bench.owner(trial_id)["job"])
    wait_until(lambda: not bench.owner(trial_id), "the job has saved and gone")
    before = checkpoint.read_progress(checkpoint.before(last))["step"]
    content = bytearray(last.read_bytes())
    content[-10] ^= 1
    last.write_bytes(content)
    bench.assert_as_undisturbed(path)
    (record,) = records(bench.store.root).values()
    assert record["sessions"][-1]["first_step"] == before > 0
    assert "is corrupt: its checksum does not match" in record["notes"][0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_node_that_is_set_down_in_mid_step_loses_nothing(bench: Bench, backend: str) -> None:
    path = bench.write(backend=backend)
    bench.submit(path, pack=1)
    (trial_id, _) = bench.wait_running(2)
    node = bench.owner(trial_id)["node"]
    bench.slurm("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    wait_until(lambda: bench.owner(trial_id).get("restart") == 1 or trial_id in records(bench.store.root), "it went on")
    bench.assert_as_undisturbed(path)
    assert restarted(bench, trial_id)


def test_a_node_that_dies_in_mid_step_loses_nothing(quick_package: Path, tmp_path: Path) -> None:
    """slurmd, slurmstepd and the trial's processes at once, as when the power fails; and never comes back."""
    mine = up(f"/tmp/mixlab-dies-{os.getpid()}", Options(nodes=2, accounting=False, settings=("SlurmdTimeout=10",)))
    try:
        bench = Bench(mine, tmp_path, quick_package)
        bench.variables["QUICK_STEP_S"] = "0.1"
        path = bench.write(backend="quick")
        bench.submit(path, pack=1)
        (trial_id, _) = bench.wait_running(2)
        mine.crash(bench.owner(trial_id)["node"])
        bench.assert_as_undisturbed(path)
        assert restarted(bench, trial_id)
    finally:
        down(mine.layout.directory, purge=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_administrators_requeue_without_a_signal_loses_nothing(bench: Bench, backend: str) -> None:
    path = bench.write(backend=backend, grid={"seed": [0]})
    bench.submit(path)
    (trial_id,) = bench.wait_running()
    bench.slurm("scontrol", "requeue", bench.owner(trial_id)["job"])
    wait_until(lambda: not bench.owner(trial_id), "it has gone")
    bench.assert_as_undisturbed(path)
    assert restarted(bench, trial_id)


KILLER = """
import os, signal, sys
import experiments.files, slurm.client, slurm.batch
from submitit.helpers import CommandFunction, DelayedSubmission
left = int(sys.argv.pop(1))
def counted(function):
    def wrapper(*arguments, **keys):
        global left
        result = function(*arguments, **keys)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return wrapper
experiments.files.replace = counted(experiments.files.replace)
slurm.client.call = counted(slurm.client.call)
DelayedSubmission.dump = counted(DelayedSubmission.dump)
CommandFunction.__call__ = counted(CommandFunction.__call__)
import mixlab
code = mixlab.main(sys.argv[1:])
print("left", left)
sys.exit(code)
"""


def test_a_submission_killed_at_ten_points_leaves_no_orphan_and_no_double(bench: Bench) -> None:
    """Each kill is followed by the same command again, which completes what was begun."""
    path = bench.write(backend="quick", grid={"seed": [0, 1, 2]})
    bench.slurm("scontrol", "update", "NodeName=ALL", "State=DRAIN", "Reason=test")
    words = ["submit", str(path), "--cluster", bench.cluster_file(pack=1, report=True)]

    def kill_at(point: int) -> subprocess.CompletedProcess[str]:
        return bench.python(f"import sys\nsys.argv = ['mixlab', '{point}', *{words!r}]\n{KILLER}")

    for _ in range(2):  # a later submission writes a little less than the first
        whole = kill_at(10_000)
        bench.mixlab("cancel", "grid")
        wait_until(lambda: not bench.jobs(), "nothing is queued")
    total = 10_000 - int(whole.stdout.split("left")[1])
    assert total >= 20, whole
    points = range(1, total + 1) if LONG else sorted(random.Random(4).sample(range(1, total + 1), 10))
    for point in points:
        died = kill_at(point)
        assert died.returncode == -signal.SIGKILL, died
        queued = bench.jobs()
        held = bench.slurm("squeue", "-h", "-r", "-o", "%r").splitlines()
        assert len(queued) in (0, 3, 4) and len(held) == len(queued)
        again = bench.mixlab(*words).out
        live = [job for job in bench.jobs() if "_" in job]
        assert len(live) == 3, f"killed at {point} of {total}: {again} {bench.jobs()}"
        names = bench.slurm("squeue", "-h", "-o", "%j").splitlines()
        assert sum(name.endswith("-report") for name in names) == 1, names
        assert "BeginTime" not in bench.slurm("squeue", "-h", "-r", "-o", "%r")
        if point != points[-1]:
            bench.mixlab("cancel", "grid")
            bench.slurm("scancel", "-u", str(os.geteuid()))
            wait_until(lambda: not bench.jobs(), "nothing is queued")
    bench.slurm("scontrol", "update", "NodeName=ALL", "State=RESUME")
    bench.assert_as_undisturbed(path)
    assert {len(record["sessions"]) for record in records(bench.store.root).values()} == {1}


def test_a_controller_that_is_down_is_said_within_30_s(quick_package: Path, tmp_path: Path) -> None:
    """Nothing hangs, nothing is called dead; what was cancelled meanwhile is not begun later."""
    mine = up(f"/tmp/mixlab-ctld-{os.getpid()}", Options(nodes=1, accounting=False))
    try:
        bench = Bench(mine, tmp_path, quick_package)
        bench.variables["QUICK_STEP_S"] = "0.2"
        path = bench.write(backend="quick", grid={"seed": [0, 1]})
        bench.submit(path, pack=1, array_parallelism=1, gpus=0)
        (running,) = bench.wait_running()
        time.sleep(6)  # slurmctld loses what it learnt in its last seconds
        mine.kill("slurmctld")
        last = next(key for array in bench.arrays() for key in array.packs[1])
        said = ""
        for words, code in (
            (("submit", str(path), "--cluster", bench.cluster_file()), 2),
            (("cancel", last), 2),
            (("status", "grid"), 0),
        ):
            began = time.monotonic()
            ended = bench.mixlab(*words, code=code)
            assert time.monotonic() - began < 30
            assert "slurm: " in ended.out + ended.err, ended
            said = ended.out
        states = states_in(said)
        assert states[running] in ("running", "done") and states[last] == "cancelled"
        mine.start("slurmctld")
        bench.wait_empty()
        assert last not in records(bench.store.root)
        bench.mixlab("retry", "grid")
        bench.assert_as_undisturbed(path)
    finally:
        down(mine.layout.directory, purge=True)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own in a folder."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_a_full_disk_loses_nothing_and_its_jobs_go_on_when_it_is_freed(bench: Bench) -> None:
    path = bench.write(backend="quick")
    with small_disk(bench.folder / "runs", "24M"):
        bench.submit(path, pack=1)
        running = bench.wait_running(2)
        ballast = bench.folder / "runs" / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(b"0" * 4096)
                file.flush()
        wait_until(
            lambda: not any(bench.owner(key) for key in running) or records(bench.store.root), "jobs have met it"
        )
        time.sleep(2)
        ballast.unlink()
        bench.wait_empty()
        bench.assert_as_undisturbed(path)
