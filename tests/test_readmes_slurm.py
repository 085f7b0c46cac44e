"""What the READMEs say of a cluster is so on a real Slurm: their commands, and what the check prints."""

import re
from typing import Any

import pytest

from tests.conftest import ROOT, records
from tests.documents import blocks, commands
from tests.slurm_bench import Bench
from tests.test_readmes import ON_A_CLUSTER, cluster_of_the_readme

pytestmark = pytest.mark.slurm

FEW = ["backend=quick", "seed=0", "model.channel_mixing=tied", "model.share_blocks=false", "train.steps=20"]


def shape(line: str) -> str:
    """A line without what differs between machines: versions, paths and names of nodes."""
    return re.sub(r"(/\S+|\b\d+\.\d+\.\d+|\bn\d\b)", "_", line)


def test_the_check_prints_what_the_readme_shows(bench: Bench) -> None:
    """With the four keys that the README says are enough."""
    (shown,) = [block for block in blocks("README.md", "") if block.startswith("ok  slurm")]
    (bench.folder / "my_cluster.yaml").write_text(cluster_of_the_readme())
    said = bench.mixlab("cluster", "check", "my_cluster.yaml").out
    named = [line for line in said.splitlines() if "quick" not in line]  # the tests' own backend is installed too
    assert [*map(shape, named)] == [*map(shape, shown.splitlines())]


@pytest.mark.parametrize("document", ["README.md", "slurm/README.md"])
def test_the_commands_of_a_document_work_on_a_cluster(bench: Bench, document: str) -> None:
    for name in ("experiments/ablations", "experiments/bases", "slurm/clusters"):
        (bench.folder / name).parent.mkdir(exist_ok=True)
        (bench.folder / name).symlink_to(ROOT / name)
    (bench.folder / "my_cluster.yaml").write_text(cluster_of_the_readme())
    done: list[Any] = []
    for words in commands(document):
        if words[0] == "mixlab" and (words[1] in ON_A_CLUSTER or (done and words[1] == "status")):
            done.append(bench.mixlab(*words[1:], *(FEW if words[1] == "submit" else [])))
    assert len(done) >= 2
    bench.wait_empty()
    assert [record["status"] for record in records(bench.store.root).values()] == ["done", "done"]
