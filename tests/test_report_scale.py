"""Ten thousand trials with curves of a hundred points: seconds and memory of a status and of reports.

`make report-scale` runs it whole and prints the figures; the short form is a tenth of it.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from experiments.design import archive
from experiments.design.ablation import load_ablation
from experiments.results.record import RECORD_SCHEMA
from experiments.results.store import Store
from experiments.spec.trial import as_tree
from tests.conftest import MEASURED, environment, planned, write_yaml
from tests.test_report_files import record

WHOLE = bool(os.environ.get("MIXLAB_REPORT_SCALE"))
TRIALS, CURVE_POINTS = (10_000 if WHOLE else 1_000), 100
# Limits for ten thousand, on 2 cores, and not beside other tests.
STATUS_S, REPORT_S, MEMORY_MIB, PAGE_BYTES = 3.0, 15.0, 1024, 5_000_000
SLOWER = 1 if WHOLE else 4


def timed(folder: Path, *words: str) -> tuple[float, float]:
    """Seconds and MiB of a command."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *words], cwd=folder, env=environment(), capture_output=True, text=True
    )
    seconds, memory = time.monotonic() - began, int(done.stderr.split()[-1]) / 1024
    assert done.returncode == 0, done.stderr
    print(f"{' '.join(words)}, {TRIALS:,} trials: {seconds:.1f} s, {memory:.0f} MiB")
    return seconds, memory


def test_a_large_grid_is_reported_in_seconds(tmp_path: Path) -> None:
    """200 cells of 50 seeds, a sweep of 20 rates on 10 depths."""
    rates = [round(0.001 * (i + 1), 3) for i in range(20)]
    grid = {"train.learning_rate": rates, "model.num_blocks": list(range(1, 11)), "seed": list(range(TRIALS // 200))}
    report = {"rows": ["train.learning_rate", "model.num_blocks"], "baseline": {"train.learning_rate": 0.001}}
    path, store = write_yaml(tmp_path / "large.yaml", grid=grid, report=report), Store(tmp_path / "runs")
    trials = planned(path, store.data)
    archive.keep(store, load_ablation(path), trials)
    for i, one in enumerate(trials):
        whole = record(0.5 + (i * 7919 % 1000) / 2500, points=CURVE_POINTS)
        text = json.dumps({"schema": RECORD_SCHEMA, "id": one.trial.id, "spec": as_tree(one.trial), **whole}, indent=1)
        store.folder(one.trial.id).mkdir(parents=True)
        (store.folder(one.trial.id) / "record.json").write_text(text + "\n")
    status_s, _ = timed(tmp_path, "status", "large")
    first_s, memory = timed(tmp_path, "report", "large.yaml")
    again_s, _ = timed(tmp_path, "report", "large.yaml")
    page = store.root / "ablations" / "large" / "report" / "report.html"
    print(f"the page: {page.stat().st_size / 1e6:.2f} MB")
    assert status_s < SLOWER * STATUS_S and max(first_s, again_s) < SLOWER * REPORT_S
    assert memory < MEMORY_MIB and page.stat().st_size < PAGE_BYTES
