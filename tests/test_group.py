"""A trial on several devices: the same bits on any number of them, and none is lost with one of them."""

import functools
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from backends.errors import MixlabError
from tests.conftest import base, command, end, records, start, wait_until, write_yaml

LONG = os.environ.get("MIXLAB_GROUPS") == "long"
AUGMENT: dict[str, Any] = {"flip": True, "crop": 1, "mixup": 0.4}
ON_HOST: dict[str, Any] = {"inception": "tf", "cutmix": 1.0, "flip": True}
FAST = {"checkpoint_every_s": 0.0}
LASTING: dict[str, Any] = {"steps": 600, "train": {"evaluate_every": 200}, "run": FAST}


def ablation(folder: Path, backend: str, steps: int = 6, **values: Any) -> Path:
    """A trial with all that is drawn, in four microbatches, on one core a process."""
    given = base(
        backend=backend,
        model={"dropout": 0.1, "stochastic_depth": 0.3, **values.get("model", {})},
        data={"num_examples": 700, "augment": AUGMENT, **values.get("data", {})},
        train={"steps": steps, "microbatches": 4, "evaluate_every": 3, **values.get("train", {})},
        run={"threads": 1, "device": "cpu", **values.get("run", {})},
    )
    return write_yaml(folder / "one.yaml", base=given, grid={"seed": [0]})


def bits_of(store: Path) -> dict[str, Any]:
    (record,) = records(store).values()
    assert record["status"] == "done", record["reason"]
    return {"bits": record["bits"], "curve": record["curve"]}


def trained(folder: Path, devices: int, *words: str, store: str = "", **variables: str) -> dict[str, Any]:
    """What became of the trial on so many devices, in a store of its own."""
    store = store or f"on-{devices}"
    ended = command(folder, "run", "one.yaml", f"run.devices={devices}", *words, "--store", store, **variables)
    assert ended.code == 0 and "Gloo" not in ended.out, ended
    return bits_of(folder / store)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_the_bits_do_not_depend_on_the_number_of_devices(backend: str, tmp_path: Path) -> None:
    """Of the state, and of each evaluation, whose batches are shared out."""
    ablation(tmp_path, backend, data={"augment": ON_HOST} if backend == "jax" else {})
    one = trained(tmp_path, 1)
    for devices in (2, 4) if LONG else (2,):
        assert trained(tmp_path, devices) == one
    shared = "run.sharded_optimizer=true"
    assert trained(tmp_path, 4 if LONG else 2, shared, store="shared") == one
    ended = command(tmp_path, "compare", "on-1", "on-2", "--bits")
    assert ended.code == 0 and "1 trial in both: 1 same bits" in ended.out
    (record,) = records(tmp_path / "on-2").values()
    assert record["seconds"]["exchange"] > 0 and record["sessions"][0]["devices"] == 2
    assert record["sessions"][0]["nodes"] == 1


def test_bits_that_differ_are_told(quick: Path, tmp_path: Path) -> None:
    ablation(tmp_path, "quick")
    for store in ("a", "b"):
        assert command(tmp_path, "run", "one.yaml", "--store", store, PYTHONPATH=str(quick)).code == 0
    (path,) = (tmp_path / "b").glob("trials/*/record.json")
    own = bits_of(tmp_path / "b")["bits"]
    path.write_text(path.read_text().replace(own, "00000000"))
    ended = command(tmp_path, "compare", "a", "b", "--bits")
    assert ended.code == 1 and "1 other bits" in ended.out and "00000000" in ended.out and " against " not in ended.out
    assert command(tmp_path, "compare", "a", "--bits").code == 2
    path.rename(path.with_suffix(".away"))
    ended = command(tmp_path, "compare", "a", "b", "--bits")
    assert ended.code == 1 and "0 trials in both: none" in ended.out


