"""What the tests of exports share: a small store that is half done, and what its trials say."""

import json
from pathlib import Path
from typing import Any

from experiments.results.store import Store
from tests.test_report_files import MIXING, Bench, record

GRID: dict[str, list[Any]] = {MIXING: ["tied", "untied"], "backend": ["torch", "jax"], "seed": [0, 1]}
REPORT = {
    "rows": [MIXING],
    "columns": ["backend"],
    "baseline": {MIXING: "tied"},
    "metric": "last.validation.accuracy",
}
LABELS = {MIXING: {"_": "token MLP", "untied": "per channel"}}
TEST = 0.123456  # the accuracy on test of all trials, which no other number is
RUNNING, FAILED = -2, -1  # the last two trials, both of one cell


def accuracy(i: int) -> float:
    """The last accuracy on train and validation of the i-th trial."""
    return 0.5 + 0.01 * i


def outcome(i: int, **parts: Any) -> dict[str, Any]:
    """The record of the i-th trial, done; evaluated at steps 1 to 4."""
    made = record(accuracy(i), **parts)
    for point in made["curve"]:  # the last of which is that of its metrics
        point["test"] = {"accuracy": TEST, "loss": TEST}
    return {**made, "started": 100.0 + i, "finished": 200.0 + i}


def store_of(folder: Path, cache: Path, **keys: Any) -> Bench:
    """Eight trials, of which six are done, one runs and one has failed."""
    bench = Bench(folder, cache, **{"grid": GRID, "report": REPORT, "labels": LABELS, **keys})
    found = [outcome(i) for i in range(len(bench.trials))]
    found[FAILED] = {**found[FAILED], "status": "failed", "reason": "boom", "cause": "error"}
    found[FAILED]["curve"] = found[FAILED]["curve"][:1]
    bench.put(*found[:RUNNING], None, found[FAILED])
    grow(bench, 2)
    return bench


def grow(bench: Bench, points: int) -> None:
    """The running trial has so many evaluations now."""
    lines = [json.dumps(point) + "\n" for point in outcome(len(bench.trials) + RUNNING)["curve"][:points]]
    folder = running(bench)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(lines))


def finish(bench: Bench) -> None:
    """The running trial is done now."""
    places = len(bench.trials) + RUNNING
    bench.put(*[None] * places, outcome(places))


def running(bench: Bench) -> Path:
    return Store(bench.store.root).folder(bench.trials[RUNNING].trial.id)
