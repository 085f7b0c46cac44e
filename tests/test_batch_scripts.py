"""Batch scripts: what each shipped cluster file asks for, and what the scripts do when they are run.

The scripts are run by bash, beside stand-ins for Slurm's programs: an `srun` that takes its options away and runs the
rest, and for containers a PATH inside that holds a shell and no program of Slurm's.
"""

import dataclasses
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.errors import MixlabError
from experiments.design import ablation
from experiments.design import trials as resolving
from experiments.results.store import Store
from slurm import client, cluster_keys, ledger, options, submission
from slurm import work as slurm_work
from slurm.batch import Ask, Batch
from slurm.check import check, said_of_python
from slurm.cluster import ClusterSpec
from slurm.cluster_file import read_cluster
from slurm.cluster_keys import cluster_from
from slurm.limits import Limits, check_python
from slurm.packing import arrays
from slurm.request import Request
from slurm.software import Container, mounts
from slurm.submission import preview
from tests.conftest import ROOT, Ended, base, environment, write_yaml

CLUSTERS = ROOT / "slurm" / "clusters"
LARGE = {"image_size": 224, "num_examples": 8}
# It notes the options that the script gives to srun, takes them away, and runs what follows; INSIDE is the PATH then.
SRUN = """
while [[ $1 == --* ]]; do
    echo "$1" >> "$NOTES/srun"
    case $1 in --output|--error) shift;; esac
    shift
done
PATH=${INSIDE:-$PATH} exec "$@"
"""
# It notes its words up to the image, and runs what follows as an image would that sets a PYTHONPATH of its own.
APPTAINER = """
while [[ $1 != *.sif ]]; do echo "$1" >> "$NOTES/apptainer"; shift; done
shift
PYTHONPATH=/of/the/image PATH=$INSIDE exec "$@"
"""
# A Python that notes what it is called with, and ends as it is told to.
PYTHON = """#!/bin/sh
for word in "$@"; do echo "$word"; done > "$NOTES/python"
echo "$PYTHONPATH $PYTHONSAFEPATH" > "$NOTES/path"
[ -z "$DIES" ] || kill -s "$DIES" $$
exit "${ENDS:-0}"
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of stand-ins first on PATH, and one, INSIDE, that holds a shell alone."""
    folder, inside, notes = tmp_path / "tools", tmp_path / "inside", tmp_path / "notes"
    for place in (folder, inside, notes):
        place.mkdir()
    scripts = {"srun": SRUN, "apptainer": APPTAINER, "scontrol": 'echo "$@" >> "$NOTES/scontrol"'}
    scripts |= {"python3": PYTHON}
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/bash{text}" if text.startswith("\n") else f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    for name in ("sh", "bash"):
        (inside / name).symlink_to(str(shutil.which(name)))
    (inside / "python3").symlink_to(folder / "python3")
    for name, value in {"PATH": f"{folder}:{os.environ['PATH']}", "NOTES": str(notes), "SLURM_JOB_ID": "7"}.items():
        monkeypatch.setenv(name, value)
    for name in ("PYTHONPATH", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "DIES", "ENDS", "INSIDE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USER", "me")
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.chdir(tmp_path)
    mask = os.umask(0o022)
    os.umask(mask)
    yield tmp_path
    os.umask(mask)  # which commands of Slurm's set for their process


def noted(tools: Path, name: str) -> list[str]:
    path = tools / "notes" / name
    return path.read_text().splitlines() if path.exists() else []


def request(folder: Path, cluster: ClusterSpec, **keys: Any) -> Request:
    whole = ablation.load_ablation(write_yaml(folder / "a.yaml", **keys))
    cache = folder / "data"
    return Request(whole, resolving.trials(whole, cache), cluster, Store(folder / "runs"), cache)


def scripts(asked: Request) -> list[str]:
    """The batch script of each array of an ablation."""
    found = []
    for array in arrays(asked.packs(asked.trials), 1000):
        batch = Batch(asked.store.root / "slurm", "name", asked.ask(array[0], asked.store.root / "snapshots" / "s"))
        found.append(batch.text(len(array)))
    return found


def one_script(folder: Path, cluster: ClusterSpec, **keys: Any) -> str:
    (script,) = scripts(request(folder, cluster, **keys))
    return script


def asked(script: str) -> dict[str, str]:
    """The options of a script, each once."""
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")]
    found = {name: shlex.split(value)[0] if value else "" for name, _, value in (line.partition("=") for line in lines)}
    assert len(found) == len(lines)
    return found


