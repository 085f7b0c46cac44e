"""Trials on the devices of one or several nodes: what a job asks for, and how its tasks come together."""

import importlib
import os
import secrets
import signal
import socket
import threading
import time
from dataclasses import replace
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any

import pytest

from backends.errors import MixlabError
from backends.microbatches import Group
from experiments.running import meeting
from experiments.running.events import Ended
from experiments.running.failures import NODE_LOST, Failure, GroupLost
from experiments.running.rendezvous import Rendezvous
from experiments.spec.config import RunConfig
from slurm import options
from slurm.batch import Ask, Batch
from slurm.cluster_keys import cluster_from
from slurm.needs import Needs
from slurm.ranks import Rank
from slurm.work import cores
from tests.conftest import base, planned, wait_until, write_yaml
from tests.group_bench import Processes


@pytest.mark.parametrize(
    ("needs", "tasks", "jobs"),
    [
        (Needs(gpus=4), 1, 4),
        (Needs(gpus=4, share=2), 1, 8),
        (Needs(gpus=4, trial_devices=2), 1, 2),
        (Needs(gpus=3, trial_devices=2), 1, 1),
        (Needs(gpus=0, trial_devices=4, share=2), 1, 2),
        (Needs(gpus=4, trial_devices=8, nodes=2, cpus=8), 4, 1),
        (Needs(gpus=0, trial_devices=2, nodes=2), 1, 1),
    ],
)
def test_the_processes_of_a_trial_are_tasks_where_there_are_several_nodes(needs: Needs, tasks: int, jobs: int) -> None:
    needs.check()
    assert (needs.tasks, needs.jobs) == (tasks, jobs)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"nodes": 2, "trial_devices": 3}, "nodes: expected a number that divides the 3 devices of a trial, got 2"),
        ({"nodes": 2, "gpus": 4, "trial_devices": 4}, "trial_devices: expected 8, all GPUs of 2 nodes with 4, got 4"),
        ({"gpus": 2, "trial_devices": 4}, "gpus: expected 4 or more .*, got 2; or set nodes: 2"),
        ({"gpus": 4, "trial_devices": 4, "share": 2}, "share: expected 1 for trials on 4 devices, got 2"),
        ({"nodes": 2, "trial_devices": 4, "cpus": 3}, "cpus: expected a multiple of 2"),
        ({"nodes": 2, "trial_devices": 4, "cpus": 2, "sbatch": {"gpus": 4}}, "trial_devices: expected 8"),
        ({"nodes": 2, "trial_devices": 8, "cpus": 4, "sbatch": {"gpus": 4}}, "sbatch: gpus: expected the GPUs of each"),
    ],
)
def test_devices_that_are_not_those_of_the_nodes_are_refused(keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MixlabError, match=sentence):
        cluster_from(keys, "c.yaml")


def test_a_trial_says_how_many_devices_it_needs_and_the_cluster_file_may_say_others(
    cache: Path, tmp_path: Path
) -> None:
    path = write_yaml(tmp_path / "a.yaml", base=base(train={"microbatches": 4}, run={"devices": 2}))
    trial = planned(path, cache)[0]
    cluster = cluster_from({"gpus": 4}, "c.yaml")
    assert cluster.needs("torch", trial) == replace(cluster.needs("torch"), trial_devices=2)
    assert replace(cluster, trial_devices=4).needs("torch", trial).devices == 4
    with pytest.raises(MixlabError, match=r"trial_devices: expected a divisor of train.microbatches, 4 in .*, got 3"):
        replace(cluster, trial_devices=3).needs("torch", trial)
    with pytest.raises(MixlabError, match="gpus: expected 2 or more"):
        replace(cluster, gpus=1).needs("torch", trial)
    alone = planned(write_yaml(tmp_path / "b.yaml"), cache)[0]
    with pytest.raises(MixlabError, match="nodes: expected a number that divides the 1 device of a trial, got 2"):
        replace(cluster, nodes=2).needs("torch", alone)


def test_nodes_is_a_key_and_no_option_twice() -> None:
    assert cluster_from({"sbatch": {"nodes": 2}, "trial_devices": 2}, "c.yaml").nodes == 2
    with pytest.raises(MixlabError, match="sbatch: nodes and the key nodes ask for the same"):
        cluster_from({"sbatch": {"nodes": 2}, "nodes": 2}, "c.yaml")
    assert "the key for it is 'nodes'" in str(options.hint("N") or options.hint("nodes"))


