"""On a real Slurm: jobs of different needs, options in place of keys, and jobs in (stand-ins for) containers."""

import shutil
import sys
from typing import Any

import pytest
import yaml

from tests.conftest import records, wait_until
from tests.slurm_bench import Bench

pytestmark = pytest.mark.slurm

# It takes the place of `apptainer exec`: what follows the image sees a PATH without Slurm's programs.
APPTAINER = """#!/bin/bash
while [[ $1 != *.sif ]]; do shift; done
shift
PATH={inside} exec "$@"
"""
# It takes the place of srun with pyxis: its options are taken away, and the whole task sees such a PATH.
PYXIS = """srun() {{
    for word in "$@"; do shift; [[ $word == --container-* ]] || set -- "$@" "$word"; done
    PATH={inside} {srun} "$@"
}}"""


def container(bench: Bench, runtime: str) -> dict[str, Any]:
    """The keys of a cluster file for a container in which there is a shell and no program of Slurm's."""
    inside, tools = bench.folder / "inside", bench.folder / "tools"
    inside.mkdir()
    tools.mkdir()
    for name in ("sh", "bash"):
        (inside / name).symlink_to(str(shutil.which(name)))
    (tools / "apptainer").write_text(APPTAINER.format(inside=inside))
    (tools / "apptainer").chmod(0o755)
    setup = [f"export PATH={tools}:$PATH"]
    if runtime == "pyxis":
        setup = PYXIS.format(inside=inside, srun=shutil.which("srun")).splitlines()
    return {"setup": setup, "python": [sys.executable], "container": {"runtime": runtime, "image": "/any.sif"}}


@pytest.mark.parametrize("runtime", ["apptainer", "pyxis"])
def test_a_job_in_a_container_goes_back_into_the_queue(bench: Bench, runtime: str) -> None:
    """Python cannot reach Slurm there: at its warning it ends with a code, and the script outside does the rest."""
    path = bench.write(backend="quick", grid={"seed": [0]})
    bench.submit(path, pack=1, **container(bench, runtime))
    (trial_id,) = bench.wait_running()
    bench.slurm("scancel", "--signal=USR2", bench.owner(trial_id)["job"])
    wait_until(lambda: not bench.owner(trial_id), "the job has saved and gone")
    bench.assert_as_undisturbed(path)
    sessions = records(bench.store.root)[trial_id]["sessions"]
    assert len(sessions) == 2 and sessions[-1]["first_step"] > 0


def test_each_job_gets_what_its_trials_need(bench: Bench) -> None:
    """By layers, by a rule and by options that stand in place of keys; Slurm says what it has given."""
    path = bench.write(backend="quick", grid={"seed": [0, 1]})
    options = {"gres": "gpu:1", "cpus-per-task": 2, "mem-per-cpu": "150M", "comment": "true", "exclusive": False}
    rule = {"match": {"seed": 1}, "time": "1-2:03:00", "partition": "high"}
    file = bench.folder / "c.yaml"
    file.write_text(yaml.safe_dump({"pack": 2, "time": "0:20:00", "report": False, "sbatch": options, "when": [rule]}))
    bench.variables["QUICK_STEP_S"] = "0.3"
    bench.mixlab("submit", str(path), "--cluster", str(file))
    bench.wait_running(2)
    shown = bench.slurm("squeue", "-h", "-o", "%P|%l|%c|%m|%b|%k").splitlines()
    assert sorted(line.split("|")[:2] for line in shown) == [["high", "1-02:03:00"], ["low", "20:00"]], shown
    assert {tuple(line.split("|")[2:]) for line in shown} == {("2", "150M", "gres:gpu:1", "true")}, shown
    bench.wait_done(2)
    bench.wait_empty()
