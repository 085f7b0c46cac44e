"""Data prepared by a job of Slurm: what it asks for, what it runs, and what its sender is told."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slurm import preparation, snapshot
from slurm.batch import Batch
from slurm.cluster import ClusterSpec
from slurm.preparation import NAME, PrepareJob
from tests.conftest import Ended
from tests.slurm_bench import Bench
from tests.sources import image_folder


def test_the_job_asks_for_the_cores_and_memory_of_trials_and_for_no_gpu(tmp_path: Path) -> None:
    given = {"gres": "gpu:2,disk:1", "gpus": "2", "mem-per-gpu": "9G", "mem-per-cpu": "2G", "nice": "5"}
    cluster = ClusterSpec(partition="low", time=90, cpus=12, gpus=2, gpu_type="a100", sbatch=given)
    ask = preparation.ask_of(cluster, tmp_path / "code", [tmp_path])
    lines = Batch(tmp_path / "slurm", "name", ask).text(1).splitlines()
    asked = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    assert {"cpus-per-task=12", "time=90", "partition=low", "mem-per-cpu=2G", "nice=5", "gres=disk:1"} <= asked
    assert not [line for line in asked if "gpu" in line]


def test_a_job_runs_the_command_that_was_given(
    run: Callable[..., Ended], fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(sbatch="echo 'Submitted batch job 7'", **dict.fromkeys(("srun", "squeue", "sacct", "scontrol"), "true"))
    (tmp_path / "cluster.yaml").write_text("cpus: 2\npartition: low\n")
    source = image_folder(tmp_path / "set")
    words = ("data", "prepare", str(source), "out", "--resize", "4", "--encode", "png", "data.interpolation=box")
    ended = run(*words, "--cluster", "cluster.yaml")
    assert ended.code == 0, ended.err
    assert f"job 7 prepares {source} in {tmp_path / 'out'}" in ended.out and "scancel 7" in ended.out
    (path,) = (tmp_path / "runs" / "ablations" / NAME / "jobs").glob("*/prepare.json")
    assert f"tail -F {path.parent / 'slurm' / '7_0_log.err'}" in ended.out
    assert Path(json.loads(path.read_text())["snapshot"]).is_dir() and not (tmp_path / "out").exists()
    monkeypatch.setattr(snapshot, "check", lambda place: None)
    PrepareJob(str(path))()
    recipe = json.loads((tmp_path / "out" / "about.json").read_text())["recipe"]
    assert (recipe["image_size"], recipe["form"], recipe["interpolation"]) == (4, "png", "box")
    (source / "train" / "cat" / "0.png").write_bytes(b"none")
    with pytest.raises(SystemExit, match="1"):  # the set is there, of another source
        PrepareJob(str(path))()


def test_the_cores_of_a_job_are_the_cluster_files(run: Callable[..., Ended], tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("cpus: 2\n")
    ended = run("data", "prepare", "digits", "out", "--jobs", "3", "--cluster", "cluster.yaml")
    assert ended.code == 2 and "--jobs: a job has the cores that the cluster file gives" in ended.err


@pytest.mark.slurm
def test_a_set_is_prepared_by_a_job_of_a_real_slurm(bench: Bench) -> None:
    source = image_folder(bench.folder / "set", num=40)
    words = ["data", "prepare", str(source), "out", "--keep", "--cluster", bench.cluster_file(cpus=2)]
    log = re.search(r"tail -F (\S+);", bench.mixlab(*words).out)
    bench.wait_empty()
    assert log and Path(log[1]).is_file()
    held = json.loads((bench.folder / "out" / "about.json").read_text())
    assert held["num_train"] == 80 and held["form"] == "encoded"
    assert "is there and is prepared data" in bench.mixlab("data", "prepare", str(source), "out", code=2).err