def srun_of(script: str) -> str:
    """What the script says of srun, up to the command that it runs."""
    return script[script.index("\nsrun ") :].partition(" bash -c ")[0]


def run_script(script: str) -> int:
    return subprocess.run(["bash"], input=script, text=True, capture_output=True, timeout=60).returncode


# --- the shipped cluster files ------------------------------------------------------------------------------------


def test_every_shipped_cluster_file_has_a_test_here() -> None:
    assert {path.name for path in CLUSTERS.iterdir()} == {"example.yaml", "gpu.yaml", "containers.yaml", "cpu.yaml"}


def test_the_example_asks_for_what_it_says(tools: Path) -> None:
    script = one_script(tools, read_cluster(CLUSTERS / "example.yaml"))
    expected = {"partition": "low", "time": "30", "gpus-per-node": "1", "cpus-per-task": "2", "mem": "2048M"}
    found = asked(script)
    assert {name: found[name] for name in expected} == expected and found["signal"] == "USR2@60"
    assert not {"exclude", "reservation", "constraint", "account", "qos", "nodelist"} & set(found)
    assert srun_of(script).endswith("--cpus-per-task=2 --kill-on-bad-exit=1")


def test_the_example_holds_every_key_with_a_comment_beside_it() -> None:
    lines = (CLUSTERS / "example.yaml").read_text().splitlines()
    keys = {line.partition(":")[0]: row for row, line in enumerate(lines) if line and line[0] not in "# "}
    assert set(keys) == set(cluster_keys.KEYS)
    bare = [key for key, row in keys.items() if " # " not in lines[row] and not lines[row - 1].startswith("# ")]
    assert bare == []


def test_the_gpu_file_gives_backends_their_pythons_and_settings_their_gpus(tools: Path) -> None:
    cluster = read_cluster(CLUSTERS / "gpu.yaml")
    given = base(
        model={"hidden_dim": None, "num_blocks": None, "patch_size": None}, data=LARGE, train={"batch_size": 2}
    )
    grid = {"model.variant": ["S/16", "B/16", "L/16"], "backend": ["jax", "torch"], "seed": [0]}
    found = scripts(request(tools, cluster, base=given, grid=grid))
    jax, torch = (text for text in found if "--gpus-per-node=a100:1" in text and "--time=480" in text)
    lines = torch.splitlines()
    assert lines[lines.index("# setup") + 1 :][:2] == ["module purge", "unset LD_LIBRARY_PATH"]
    assert " /home/me/miniforge3/envs/torch/bin/python -u -m submitit" in torch
    assert "export XLA_PYTHON_CLIENT_PREALLOCATE=false" in jax.splitlines() and "/envs/jax/bin/python" in jax
    for text in found:
        options = asked(text)
        assert options["mail-user"] == "me@example.org" and options["mail-type"] == "FAIL,TIME_LIMIT"
        assert options["account"] == "my_project" and options["cpus-per-task"] == "8"
    wanted = sorted((asked(text)["time"], asked(text)["gpus-per-node"], asked(text)["mem"]) for text in found)
    memory = {"a100:1": f"{60 * 1024}M", "h100:1": f"{120 * 1024}M"}
    times = [("1440", "a100:1"), ("2880", "h100:1"), ("480", "a100:1")]
    assert wanted == [(time, kind, memory[kind]) for time, kind in times for _ in range(2)]
    assert cluster.store == "/scratch/me/mixlab" and cluster.compile_cache == "/scratch/me/mixlab-compiled"


def test_the_container_file_makes_both_kinds_of_container(tools: Path) -> None:
    cluster = read_cluster(CLUSTERS / "containers.yaml")
    jax, torch = scripts(request(tools, cluster, grid={"backend": ["jax", "torch"], "seed": [0]}))
    srun = srun_of(torch)
    assert "--container-image=/scratch/me/images/torch.sqsh" in srun and "--no-container-mount-home" in srun
    assert f"--container-mounts=/datasets:/datasets,{tools}:{tools}" in srun
    assert f"--container-workdir={tools}" in srun and f"{tools}/runs/snapshots/s python3 -u -m submitit" in torch
    assert "--container" not in srun_of(jax)
    words = f"apptainer exec --nv --bind /datasets:/datasets:ro --bind {tools}:{tools} --pwd {tools} --writable-tmpfs"
    assert f"{words} /scratch/me/images/jax.sif sh -c" in jax
    assert f"{tools}/runs/snapshots/s /opt/venv/bin/python -u -m submitit" in jax


