"""The testbed: its configuration, what it refuses, and a real Slurm that goes up, breaks, recovers and goes down."""

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backends.errors import MixlabError
from slurm.testbed import config, daemons, network, processes
from slurm.testbed import down as down_module
from slurm.testbed import up as up_module
from slurm.testbed.cluster import Cluster
from slurm.testbed.config import Options, Site
from slurm.testbed.daemons import missing
from slurm.testbed.down import down
from slurm.testbed.layout import Layout
from slurm.testbed.up import up

from .conftest import ROOT, TIMEOUT_S

SITE = Site(
    layout=Layout(Path("/tmp/bed")),
    user="ada",
    host="here",
    ports=(10001, 10002, 10003, 10004, 10005, 10006),
    communication="",
    first_job_id=71,
)
LIGHT = Options(nodes=1, accounting=False)


def slurm_conf(**options) -> dict[str, list[str]]:
    """The lines of slurm.conf by their first key."""
    conf: dict[str, list[str]] = {}
    for line in config.slurm_conf(SITE, Options(**options)).splitlines():
        key, _, value = line.partition("=")
        conf.setdefault(key, []).append(value)
    return conf


def test_preempted_jobs_are_warned_and_requeued():
    conf = slurm_conf()
    assert conf["PreemptType"] == ["preempt/partition_prio"]
    assert conf["PreemptMode"] == ["REQUEUE"]
    assert "preempt_send_user_signal" in conf["SlurmctldParameters"][0]
    low, high = (dict(word.split("=") for word in f"Name={line}".split()) for line in conf["PartitionName"])
    assert low["Name"] == "low" and low["Default"] == "YES" and low["PreemptMode"] == "REQUEUE"
    assert int(low["GraceTime"]) == 10
    assert high["Name"] == "high" and int(high["PriorityTier"]) > int(low["PriorityTier"])


def test_nodes_are_declared_as_asked():
    wanted = ["n1 NodeHostname=here NodeAddr=127.0.0.1 Port=10003 CPUs=8 RealMemory=900 Gres=gpu:3"]
    assert slurm_conf(cpus=8, memory_mib=900, gpus=3)["NodeName"][:1] == wanted
    assert [line.split()[0] for line in slurm_conf(ip_names=True)["NodeName"]] == [f"127.0.0.{n}" for n in (2, 3, 4, 5)]
    assert "Gres" not in slurm_conf(gpus=0)["NodeName"][0]
    lines = config.gres_conf(SITE, Options(gpus=2)).splitlines()
    assert lines[1] == "NodeName=n1 Name=gpu File=/tmp/bed/dev/nvidia0,/tmp/bed/dev/nvidia1" and len(lines) == 5


def test_limits_of_arrays_and_jobs():
    conf = slurm_conf()
    assert (conf["MaxArraySize"], conf["MaxJobCount"]) == (["10001"], ["20000"])


def test_a_setting_replaces_its_line_or_is_added():
    conf = slurm_conf(settings=("maxarraysize=11", "SlurmctldDebug=debug", "PartitionName=low Nodes=n1", "MinJobAge=2"))
    assert "MaxArraySize" not in conf and conf["maxarraysize"] == ["11"]
    assert conf["SlurmctldDebug"] == ["debug"] and conf["MinJobAge"] == ["2"]
    assert conf["PartitionName"][0] == "low Nodes=n1" and len(conf["PartitionName"]) == 2


def test_memory_is_watched_only_on_demand():
    assert slurm_conf()["JobAcctGatherType"] == ["jobacct_gather/none"]
    conf = slurm_conf(over_memory=True)
    assert conf["JobAcctGatherType"] == ["jobacct_gather/linux"]
    assert conf["JobAcctGatherFrequency"] == ["task=1"] and conf["JobAcctGatherParams"] == ["OverMemoryKill"]


