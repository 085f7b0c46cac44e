"""A trial whose processes are the tasks of a job on several nodes: the bits of one device, and nothing is lost."""

import re
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import base, records, wait_until, write_yaml
from tests.slurm_bench import BACKENDS, LONG, STEPS, Bench

pytestmark = pytest.mark.slurm

DEVICES = re.compile(r" (?P<devices>\d+) +\d+(_\d+)? +n\d,n\d ")  # of a row of status: with its job and nodes
SPREAD: dict[str, Any] = {"nodes": 2, "trial_devices": 4, "gpus": 0, "cpus": 2}


def write(bench: Bench, backend: str, steps: int = 0, **grid: Any) -> Path:
    """A trial in four microbatches that takes some seconds and saves its state often."""
    number = steps or STEPS[backend]
    given = base(
        backend=backend,
        model={"num_blocks": 2, "dropout": 0.1},
        data={"augment": {"flip": True, "mixup": 0.4}},
        train={"steps": number, "evaluate_every": number // 3, "microbatches": 4},
        run={"checkpoint_every_s": 0.2, "threads": 1, "device": "cpu"},
    )
    return write_yaml(bench.folder / "grid.yaml", base=given, grid=grid or {"seed": [0]})


def processes(bench: Bench, what: str, rank: int) -> list[psutil.Process]:
    """Processes of the tasks of some rank whose command has a word. Other tests have clusters of their own here."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            own = {"SLURM_PROCID": str(rank), "SLURM_CONF": bench.variables["SLURM_CONF"]}
            is_wanted = own.items() <= environment.items()
            if is_wanted and any(what in word for word in process.cmdline()) and "python" in process.name():
                found.append(process)
        except psutil.Error:
            continue
    return found


def assert_bits_of_one_device(bench: Bench, path: Path) -> None:
    bench.wait_empty()
    expected, found = bench.reference(path), records(bench.store.root)
    assert set(found) == set(expected)
    for key, record in expected.items():
        assert found[key]["status"] == "done", found[key]["reason"]
        assert (found[key]["bits"], found[key]["curve"]) == (record["bits"], record["curve"])


def is_spread(session: dict[str, Any]) -> bool:
    return (session["devices"], session["nodes"]) == (4, 2)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_trial_of_two_nodes_has_the_bits_of_one_device_beside_packs_of_single_trials(
    bench: Bench, backend: str
) -> None:
    path = write(bench, backend, 240, **{"train.microbatches": [1, 4]})
    rule = {"match": {"train.microbatches": 4}, **SPREAD}
    bench.submit(path, pack=1, gpus=0, when=[rule], report=True)
    assert_bits_of_one_device(bench, path)
    found = {record["spec"]["train"]["microbatches"]: record for record in records(bench.store.root).values()}
    assert [len(record["sessions"]) for record in found.values()] == [1, 1]
    assert [parts for parts, record in found.items() if "devices" in record["sessions"][0]] == [4]
    assert is_spread(found[4]["sessions"][0]) and found[4]["seconds"]["exchange"] > 0
    table = (bench.store.root / "ablations" / "grid" / "report" / "table.txt").read_text()
    assert table == bench.mixlab("report", str(path)).out and "microbatches" in table


def test_status_shows_the_devices_and_the_nodes_of_a_trial_that_runs(bench: Bench) -> None:
    bench.submit(write(bench, "quick", 300), **SPREAD)
    bench.wait_running()
    row = wait_until(lambda: DEVICES.search(bench.mixlab("status", "grid").out), "its nodes are shown")
    assert row["devices"] == "4"


def warned(bench: Bench, trial_id: str) -> None:
    bench.slurm("scancel", "--signal=USR2", bench.owner(trial_id)["job"])


def preempted(bench: Bench, trial_id: str) -> None:
    high = ["-p", "high", "--nodes=4", "--ntasks=4", "--exclusive", "--time=1", "--output=/dev/null", "--wrap=sleep 1"]
    bench.slurm("sbatch", *high)


def requeued(bench: Bench, trial_id: str) -> None:
    bench.slurm("scontrol", "requeue", bench.owner(trial_id)["job"])


def node_down(bench: Bench, trial_id: str) -> None:
    """That of the last rank."""
    nodes = bench.slurm("squeue", "-h", "-j", bench.owner(trial_id)["job"], "-o", "%N")
    node = bench.slurm("scontrol", "show", "hostnames", nodes).split()[-1]
    bench.slurm("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")


def task_killed(bench: Bench, trial_id: str) -> None:
    """The task of the last rank, whose own process ends with it."""
    (task,) = processes(bench, "_submit", 3)
    task.kill()


@pytest.mark.parametrize("fault", [warned, preempted, requeued, node_down, task_killed])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_job_of_several_nodes_goes_back_into_the_queue_and_loses_nothing(
    bench: Bench, backend: str, fault: Any
) -> None:
    path = write(bench, backend)
    bench.submit(path, **SPREAD)
    (trial_id,) = bench.wait_running()
    fault(bench, trial_id)
    restart = wait_until(lambda: bench.owner(trial_id).get("restart") or records(bench.store.root), "it goes on")
    assert restart == 1 or isinstance(restart, dict)
    assert_bits_of_one_device(bench, path)
    sessions = records(bench.store.root)[trial_id]["sessions"]
    assert len(sessions) == 2 and all(map(is_spread, sessions)) and sessions[1]["first_step"] > 0


@pytest.mark.parametrize("backend", ["torch", "jax"] if LONG else ["torch"])
def test_a_process_of_another_node_that_is_killed_is_named_and_its_group_begins_again(
    bench: Bench, backend: str
) -> None:
    """In the same start of the job: its task waits for the next group. The errors of the others are not the cause."""
    path = write(bench, backend, 300)
    bench.submit(path, **SPREAD)
    bench.wait_running()
    (process,) = processes(bench, "spawn_main", 3)
    process.send_signal(signal.SIGKILL)
    assert_bits_of_one_device(bench, path)
    (record,) = records(bench.store.root).values()
    assert len(record["sessions"]) == 2 and record["sessions"][1]["first_step"] > 0
    told = bench.mixlab("logs", "grid").out
    assert "rank 3 on n2: its process was killed by signal SIGKILL" in told, told
    (file,) = bench.store.root.glob("ablations/grid/jobs/*/ranks/*.json")
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_job_of_several_nodes_that_is_cancelled_leaves_no_process_and_is_tried_again(bench: Bench) -> None:
    path = write(bench, "quick")
    bench.submit(path, **SPREAD)
    (trial_id,) = bench.wait_running()
    job = bench.owner(trial_id)["job"]
    all_of_them = [process for rank in range(4) for process in processes(bench, "spawn_main", rank)]
    assert len(all_of_them) == 4
    bench.slurm("scancel", job)
    bench.wait_empty()
    wait_until(lambda: not any(process.is_running() for process in all_of_them), "no process is left")
    assert bench.states()[trial_id] == "lost"
    bench.mixlab("retry", "grid", "--lost")
    assert_bits_of_one_device(bench, path)
    assert len(records(bench.store.root)[trial_id]["sessions"]) == 2


def test_two_jobs_of_several_nodes_do_not_meet(bench: Bench) -> None:
    path = write(bench, "quick", seed=[0, 1, 2])
    bench.submit(path, **SPREAD, pack=1)
    assert len(bench.wait_running(2)) >= 2
    assert_bits_of_one_device(bench, path)
    assert all(is_spread(one["sessions"][0]) for one in records(bench.store.root).values())
    assert len(list(bench.store.root.glob("ablations/grid/jobs/*/ranks/*.json"))) == 3