def test_the_cpu_file_asks_for_memory_by_core_and_for_no_gpu(tools: Path) -> None:
    script = one_script(tools, read_cluster(CLUSTERS / "cpu.yaml"))
    options = asked(script)
    assert options["mem-per-cpu"] == "2G" and options["cpus-per-task"] == "16" and options["hint"] == "nomultithread"
    assert not {"mem", "gpus-per-node", "gres"} & set(options) and options["time"] == "120"
    assert "uv run --project '/home/me/my mixlab' python -u -m submitit" in script.replace("'\"'\"'", "'")


# --- options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "present", "absent"),
    [
        ({"sbatch": {"cpus-per-task": "8"}}, {"cpus-per-task": "8"}, ()),
        ({"sbatch": {"mem-per-cpu": "4G"}}, {"mem-per-cpu": "4G"}, ("mem",)),
        ({"sbatch": {"mem": "0"}}, {"mem": "0"}, ()),
        ({"memory_gb": None}, {}, ("mem", "mem-per-cpu")),
        ({}, {"mem": "4096M", "time": "60"}, ("gpus-per-node", "gres")),
        ({"sbatch": {"gres": "gpu:a100:2,tmp:5G"}}, {"gres": "gpu:a100:2,tmp:5G"}, ("gpus-per-node",)),
        ({"sbatch": {"gres": "tmp:5G"}, "gpus": 1}, {"gres": "tmp:5G", "gpus-per-node": "1"}, ()),
        ({"gpus": 2, "gpu_type": "a100"}, {"gpus-per-node": "a100:2"}, ("gres",)),
        ({"sbatch": {"exclusive": True, "contiguous": False}}, {"exclusive": ""}, ("contiguous",)),
        ({"sbatch": {"comment": "true"}}, {"comment": "true"}, ()),
        ({"exclude": "n1,n2", "nodelist": "n3", "reservation": "r"}, {"exclude": "n1,n2", "reservation": "r"}, ()),
        ({"sbatch": {"time": "2:00:00", "qos": "q"}}, {"time": "120", "qos": "q"}, ()),
    ],
    ids=str,
)
def test_no_option_is_sent_twice(
    tools: Path, tree: dict[str, Any], present: dict[str, str], absent: tuple[str, ...]
) -> None:
    script = one_script(tools, cluster_from(tree, "c.yaml"))
    found = asked(script)
    assert {name: found.get(name) for name in present} == present and not set(absent) & set(found)
    assert f"--cpus-per-task={found['cpus-per-task']} " in srun_of(script)


def test_the_job_of_the_report_asks_for_no_gpu_whatever_the_options_say(tools: Path) -> None:
    given = {"partition": "p", "environments": {"jax": {"python": "/jax/python", "gpus": 0}}, "retries": {}}
    options = {"gres": "gpu:2,tmp:5G", "mem-per-gpu": "9G", "cpus-per-task": "9", "reservation": "r"}
    cluster = cluster_from({**given, "environments": {"jax": {"python": "/jax/python"}}, "sbatch": options}, "c.yaml")
    batch = Batch(tools / "slurm", "report", Ask.small(cluster, tools / "s", ()))
    found = asked(batch.text(1))
    assert (found["gres"], found["mem"], found["cpus-per-task"]) == ("tmp:5G", "2048M", "1")
    assert found["partition"] == "p" and found["reservation"] == "r" and "mem-per-gpu" not in found
    by_core = cluster_from({**given, "sbatch": {"mem-per-cpu": "9G"}}, "c.yaml")
    assert "mem-per-cpu" not in asked(Batch(tools / "slurm", "r", Ask.small(by_core, tools / "s", ())).text(1))
    assert "/jax/python -u" in batch.text(1)
    assert "mem" not in asked(
        Batch(tools / "slurm", "r", Ask.small(cluster_from({"memory_gb": None}, "c"), tools / "s", ())).text(1)
    )


def test_every_option_of_the_installed_sbatch_is_known(tmp_path: Path) -> None:
    """Where Slurm is installed, its own list: an option that is not known gets no hint, and its beginning passes."""
    if shutil.which("sbatch") is None:
        pytest.skip("Slurm is not installed")
    config = tmp_path / "slurm.conf"  # it reads one before it says anything
    config.write_text("ClusterName=none\nSlurmctldHost=localhost\n")
    variables = {**os.environ, "SLURM_CONF": str(config)}
    listed = subprocess.run(["sbatch", "--help"], capture_output=True, text=True, env=variables, timeout=60).stdout
    names = set(re.findall(r"--([a-z][a-z0-9-]*)", listed))
    assert "account" in names and names <= options.KNOWN, names - options.KNOWN


