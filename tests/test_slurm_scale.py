"""Ten thousand trials against a real slurmctld: seconds and memory of submitting them, and of looking at them.

`make slurm-scale` runs it whole and prints the figures; the short form is a tenth of it, and holds the same limits.
"""

import contextlib
import json
import os
import sys
import time
from pathlib import Path

import pytest

from experiments.results.claims import Claim
from experiments.results.states import state
from tests.conftest import MEASURED, base, planned, records, wait_until, write_yaml
from tests.slurm_bench import LONG, Bench

pytestmark = pytest.mark.slurm

TRIALS = 10_000 if LONG else 1_000
ALONE = LONG and "PYTEST_XDIST_WORKER" not in os.environ  # else other tests take their share of the cores
# Limits for ten thousand, on 2 cores.
SUBMIT_S, SUBMIT_MIB, STATUS_S, AGAIN_S = 30.0, 500.0, 3.0, 5.0
CURVE_POINTS = 100


def timed(bench: Bench, what: str, *words: str) -> tuple[float, str]:
    began = time.monotonic()
    out = bench.mixlab(*words).out
    seconds = time.monotonic() - began
    print(f"{what}, {TRIALS:,} trials: {seconds:.1f} s")
    return seconds, out


def fill(bench: Bench, path: Path) -> None:
    """Records of every trial, made from one real one, with a curve of CURVE_POINTS points."""
    trials = planned(path, bench.store.data)
    bench.mixlab("run", str(path), "--only", trials[0].trial.id, QUICK_STEP_S="0")
    record = json.loads((bench.store.folder(trials[0].trial.id) / "record.json").read_text())
    record = {**record, "curve": record["curve"][:1] * CURVE_POINTS}
    for one in trials:
        folder = bench.store.folder(one.trial.id)
        folder.mkdir(exist_ok=True)
        (folder / "record.json").write_text(json.dumps({**record, "id": one.trial.id}, indent=1) + "\n")


def test_a_large_grid_is_submitted_watched_and_found_done_in_seconds(bench: Bench, quick: Path) -> None:
    rates = [round(0.001 * (i + 1), 3) for i in range(10)]
    path = write_yaml(
        bench.folder / "large.yaml",
        base={"data": {"source": "digits"}, "train": {"steps": 6, "batch_size": 8}, "model": {"hidden_dim": 8}},
        grid={"backend": "quick", "train.learning_rate": rates, "seed": list(range(TRIALS // 10))},
        report={"rows": ["train.learning_rate"]},
    )
    bench.slurm("scontrol", "update", "NodeName=ALL", "State=DRAIN", "Reason=test")
    words = ("submit", str(path), "--cluster", bench.cluster_file(pack=10))
    began = time.monotonic()
    submitted = bench.python(f"import sys; sys.argv = ['mixlab', *{words!r}]\n{MEASURED}")
    submit_s, memory = time.monotonic() - began, int(submitted.stderr.split()[-1]) / 1024
    print(f"submit, {TRIALS:,} trials: {submit_s:.1f} s, {memory:.0f} MiB")
    assert f"{TRIALS} sent as {TRIALS // 10} jobs" in submitted.stdout
    assert len(bench.jobs("PENDING")) == TRIALS // 10
    queued_s, said = timed(bench, "status, all queued", "status", "large")
    assert f"{TRIALS} queued" in said
    bench.slurm("scancel", "-u", str(os.geteuid()))
    bench.wait_empty()
    fill(bench, path)
    done_s, said = timed(bench, "status, all done", "status", "large")
    assert f"{TRIALS} done" in said
    again_s, said = timed(bench, "submit, all done", *words)
    assert f"{TRIALS} done, 0 on their way, 0 sent" in said
    bench.slurm("scontrol", "update", "NodeName=ALL", "State=RESUME")
    assert submit_s < SUBMIT_S and memory < SUBMIT_MIB
    assert max(queued_s, done_s) < STATUS_S and again_s < AGAIN_S


def test_a_claim_and_a_record_take_milliseconds(bench: Bench) -> None:
    path = bench.write(backend="quick")
    bench.mixlab("run", str(path), QUICK_STEP_S="0")
    trial_id = bench.store.trial_ids()[0]
    began = time.monotonic()
    for _ in range(100):
        Claim(bench.store.folder(trial_id)).release()
    claim_ms = 10 * (time.monotonic() - began)
    began = time.monotonic()
    for _ in range(100):
        assert state(bench.store, trial_id).status == "done"
    record_ms = 10 * (time.monotonic() - began)
    print(f"claim and release: {claim_ms:.2f} ms; state from a record: {record_ms:.2f} ms")
    most_ms = 5 if ALONE else 50  # beside other tests, whose disk this is too
    assert claim_ms < most_ms and record_ms < most_ms


@pytest.mark.parametrize(("backend", "limit_s"), [("torch", 3.0), ("jax", 4.0)])
def test_a_job_reaches_its_first_step_in_seconds(bench: Bench, backend: str, limit_s: float) -> None:
    """From the batch script's first line to the first checkpoint, without what compiling takes; a cache is kept.

    Beside other tests it is measured against a bare import of the framework in the same jobs.
    """
    steps = {"steps": 40, "evaluate_every": 2}  # so the first checkpoint is followed by others before it is removed
    given = base(model={"num_blocks": 2}, train=steps, run={"checkpoint_every_s": 0.0})
    path = write_yaml(bench.folder / "start.yaml", base=given, grid={"backend": backend, "seed": [0, 1, 2]})
    begin = bench.folder / "begin"
    note = f"date +%s.%N >> {begin}-$SLURM_ARRAY_TASK_ID"
    setup = [note, *([] if ALONE else [f"{sys.executable} -c 'import {backend}'", note])]
    environments = {backend: {"setup": setup}}
    cluster = {"environments": environments, "compile_cache": str(bench.folder / "compiled"), "cpus": 2}
    bench.submit(path, pack=1, array_parallelism=1, **cluster)
    first: dict[str, float] = {}

    def all_done() -> bool:
        for key in bench.store.trial_ids():
            if key not in first:
                with contextlib.suppress(FileNotFoundError):
                    first[key] = bench.store.checkpoint(key).stat().st_mtime
        return len(records(bench.store.root)) == 3

    wait_until(all_done, "all jobs are done")  # the files alone are watched: a call of squeue outlasts a checkpoint
    found = records(bench.store.root)
    starts, imports = [], []
    for index, (trial_id,) in enumerate(bench.arrays()[0].packs):
        compile_s = found[trial_id]["seconds"]["compile"]
        begun, *imported = map(float, Path(f"{begin}-{index}").read_text().split())
        starts.append(first[trial_id] - (imported or [begun])[-1] - compile_s)
        imports += [moment - begun for moment in imported]
        print(f"{backend}, job {index}: first step after {starts[-1]:.1f} s, and {compile_s:.1f} s of compiling")
    print(f"the bare import: {imports}")
    assert min(starts) < (limit_s if ALONE else 4 * max(imports))