def test_the_batch_script_starts_a_task_for_each_process(fake: Any, tmp_path: Path) -> None:
    fake(srun="", sbatch="")
    keys = {"nodes": 2, "trial_devices": 4, "gpus": 2, "cpus": 4}
    cluster = cluster_from(keys, "c.yaml")
    needs = cluster.needs("torch")
    ask = Ask(cluster, needs, cluster.environment("torch"), tmp_path, (), needs.nodes, needs.tasks)
    lines = Batch(tmp_path / "slurm", "name", ask).text(1).splitlines()
    for option in ("--nodes=2", "--ntasks-per-node=2", "--cpus-per-task=2", "--gpus-per-node=2"):
        assert f"#SBATCH {option}" in lines
    (started,) = (line for line in lines if line.startswith("srun "))
    assert all(word in started for word in ("--cpus-per-task=2", "--kill-on-bad-exit=1", "--wait=0"))


def test_tasks_of_a_node_take_other_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setenv("SLURM_JOB_ID", "3")
    assert [cores(2, place, 4) for place in range(4)] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert cores(2) == (6, 7)


def test_a_task_takes_its_own_of_the_gpus_that_it_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_LOCALID", "1")
    for seen, device in (("0,1", "auto:1"), ("1", None), ("", None)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
        assert Rank.of_this_job().device == device


def test_each_start_of_a_job_meets_at_a_place_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    places = set()
    for job, step, restart in (("7", "0", "0"), ("7", "0", "1"), ("7", "1", "0"), ("8", "0", "0")):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("SLURM_STEP_ID", step)
        monkeypatch.setenv("SLURM_RESTART_COUNT", restart)
        places.add(Rank.of_this_job().rendezvous(tmp_path, 1).path)
    assert len(places) == 4


def test_an_invitation_is_its_users_alone_and_the_next_one_has_the_next_number(tmp_path: Path) -> None:
    place = Rendezvous(tmp_path / "ranks" / "7.json", "n1", 4)
    assert place.invitation() is None
    before = os.umask(0)
    try:
        place.invite(5, b"\1\2", "torch", 3)
    finally:
        os.umask(before)
    first = place.invitation()
    assert first and (first.number, first.address, first.key, first.num_cpus) == (1, ("n1", 5), "0102", 3)
    assert place.path.stat().st_mode & 0o777 == 0o600
    place.invite(6, b"\1\2", "torch", 3)
    place.close()
    last = place.invitation()
    assert last and last.is_over and last.number == 3


def test_processes_of_several_nodes_have_a_device_each(tmp_path: Path) -> None:
    """Of eight devices of a trial on four nodes two are here."""
    from experiments.running.pool import Pool

    place = Rendezvous(tmp_path, "n1", 8, num_here=2)
    Pool(devices=("auto:0",), rendezvous=place).check_devices([RunConfig(devices=8)])
    with pytest.raises(MixlabError, match="8 devices train a trial, and 1 job has auto:0"):
        Pool(devices=("auto:0",)).check_devices([RunConfig(devices=8)])


def group_of(key: bytes, come: Any, size: int = 2) -> list[meeting.Member]:
    """Those that come, as their leader sees them.  Args: come: called with the address."""
    with Listener(("127.0.0.1", 0), backlog=8) as listener:
        threading.Thread(target=come, args=(listener.address,), daemon=True).start()
        return meeting.met(listener, key, size, {})


def test_a_task_that_does_not_come_is_a_lost_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "JOIN_S", 0.5)
    with pytest.raises(GroupLost, match=r"rank 1: its task did not come within 0 s") as lost:
        group_of(b"key", lambda address: None)
    assert lost.value.failure.cause == NODE_LOST


def test_a_task_that_goes_before_all_have_come_is_a_lost_node() -> None:
    with pytest.raises(GroupLost, match=r"rank 1 on .*: its task is gone") as lost:
        group_of(b"key", lambda address: meeting.connected(1, meeting.TASK, address, b"key").close())
    assert lost.value.failure.cause == NODE_LOST


def test_a_process_that_ends_before_all_have_come_is_named_by_its_task() -> None:
    def come(address: tuple[str, int]) -> None:
        held.append(meeting.connected(1, meeting.TASK, address, b"key"))
        held[0].send(Failure("killed", "its process ended with exit code 1"))

    held: list[Any] = []
    with pytest.raises(GroupLost, match=r"rank 1 on .*: its process ended with exit code 1") as lost:
        group_of(b"key", come)
    assert lost.value.failure.cause == "killed"


def test_who_does_not_know_the_key_is_not_let_in() -> None:
    key, held = secrets.token_bytes(16), []

    def come(address: tuple[str, int]) -> None:
        with pytest.raises((AuthenticationError, EOFError, ConnectionError)):
            Client(address, authkey=b"other")
        held.extend(meeting.connected(1, what, address, key) for what in EVERY)

    (member,) = group_of(key, come)
    assert member.rank == 1 and member.task is not None and len(held) == 3


EVERY = (meeting.TOLD, meeting.BEATS, meeting.TASK)