# --- trials of different needs ------------------------------------------------------------------------------------


def test_trials_of_different_needs_never_share_a_job(tools: Path) -> None:
    rules = [{"match": {"seed": 1}, "time": "2-0", "pack": 1}, {"match": {"seed": 2, "model.num_blocks": 2}, "cpus": 3}]
    cluster = cluster_from({"pack": 3, "when": rules}, "c.yaml")
    grid = {"model.num_blocks": [1, 2], "seed": [0, 1, 2], "backend": ["torch", "jax"]}
    asked = request(tools, cluster, grid=grid)
    packs = asked.packs(asked.trials)
    for pack in packs:
        assert {asked.needs(one) for one in pack.trials} == {pack.needs} and len(pack.trials) <= pack.needs.pack
        assert {one.trial.backend for one in pack.trials} == {pack.backend}
    assert sorted(one.trial.id for pack in packs for one in pack.trials) == sorted(one.trial.id for one in asked.trials)
    assert sorted((pack.needs.time, pack.needs.cpus, len(pack.trials)) for pack in packs) == sorted(
        2 * [(60, 1, 3), (60, 3, 1), (2880, 1, 1), (2880, 1, 1)]
    )
    for array in arrays(packs, 1):
        assert len({(pack.backend, pack.needs) for pack in array}) == 1


def fake_slurm(tools: Path, **scripts: str) -> None:
    known = {"squeue": "true", "sacct": "true", "sacctmgr": "true", "sbatch": "echo 'sbatch: fits' >&2"}
    config = "echo 'MaxArraySize = 100'; echo 'MaxJobCount = 100'"
    for name, script in {**known, "scontrol": config, **scripts}.items():
        (tools / "tools" / name).write_text(f"#!/bin/bash\n{script}\n")
        (tools / "tools" / name).chmod(0o755)


def test_a_rule_that_matches_no_trial_is_said(tools: Path) -> None:
    fake_slurm(tools)
    rules = [{"match": {"model.variant": ["L/16", "H/14"]}, "time": 5}, {"match": {"seed": 1}, "time": 5}]
    cluster = cluster_from({"when": rules}, "c.yaml")
    said = list(preview(request(tools, cluster)))
    assert [line for line in said if "matches no trial" in line] == [
        "when: model.variant: L/16 or H/14 matches no trial of a"
    ]
    assert sum(line.strip().startswith("array") for line in said) == 2
    assert not any(
        "matches no" in line for line in preview(request(tools, cluster_from({"when": rules[1:]}, "c.yaml")))
    )


def test_a_dry_run_shows_the_scripts_before_it_says_that_a_python_does_not_begin(tools: Path) -> None:
    fake_slurm(tools)
    said = preview(request(tools, cluster_from({"python": "no-such-command run python"}, "c.yaml")))
    shown: list[str] = []
    with pytest.raises(MixlabError, match="environments: torch: no-such-command run python does not start"):
        shown.extend(said)
    assert "no-such-command run python -u -m submitit" in "\n".join(shown)