def test_a_trial_goes_on_with_other_devices_and_in_the_other_framework(tmp_path: Path) -> None:
    """2 devices, then 4, then 1: the bits of one. From torch to jax: up to rounding."""
    ablation(tmp_path, "torch", **LASTING)
    one = trained(tmp_path, 1)
    stopped(tmp_path, 2)
    stopped(tmp_path, 4, "run.sharded_optimizer=true")
    assert command(tmp_path, "run", "one.yaml", "--store", "parts").code == 0
    assert bits_of(tmp_path / "parts") == one
    (record,) = records(tmp_path / "parts").values()
    assert [session.get("devices", 1) for session in record["sessions"]] == [2, 4, 1]
    stopped(tmp_path, 2, store="other")
    words = ("run.devices=2", "--resume-on", "jax", "--store", "other")
    assert command(tmp_path, "run", "one.yaml", *words).code == 0
    last, theirs = (curve["curve"][-1]["test"]["loss"] for curve in (one, bits_of(tmp_path / "other")))
    assert theirs == pytest.approx(last, rel=1e-4)
    ended = command(tmp_path, "compare", "on-1", "other", "--bits")
    assert ended.code == 1 and re.search(r"^\w{12}: torch against torch, then jax$", ended.out, re.MULTILINE)


def stopped(folder: Path, devices: int, *words: str, store: str = "parts") -> None:
    """Go on on so many devices, and stop after some steps."""
    before = newest(folder / store)
    process = start(folder, "run", "one.yaml", f"run.devices={devices}", *words, "--store", store)
    wait_until(lambda: newest(folder / store) > before, "a checkpoint is written")
    process.send_signal(signal.SIGINT)
    assert end(process).code == 130


def newest(store: Path) -> int:
    from experiments.results import checkpoint

    found = [checkpoint.newest_step(path) for path in store.glob("trials/*/checkpoint.safetensors")]
    return max(found, default=0)


def processes_of(process: "subprocess.Popen[str]") -> list[int]:
    """The leader, and those that follow it."""
    (leader,) = wait_until(lambda: children(process.pid), "the worker begins")
    return [leader, *wait_until(lambda: children(leader), "the others begin")]


def children(pid: int) -> list[int]:
    """Processes that this one has started, but for Python's own helper of shared resources."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True
    ).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "spawn_main" in line]


MOMENTS = random.Random(0)
FAULTS = [(signal.SIGKILL, 0), (signal.SIGKILL, 1)] + ([(signal.SIGSTOP, 0), (signal.SIGSTOP, 1)] if LONG else [])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alone")


@functools.cache
def undisturbed(folder: Path, backend: str) -> dict[str, Any]:
    """Of the trial on one device."""
    folder.mkdir()
    ablation(folder, backend, **LASTING)
    return trained(folder, 1)


@pytest.mark.parametrize("number", range(10 if LONG else 1))
@pytest.mark.parametrize(("fault", "rank"), FAULTS)
@pytest.mark.parametrize("backend", ["torch", "jax"] if LONG else ["torch"])
def test_a_process_that_dies_or_hangs_ends_its_group_and_nothing_is_lost(
    backend: str, fault: signal.Signals, rank: int, number: int, alone: Path, tmp_path: Path
) -> None:
    ablation(tmp_path, backend, **LASTING)
    one = undisturbed(alone / backend, backend)
    process = start(tmp_path, "run", "one.yaml", "run.devices=2", "--store", "cut")
    all_of_them = processes_of(process)
    wait_until(lambda: newest(tmp_path / "cut") > 0, "a checkpoint is written")
    time.sleep(MOMENTS.random())
    os.kill(all_of_them[rank], fault)
    cut = time.monotonic()
    ended = end(process)
    assert time.monotonic() - cut < 30 and ended.code == 1, ended.out
    wait_until(lambda: not [pid for pid in all_of_them if is_running(pid)], "all processes have ended", 30)
    if fault == signal.SIGSTOP:
        assert f"rank {rank} on {os.uname().nodename}: it has given no sign of life for 20 s" in ended.out
    else:
        assert f"rank {rank} on {os.uname().nodename}: its process was killed by signal SIGKILL" in ended.out
    assert re.search(r"mixlab: saved: \w{12} at step [1-9]\d*; run again to go on from there", ended.err)
    assert command(tmp_path, "run", "one.yaml", "run.devices=2", "--store", "cut").code == 0
    assert bits_of(tmp_path / "cut") == one


def is_running(pid: int) -> bool:
    """Whether it is there, and is no zombie that nobody waits for."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_what_a_follower_says_is_the_cause(quick: Path, tmp_path: Path) -> None:
    ablation(tmp_path, "quick", steps=40, run=FAST)
    ended = command(tmp_path, "run", "one.yaml", "run.devices=2", PYTHONPATH=str(quick), QUICK_FOLLOWER_FAILS_AT="3")
    (record,) = records(tmp_path / "runs").values()
    assert ended.code == 1 and record["cause"] == "out_of_memory"
    assert record["reason"] == f"rank 1 on {os.uname().nodename}: RuntimeError: out of memory"