def test_strangers_do_not_keep_a_group_from_meeting() -> None:
    """One that speaks another language, and one that says nothing."""
    key, held = secrets.token_bytes(16), list[Any]()

    def come(address: tuple[str, int]) -> None:
        for words in (b"", b"GET / HTTP/1.0\r\n\r\n"):
            held.append(socket.create_connection(address))
            held[-1].sendall(words)
        time.sleep(0.5)
        held.extend(meeting.connected(1, what, address, key) for what in EVERY)

    (member,) = group_of(key, come)
    assert member.rank == 1 and len(held) == 5


def test_who_comes_first_hears_its_leader_wait_for_the_others() -> None:
    """Else it would take it for hung."""
    key, held, heard = secrets.token_bytes(16), list[Any](), list[bool]()

    def come(address: tuple[str, int]) -> None:
        held.extend(meeting.connected(1, what, address, key) for what in EVERY)
        heard.append(held[1].poll(5))
        held.extend(meeting.connected(2, what, address, key) for what in EVERY)

    assert len(group_of(key, come, size=3)) == 2 and heard == [True]


def test_nobody_listens_any_more_once_all_have_come() -> None:
    key, held, before = secrets.token_bytes(16), list[Any](), threading.active_count()
    group_of(key, lambda address: held.extend(meeting.connected(1, what, address, key) for what in EVERY))
    wait_until(lambda: threading.active_count() == before, "the threads have ended")


@pytest.mark.parametrize(("failed", "code"), [({}, 1), ({"a": "boom"}, 1)])
def test_a_job_that_cannot_tell_its_tasks_that_all_is_over_ends_them_by_its_code(
    failed: dict[str, str], code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from experiments.running.pool import Summary
    from slurm import work as slurm_work

    class Rest:
        rendezvous, _code = Rendezvous(tmp_path / "7.json", "n1", 4), slurm_work.Work._code

    assert slurm_work.Work.end(Rest(), Summary()) == 0  # type: ignore[arg-type]

    def full(self: Rendezvous) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Rendezvous, "close", full)
    assert slurm_work.Work.end(Rest(), Summary(failed=failed)) == code  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_framework_leaves_the_signals_of_its_process_alone(backend: str) -> None:
    """A worker saves its trial at SIGTERM, on one device as in a group."""
    processes = Processes(backend, 2)
    try:
        assert processes.do(catches_sigterm) == [False, False]
    finally:
        processes.end()


def catches_sigterm(backend: Any, group: Any) -> bool:
    """Whether something catches SIGTERM, for which nobody has asked."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return bool(int(status["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize(("asked", "used", "left"), [(None, "lo", None), ("eth7", "eth7", "eth7")])
def test_torch_exchanges_over_the_interface_that_reaches_the_leader(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, used: str, left: str | None
) -> None:
    """And a process that is started from this one, for another leader, has its own choice."""
    ranks = importlib.import_module("backends.torch.ranks")
    name, seen = "GLOO_SOCKET_IFNAME", []
    monkeypatch.setenv(name, asked) if asked else monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ranks.dist, "init_process_group", lambda *_: seen.append(os.environ.get(name)))
    monkeypatch.setattr(ranks, "summed", lambda *_: None)
    ranks.join(Group(0, 2), f"{meeting.LOCAL}:1", 1.0)
    assert seen == [used] and os.environ.get(name) == left


def test_a_lost_node_ends_the_job_and_no_trial(monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path) -> None:
    from experiments.results.store import Store
    from experiments.running.opener import WorkerSpec
    from experiments.running.worker import Worker

    sent: list[Any] = []
    trial = planned(write_yaml(tmp_path / "a.yaml"), cache)[0].trial
    lost = GroupLost(Failure(NODE_LOST, "rank 1: its task is gone"))

    def fail(self: Worker, *given: Any) -> None:
        raise lost

    monkeypatch.setattr(Worker, "_train", fail)
    spec = WorkerSpec("torch", (0,), tmp_path / "runs", cache, {}, tmp_path, 0.0)
    Worker(spec, threading.Event(), sent.append).run(trial)
    assert [event.how for event in sent if isinstance(event, Ended)] == ["error"]
    assert Store(tmp_path / "runs").recorded_status(trial.id) is None


def test_a_job_that_has_lost_a_node_goes_back_into_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments.running.pool import Summary
    from slurm import work as slurm_work

    class Rest:
        rendezvous, _code = None, slurm_work.Work._code

    monkeypatch.setattr(slurm_work, "requeue", lambda: 77)
    lost = Summary(error=Failure(NODE_LOST, "rank 1: its task is gone"))
    assert slurm_work.Work.end(Rest(), lost) == 77  # type: ignore[arg-type]
