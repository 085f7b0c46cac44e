"""A chain of stages on a real Slurm: what begins from others waits, also where these go back into the queue."""

import pytest

from tests.conftest import base, write_yaml
from tests.slurm_bench import Bench

pytestmark = pytest.mark.slurm


def test_a_stage_waits_for_one_that_is_put_back_into_the_queue(bench: Bench) -> None:
    given = base(
        train={"steps": 40, "evaluate_every": 20}, run={"checkpoint_every_s": 0.2, "threads": 1}, backend="quick"
    )
    stages = {"pretrain": {}, "finetune": {"from": "pretrain", "train.learning_rate": 0.01}}
    path = write_yaml(bench.folder / "chain.yaml", base=given, grid={"seed": [0, 1]}, stages=stages)
    assert "4 trials: 0 done, 0 on their way, 4 sent as 4 jobs" in bench.submit(path, pack=1).out
    first, second = bench.arrays()
    assert {key for pack in first.packs for key in pack} <= set(bench.states("chain"))
    bench.wait_running()
    bench.slurm("scontrol", "requeue", f"{first.job}_0")
    waiting = bench.slurm("squeue", "-h", "-j", str(second.job), "-o", "%r").splitlines()
    assert waiting == ["Dependency"]
    assert "0 sent" in bench.submit(path, pack=1).out
    bench.assert_as_undisturbed(path)
