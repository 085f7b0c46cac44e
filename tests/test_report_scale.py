"""Ten thousand trials with curves of a hundred points: seconds and memory of a status and of reports.

`make report-scale` runs it whole and prints the figures; the short form is a tenth of it.
"""

import json
import math
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments.design import archive
from experiments.design.ablation import load_ablation
from experiments.results import predictions
from experiments.results.record import RECORD_SCHEMA
from experiments.results.store import Store
from experiments.spec.trial import Trial, as_tree
from tests.conftest import MEASURED, environment, planned, write_yaml
from tests.test_report_files import record

WHOLE = bool(os.environ.get("MIXLAB_REPORT_SCALE"))
TRIALS, CURVE_POINTS = (10_000 if WHOLE else 1_000), 100
# Limits for ten thousand, on 2 cores, and not beside other tests.
STATUS_S, FIRST_S, AGAIN_S, MEMORY_MIB, PAGE_BYTES = 3.0, 15.0, 8.0, 1024, 5_000_000
SLOWER = 1 if WHOLE else 4
RATE, BLOCKS = "train.learning_rate", "model.num_blocks"
RATES = [round(0.001 * (i + 1), 3) for i in range(20)]


@dataclass(frozen=True)
class Shape:
    """A grid of TRIALS."""

    name: str
    grid: dict[str, list[Any]]  # without seeds, of which there are as many as it takes
    num_examples: int = 0  # of the test and of the validation split that predictions are kept of


FEW, MANY = {RATE: RATES, BLOCKS: list(range(1, 11))}, {RATE: RATES, BLOCKS: list(range(1, 51))}
SHAPES = [
    Shape("200 cells with predictions of 360 examples", FEW, 360),
    Shape("200 cells", FEW),
    Shape("2,000 cells, a half on each framework", {**MANY, "backend": ["torch", "jax"]}),
]


def cpu_s() -> float:
    """Seconds that ended children have computed, whatever else the machine did."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(folder: Path, *words: str) -> tuple[float, float]:
    """Seconds and MiB of a command."""
    began, before = time.monotonic(), cpu_s()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *words], cwd=folder, env=environment(), capture_output=True, text=True
    )
    seconds, memory = time.monotonic() - began, int(done.stderr.split()[-1]) / 1024
    assert done.returncode == 0, done.stderr
    print(f"{' '.join(words)}, {TRIALS:,} trials: {seconds:.1f} s, {cpu_s() - before:.1f} s of CPU, {memory:.0f} MiB")
    return seconds, memory


def put(store: Store, trial: Trial, place: int, num_examples: int) -> None:
    """Write the record of a trial, with its predictions if there are examples."""
    folder, accuracy = store.folder(trial.id), 0.5 + (place * 7919 % 1000) / 2500
    folder.mkdir(parents=True)
    if num_examples:
        rng, labels = np.random.default_rng(place), np.arange(2 * num_examples) % 10
        halves = {"validation": np.arange(num_examples), "test": np.arange(num_examples, 2 * num_examples)}
        said = {split: np.where(rng.random(num_examples) < accuracy, labels[one], 10) for split, one in halves.items()}
        said = {split: classes.astype(np.uint8) for split, classes in said.items()}
        splits: Any = SimpleNamespace(labels=labels, **halves)
        predictions.keep(folder, splits, "x", {"last": said, "best": said})
        accuracy = float((said["test"] == labels[halves["test"]]).mean())
    whole = record(accuracy, points=CURVE_POINTS)
    text = json.dumps({"schema": RECORD_SCHEMA, "id": trial.id, "spec": as_tree(trial), **whole}, indent=1)
    (folder / "record.json").write_text(text + "\n")


@pytest.mark.parametrize("shape", SHAPES if WHOLE else SHAPES[:1], ids=lambda shape: shape.name)
def test_a_large_grid_is_reported_in_seconds(tmp_path: Path, shape: Shape) -> None:
    report: dict[str, Any] = {"rows": [RATE, BLOCKS], "baseline": {RATE: RATES[0]}}
    report |= {"equivalence": {"margin": 0.01}} if "backend" in shape.grid else {}
    grid = {**shape.grid, "seed": list(range(TRIALS // math.prod(map(len, shape.grid.values()))))}
    path, store = write_yaml(tmp_path / "large.yaml", grid=grid, report=report), Store(tmp_path / "runs")
    trials = planned(path, store.data)
    archive.keep(store, load_ablation(path), trials)
    for place, one in enumerate(trials):
        put(store, one.trial, place, shape.num_examples)
    print(f"{shape.name}:")
    status_s, _ = timed(tmp_path, "status", "large")
    first_s, memory = timed(tmp_path, "report", "large.yaml")
    again_s, _ = timed(tmp_path, "report", "large.yaml")
    page = store.root / "ablations" / "large" / "report" / "report.html"
    print(f"the page: {page.stat().st_size / 1e6:.2f} MB")
    assert status_s < SLOWER * STATUS_S and first_s < SLOWER * FIRST_S and again_s < SLOWER * AGAIN_S
    assert memory < MEMORY_MIB and page.stat().st_size < PAGE_BYTES
    table = json.loads((page.parent / "table.json").read_text())
    assert {cell["over"] for cell in table["cells"]} == {"", "seeds and examples" if shape.num_examples else "seeds"}