def test_the_store_of_a_cluster_file_is_one_place_for_the_command_and_its_jobs(
    tools: Path, run: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_slurm(tools, sbatch="echo 'Submitted batch job 7'")
    monkeypatch.setenv("SCRATCH", str(tools / "scratch"))
    write_yaml(tools / "a.yaml")
    (tools / "c.yaml").write_text(f"store: $SCRATCH/my runs\nreport: false\npython: {sys.executable}\n")
    ended = run("submit", "a.yaml", "--cluster", "c.yaml")
    assert ended.code == 0, ended.err
    store = Store(tools / "scratch" / "my runs")
    assert f"--store '{store.root}'" in ended.out
    (array,) = ledger.all_arrays(store)
    assert slurm_work.read_work(array.pack_file(0), array, 0).store.root == store.root
    assert sorted(path.name for path in tools.iterdir() if "runs" in path.name or "$" in path.name) == []


# --- what a script does -------------------------------------------------------------------------------------------


def test_the_words_of_a_python_come_as_they_were_given(tools: Path) -> None:
    """A list may hold spaces and what a shell would take for its own."""
    evil = "a b'c\"$(touch pwned)`x`;&"
    script = one_script(tools, cluster_from({"python": ["python3", evil, "*"]}, "c.yaml"))
    assert run_script(script) == 0
    assert noted(tools, "python")[:3] == [evil, "*", "-u"] and not list(tools.rglob("pwned"))


@pytest.mark.parametrize("runtime", ["none", "apptainer", "pyxis"])
@pytest.mark.parametrize(
    ("ends", "dies", "code", "requeued"),
    [
        ("0", "", 0, False),
        ("3", "", 3, False),
        (str(client.GO_BACK), "", client.GO_BACK, True),
        ("0", "KILL", 137, True),
        ("0", "SEGV", 139, True),
    ],
)
def test_a_job_goes_back_into_the_queue_from_inside_of_a_container_too(
    tools: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, ends: str, dies: str, code: int, requeued: bool
) -> None:
    """Inside there is no scontrol: the shell around the Python, or the script around srun, asks for it, and once."""
    monkeypatch.setenv("ENDS", ends)
    monkeypatch.setenv("DIES", dies)
    tree: dict[str, Any] = {"python": "python3"}
    if runtime != "none":
        tree["container"] = {"runtime": runtime, "image": "/i.sif", "mounts": ["/datasets"]}
        monkeypatch.setenv("INSIDE", str(tools / "inside"))
    if runtime == "apptainer":  # its srun is outside
        text = (tools / "tools" / "srun").read_text().replace("${INSIDE:-$PATH}", "$PATH")
        (tools / "tools" / "srun").write_text(text)
    script = one_script(tools, cluster_from(tree, "c.yaml"))
    assert run_script(script) == (client.GO_BACK if runtime == "pyxis" and requeued else code)
    assert noted(tools, "scontrol") == (["requeue 7"] if requeued else [])


@pytest.mark.parametrize("runtime", ["apptainer", "pyxis"])
def test_a_container_sees_the_snapshot_before_its_own_modules(
    tools: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    monkeypatch.setenv("INSIDE", str(tools / "inside"))
    if runtime == "apptainer":
        text = (tools / "tools" / "srun").read_text().replace("${INSIDE:-$PATH}", "$PATH")
        (tools / "tools" / "srun").write_text(text)
    else:  # as an image would that sets it: pyxis lets that stand
        text = (tools / "tools" / "srun").read_text().replace("PATH=${", "PYTHONPATH=/of/the/image PATH=${")
        (tools / "tools" / "srun").write_text(text)
    given: dict[str, Any] = {"container": {"runtime": runtime, "image": "/i.sif", "options": ["--first"]}, "gpus": 1}
    given["compile_cache"] = str(tools / "not" / "yet")
    assert run_script(one_script(tools, cluster_from(given, "c.yaml"))) == 0
    assert (tools / "not" / "yet").is_dir()  # else it could not be mounted
    assert noted(tools, "path") == [f"{tools}/runs/snapshots/s:/of/the/image 1"]
    words = noted(tools, "apptainer" if runtime == "apptainer" else "srun")
    assert "--first" in words
    if runtime == "apptainer":
        assert words[:2] == ["exec", "--nv"] and words[words.index("--bind") + 1] == f"{tools}:{tools}"
    else:
        assert f"--container-mounts={tools}:{tools}" in words and "--container-image=/i.sif" in words


def test_lines_of_setup_are_left_to_the_shell_of_the_node(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tools / "c.yaml"
    path.write_text("python: python3\nsetup: 'echo $SLURM_JOB_ID ~ > $NOTES/setup'\n")
    script = one_script(tools, read_cluster(path))
    assert run_script(script) == 0 and noted(tools, "setup") == ["7 /home/me"]


def places(*paths: str) -> Iterable[Path]:
    return [Path(path) for path in paths]


def test_what_a_container_must_see_is_mounted_once_where_it_is() -> None:
    own = Container("pyxis", "i", ("/data", "/a:/b", "/ro:/ro:ro"))
    found = mounts(own, places("/scratch/runs/snapshots/s", "/scratch/runs", "/data/cache", "/a/x", "/ro/x", "/"))
    assert found[:3] == ["/data:/data", "/a:/b", "/ro:/ro:ro"]
    assert found[3:] == ["/a/x:/a/x", "/ro/x:/ro/x", "/scratch/runs:/scratch/runs"]
    with pytest.raises(MixlabError, match="expected a path without ':' and ',' to mount"):
        mounts(own, places("/with:colon"))


# --- checks before anything is sent -------------------------------------------------------------------------------


def test_a_python_of_several_words_is_asked_what_it_has(tools: Path) -> None:
    (tools / "tools" / "uv").write_text('#!/bin/bash\n[[ $1 == run ]] && shift && exec "$@"\n')
    (tools / "tools" / "uv").chmod(0o755)
    (tools / "tools" / "python").write_text("#!/bin/bash\necho 'mixlab lacks: jax'\n")
    (tools / "tools" / "python").chmod(0o755)
    with pytest.raises(MixlabError, match="environments: jax: uv run python lacks jax; install it there"):
        check_python("jax", cluster_from({"python": "uv run python"}, "c.yaml"))
    with pytest.raises(MixlabError, match="environments: jax: uv 'no such' python does not start"):
        check_python("jax", cluster_from({"python": ["uv", "no such", "python"]}, "c.yaml"))
    boxed = cluster_from({"container": {"runtime": "pyxis", "image": "i.sqsh"}}, "c.yaml")
    check_python("jax", boxed)  # a login node may have no such containers: only a job can tell
    assert said_of_python(boxed, "jax") == "python3 in i.sqsh, which a job alone can look at"


def test_every_partition_and_account_that_a_job_may_ask_for_is_checked(tools: Path) -> None:
    line = 'echo "${3:-any}|1:00:00|4|8|9000|gpu:a100:4|up"'
    fake_slurm(tools, sinfo=line, sacctmgr="echo alpha", sacct="exit 1")
    layers = {"torch": {"partition": "q", "account": "beta"}, "jax": {"time": 20}}
    rules = [{"match": {"seed": 1}, "time": "2:00:00", "qos": "long"}]
    cluster = cluster_from({"environments": layers, "account": "alpha", "partition": "p", "when": rules}, "c.yaml")
    findings = check(cluster, Store(tools / "runs"), 1, 0.0)
    found = [
        (one.ok, one.what, one.said) for one in itertools.takewhile(lambda one: one.what != "preemption", findings)
    ]
    partitions = sorted(said for _, what, said in found if what == "partition")
    assert [said.partition(" up")[0] for said in partitions] == ["p", "q"]
    assert all(said.endswith(", less than the 120 minutes of the cluster file") for said in partitions)
    assert (False, "account", "Slurm has no account 'beta'; allowed: alpha") in found
    assert (True, "account", "alpha") in found and "qos" in {what for ok, what, _ in found if not ok}


def test_the_room_in_the_queue_is_that_of_the_narrowest_qos_of_any_job(tools: Path) -> None:
    fake_slurm(tools, sacctmgr="[[ $4 == long ]] && echo '7||'; true")
    rules = [{"match": {"seed": 1}, "qos": "long"}]
    assert Limits.read(cluster_from({"report": False, "when": rules}, "c.yaml")).room == 7
    assert Limits.read(cluster_from({"report": False}, "c.yaml")).room == 100


# --- what a job is told -------------------------------------------------------------------------------------------


def test_a_job_works_by_the_needs_that_it_was_sent_with(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_slurm(tools, sbatch="echo 'Submitted batch job 7'")
    rules = [{"match": {"seed": 1}, "time": "2:00:00", "cpus": 2, "gpus": 2}, {"match": {"seed": 9}, "cpus": 5}]
    told: list[str] = []
    cluster = cluster_from({"python": sys.executable, "report": False, "when": rules}, "c.yaml")
    whole = dataclasses.replace(request(tools, cluster), warn=told.append)
    submitted = submission.submit(whole)
    assert told == ["when: seed: 9 matches no trial of a"] and submitted.folder is not None
    found = {}
    for array in ledger.arrays(submitted.folder):
        work = slurm_work.read_work(array.pack_file(0), array, 0)
        assert work.cluster == cluster and work.needs == whole.needs(work.trials[0])
        found[work.trials[0].trial.seed] = work
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(slurm_work, "STARTED", time.monotonic() - 90 * 60)
    assert [len(found[seed]._pool().cpus) for seed in (0, 1)] == [1, 2]
    assert [found[seed]._pool().devices for seed in (0, 1)] == [(), ("auto:0", "auto:1")]
    assert [found[seed]._is_time_over() for seed in (0, 1)] == [True, False]


@pytest.mark.parametrize("code", ["client.requeue('7')", "job.PackJob('x').checkpoint()"])
def test_a_job_that_has_no_scontrol_asks_by_its_exit_code(tools: Path, code: str) -> None:
    words = [sys.executable, "-c", f"from slurm import client, job; {code}"]
    inside = environment(PATH=str(tools / "inside"))
    assert subprocess.run(words, env=inside, capture_output=True, timeout=60).returncode == client.GO_BACK