def test_accounting_off_names_no_database():
    conf = slurm_conf(accounting=False)
    assert conf["AccountingStorageType"] == ["accounting_storage/none"]
    assert "AccountingStorageHost" not in conf
    assert slurm_conf()["AccountingStoragePort"] == ["10002"] and "DbdPort=10002" in config.slurmdbd_conf(SITE)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"nodes": 0}, "nodes: expected a number from 1 to 250, got 0"),
        ({"gpus": -1}, "gpus: expected a number from 0 to 250, got -1"),
        ({"memory_mib": 0}, "memory: expected 1 MiB or more, got 0"),
        ({"settings": ("MaxArraySize",)}, "set: expected Key=Value, such as MaxArraySize=11, got 'MaxArraySize'"),
        (
            {"settings": ("NodeName=n9",)},
            "set: 'NodeName=n9': --nodes, --cpus, --memory and --gpus set the nodes; leave this line out",
        ),
    ],
)
def test_impossible_options_are_refused(options, sentence):
    with pytest.raises(MixlabError) as refused:
        Options(**options)
    assert str(refused.value) == sentence


def test_the_longest_directory_is_the_one_whose_longest_socket_fits(tmp_path):
    socket_of_a_step = "/spool/n1/n1_67043328.4294967291"  # MaxJobId of Slurm and the step of a batch script
    room = 107 - len(socket_of_a_step) - len(f"{tmp_path}/")
    Layout(tmp_path / ("x" * room)).check(("n1",))
    with pytest.raises(MixlabError, match="1 characters too long, since the path of a unix socket"):
        Layout(tmp_path / ("x" * (room + 1))).check(("n1",))


def test_directories_of_others_are_neither_used_nor_removed(tmp_path, capsys):
    (tmp_path / "thesis.tex").touch()
    assert up_module.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("holds other files (thesis.tex); give a new or empty directory\n")
    assert down_module.main([str(tmp_path), "--purge"]) == 2
    assert capsys.readouterr().err.endswith("holds no cluster, so it is not removed\n")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(MixlabError, match="as Slurm's files need it"):
        up(tmp_path / "with space")


def test_the_cluster_of_another_user_is_left_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("os.geteuid", lambda: tmp_path.stat().st_uid + 1)
    for module in (up_module, down_module):
        assert module.main([str(tmp_path)]) == 2
        assert capsys.readouterr().err.endswith(": it belongs to another user; give a directory of your own\n")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert down_module.main([str(tmp_path)]) == 0