def test_devices_are_dealt_out_to_the_jobs() -> None:
    from experiments.running.pool import Pool, Slot
    from experiments.spec.config import RunConfig

    pool = Pool(jobs=2, devices=("cuda:0", "cuda:1", "cuda:2", "cuda:3"))
    slots = [Slot((0, 1), pool.devices_of(i)) for i in range(2)]
    given = [device for slot in slots for _, device in slot.places(RunConfig(devices=2))]
    assert sorted(str(one) for one in given) == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
    assert [cpus for cpus, _ in slots[0].places(RunConfig(devices=2))] == [(0,), (1,)]
    assert [one for _, one in Slot((0,)).places(RunConfig(device="cuda", devices=2))] == ["cuda:0", "cuda:1"]
    assert [one for _, one in Slot((0,)).places(RunConfig(device="cpu", devices=2))] == [None, None]
    assert [one for _, one in Slot((0,)).places(RunConfig())] == [None]


@pytest.mark.parametrize(("jobs", "num", "devices", "fits"), [(1, 4, 4, True), (2, 4, 2, True), (2, 4, 4, False),
                         (4, 4, 2, False), (2, 3, 2, False), (3, 2, 1, True), (2, 0, 4, True)])  # fmt: skip
def test_no_two_processes_of_a_trial_get_one_device(jobs: int, num: int, devices: int, fits: bool) -> None:
    from experiments.running.pool import Pool, Slot
    from experiments.spec.config import RunConfig

    pool, run = Pool(jobs=jobs, devices=tuple(f"cuda:{i}" for i in range(num))), RunConfig(devices=devices)
    if not fits:
        with pytest.raises(MixlabError, match=f"run.devices: {devices} devices train a trial, and {jobs} jobs share"):
            pool.check_devices([run])
        return
    pool.check_devices([run])
    for job in range(jobs):
        given = [device for _, device in Slot((0,), pool.devices_of(job)).places(run)]
        assert len(set(given)) == devices


def test_a_device_that_is_given_twice_is_refused_where_a_trial_takes_several() -> None:
    from experiments.running.pool import Pool
    from experiments.spec.config import RunConfig

    pool = Pool(devices=("cuda:0", "cuda:1", "cuda:0"))
    with pytest.raises(MixlabError, match=r"devices: cuda:0 is given twice, and run\.devices=2 .*; name each once"):
        pool.check_devices([RunConfig(devices=2)])
    pool.check_devices([RunConfig()])
    Pool(devices=("cpu", "cpu")).check_devices([RunConfig(devices=2)])


def test_as_many_trials_at_a_time_as_the_devices_can_train(quick: Path, tmp_path: Path) -> None:
    """Four devices of a trial each would be two trials on the same ones."""
    ablation(tmp_path, "quick", run={"device": "cuda"})
    words = ("run.devices=2", "--devices", "cuda:0,cuda:1,cuda:2,cuda:3")
    assert command(tmp_path, "run", "one.yaml", *words, PYTHONPATH=str(quick)).code == 0
    ended = command(tmp_path, "run", "one.yaml", *words, "--jobs", "4", "--store", "b", PYTHONPATH=str(quick))
    assert ended.code == 2 and "take fewer jobs or more devices" in ended.err


def test_after_a_trial_that_does_not_fit_the_group_trains_the_next(quick: Path, tmp_path: Path) -> None:
    """The others have answered for the one that was refused, and are in step."""
    path = ablation(tmp_path, "quick", run={"devices": 2})
    tree = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**tree, "grid": {"model.hidden_dim": [2**20, 8, 16]}}))
    ended = command(tmp_path, "run", "one.yaml", PYTHONPATH=str(quick))
    found = records(tmp_path / "runs").values()
    causes = sorted(str(record.get("cause")) for record in found)
    assert ended.code == 1 and causes == ["None", "None", "out_of_memory"]