def test_what_is_missing_is_said_with_its_packages(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(daemons, "SYSTEM_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    for program in daemons.PROGRAMS + daemons.ACCOUNTING_PROGRAMS:
        (tmp_path / program).touch(0o755)
    assert missing(accounting=True) is None
    (tmp_path / "mariadbd").unlink()
    assert missing(accounting=False) is None
    (tmp_path / "munged").unlink()
    install = "to install: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"
    assert missing(accounting=False) == f"Slurm's testbed needs munged; {install}"
    database = "slurmdbd mariadb-server-core mariadb-client-core"
    assert missing(accounting=True) == f"Slurm's testbed needs munged, mariadbd; {install} {database}"
    bed = Path(f"/tmp/mixlab-bed-{os.getpid()}")  # a short path
    assert up_module.main([str(bed)]) == 2
    assert capsys.readouterr().err == f"slurm-up: {missing(accounting=True)}\n"
    assert not bed.exists()


def test_runs_before_anything_is_installed():
    for module in ("slurm.testbed.up", "slurm.testbed.down"):
        command = [sys.executable, "-S", "-m", module, "--help"]  # -S: without site-packages
        subprocess.run(command, cwd=ROOT, env={}, check=True, capture_output=True, timeout=TIMEOUT_S)


def test_two_clusters_never_share_a_port(monkeypatch):
    monkeypatch.setattr(network.random, "sample", lambda candidates, number: list(candidates))  # the same order twice
    with network.reserved_ports(3) as first, network.reserved_ports(3) as second:
        ports = [reserved.getsockname()[1] for reserved in [*first, *second]]
        assert len(set(ports)) == 6
        with socket.socket() as daemon:  # as Slurm's daemons bind
            daemon.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            daemon.bind(("", ports[0]))
            daemon.listen()
            assert network.listens(ports[0])


def test_only_what_carries_the_mark_is_ended(tmp_path):
    layout = Layout.of(tmp_path)
    conf = {"SLURM_CONF": str(layout.slurm_conf)}
    mine, task, others = (
        subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"], **added})
        for added in (conf, conf | {"SLURMD_NODENAME": "n1"}, {processes.DIRECTORY_MARK: f"{layout.directory}2"})
    )
    try:
        assert [(process.pid, process.daemon) for process in processes.of_cluster(layout)] == [(task.pid, "n1")]
        down(tmp_path)
        assert task.wait(TIMEOUT_S) < 0 and mine.poll() is None and others.poll() is None
    finally:
        for process in (mine, task, others):
            process.kill()
            process.wait()


needs_accounting = pytest.mark.skipif(missing(True) is not None, reason=str(missing(True)))
needs_slurm = pytest.mark.skipif(missing(False) is not None, reason=str(missing(False)))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("slurm")
    yield up(directory)
    down(directory, purge=True)
    assert not directory.exists()


def ask(cluster: Cluster, command: str) -> str:
    ended = subprocess.run(
        shlex.split(command),
        env=os.environ | cluster.environment,
        cwd=cluster.layout.directory,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def submit(cluster: Cluster, options: str, script: str) -> str:
    return ask(cluster, f"sbatch --parsable --output=/dev/null {options} --wrap {shlex.quote(script)}")


def state(cluster: Cluster, job: str) -> str:
    return ask(cluster, f"squeue --noheader --states=all --jobs={job} --format=%T")


def wait_for(condition) -> None:
    assert processes.wait_until(condition, TIMEOUT_S)


@pytest.mark.slurm
@needs_accounting
def test_a_job_runs_sees_its_gpus_and_is_accounted(cluster):
    seen = ask(cluster, "srun --nodes=2 --gpus-per-node=2 sh -c 'echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES'")
    assert sorted(seen.splitlines()) == ["n1 0,1", "n2 0,1"]
    job = submit(cluster, "--gpus=1", "test $CUDA_VISIBLE_DEVICES = 0")
    wait_for(lambda: ask(cluster, f"sacct -n -P -X -j {job} -o State,ExitCode") == "COMPLETED|0:0")


@pytest.mark.slurm
@needs_accounting
def test_a_second_start_is_refused(cluster, capsys):
    assert up_module.main([str(cluster.layout.directory)]) == 2
    said = capsys.readouterr().err
    assert "a cluster is up here (mariadbd, munged, n1, n2, n3, n4, slurmctld, slurmdbd)" in said
    assert said.endswith(f"python3 -m slurm.testbed.down {cluster.layout.directory}\n")
    assert "idle" in ask(cluster, "sinfo")


@pytest.mark.slurm
@needs_accounting
def test_a_job_outlives_its_slurmd(cluster, tmp_path):
    job = submit(cluster, "--nodelist=n2", f"touch {tmp_path}/runs; until [ -e {tmp_path}/go ]; do sleep 0.1; done")
    wait_for((tmp_path / "runs").exists)
    cluster.kill("n2")
    assert "n2" not in processes.daemons(cluster.layout)
    assert {process.daemon for process in processes.of_cluster(cluster.layout) if process.role == "task"} == {"n2"}
    cluster.start("n2")
    (tmp_path / "go").touch()
    wait_for(lambda: state(cluster, job) == "COMPLETED")


@pytest.mark.slurm
@needs_accounting
def test_a_crashed_node_takes_its_tasks_along_and_no_others(cluster):
    def nodes_with_tasks() -> set[str]:
        return {process.daemon for process in processes.of_cluster(cluster.layout) if process.role == "task"}

    jobs = [submit(cluster, f"--nodelist={node}", "sleep 600") for node in ("n2", "n3")]
    wait_for(lambda: nodes_with_tasks() == {"n2", "n3"})
    cluster.crash("n3")
    assert "n3" not in {process.daemon for process in processes.of_cluster(cluster.layout)}
    assert nodes_with_tasks() == {"n2"}
    cluster.start("n3")
    ask(cluster, f"scancel {' '.join(jobs)}")


@pytest.mark.slurm
@needs_accounting
def test_a_job_of_higher_priority_warns_and_requeues_another(cluster, tmp_path):
    script = f"trap 'touch {tmp_path}/warned' USR2; touch {tmp_path}/runs; while :; do sleep 0.1; done"
    job = submit(cluster, "--nodelist=n4 --cpus-per-task=4 --requeue --signal=B:USR2@5 --partition=low", script)
    wait_for((tmp_path / "runs").exists)
    other = submit(cluster, "--nodelist=n4 --cpus-per-task=4 --partition=high", "sleep 600")
    wait_for((tmp_path / "warned").exists)
    ask(cluster, f"scontrol requeue {job}")
    wait_for(lambda: (state(cluster, job), state(cluster, other)) == ("PENDING", "RUNNING"))
    ask(cluster, f"scancel {job} {other}")


@pytest.mark.slurm
@needs_accounting
def test_an_unknown_daemon_is_named_with_the_known(cluster):
    with pytest.raises(
        MixlabError,
        match=r"expected a daemon of the cluster, got 'slurmclt'; allowed: munged, .* did you mean 'slurmctld'",
    ):
        cluster.kill("slurmclt")


@pytest.mark.slurm
@needs_slurm
def test_clusters_begun_at_once_without_accounting_go_down_alone(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    try:
        with ThreadPoolExecutor() as pool:
            first, second = pool.map(lambda folder: up(folder, LIGHT), folders)
        assert [ask(each, "srun printenv SLURM_CONF") for each in (first, second)] == [
            str(each.layout.slurm_conf) for each in (first, second)
        ]
        assert "slurmdbd" not in processes.daemons(first.layout)
        submit(first, "", "trap '' TERM; sleep 600; sleep 600")
        wait_for(lambda: any(process.role == "task" for process in processes.of_cluster(first.layout)))
        down(folders[0])
        assert processes.of_cluster(first.layout) == []
        assert ask(second, "srun echo here") == "here"
        down(folders[0])
        assert ask(up(folders[0], LIGHT), "srun echo again") == "again"
    finally:
        for folder in folders:
            down(folder, purge=True)


@pytest.mark.slurm
@needs_slurm
def test_a_killed_slurmctld_takes_up_its_work_again(tmp_path):
    try:
        # A cluster of its own: a slurmctld that lost seconds gives ids again and brings back jobs that have ended.
        cluster = up(tmp_path, LIGHT)
        cluster.kill("slurmctld")
        assert "slurmctld" not in processes.daemons(cluster.layout)
        cluster.start("slurmctld")
        assert ask(cluster, "srun --nodes=1 echo here") == "here"
    finally:
        down(tmp_path, purge=True)


@pytest.mark.slurm
@needs_slurm
def test_what_a_killed_cluster_left_is_swept_by_the_next_start(tmp_path):
    try:
        killed = up(tmp_path, LIGHT)
        submit(killed, "", "sleep 600")
        wait_for(lambda: any(process.role == "task" for process in processes.of_cluster(killed.layout)))
        found = processes.of_cluster(killed.layout)
        tasks = {process for process in found if process.role == "task"}
        processes.send(set(found) - tasks, signal.SIGKILL)  # slurmstepd too: no daemon to come knows of the tasks
        wait_for(lambda: set(processes.of_cluster(killed.layout)) == tasks)
        up(tmp_path, LIGHT)
        assert not tasks & set(processes.of_cluster(killed.layout))
    finally:
        down(tmp_path, purge=True)


@pytest.mark.slurm
@needs_slurm
def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path, capsys):
    assert up_module.main([str(tmp_path), "--accounting", "off", "--set", "Nonsense=1"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("slurm-up: slurmctld has ended; its last words") and "unrecognized key: Nonsense" in said
    assert processes.of_cluster(Layout.of(tmp_path)) == []
