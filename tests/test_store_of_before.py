"""A store that was made when a model was not declared as layers yet: read, gone on with, and reported by this code."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

import analysis
from experiments.results.metrics import TOP5
from tests.conftest import Ended, records

STORE = Path(__file__).parent / "fixtures" / "store_of_2026_11"
DONE, INTERRUPTED = "1b86502b4c9c", "94ff019f08ef"  # the same trial on torch, and on jax after 25 of its 60 steps
# 35 steps in float64 with the sums of another processor; as in test_golden.py.
TOLERANCE = 1e-9


def numbers(tree: Any) -> list[float]:
    """Every number of a curve, in the order of its keys, but for a metric that was not there yet."""
    if isinstance(tree, dict):
        return [x for key in sorted(tree) if key != TOP5.name for x in numbers(tree[key])]
    if isinstance(tree, list):
        return [x for item in tree for x in numbers(item)]
    return [float(tree)] if isinstance(tree, (int, float)) else []


def test_a_store_of_before_is_read_resumed_and_reported(run: Any, tmp_path: Path) -> None:
    shutil.copytree(STORE, tmp_path / "runs")
    (tmp_path / "runs" / "old.yaml").rename(tmp_path / "old.yaml")
    before = (tmp_path / "runs" / "trials" / DONE / "record.json").read_bytes()

    status: Ended = run("status", "old.yaml")
    assert status.code == 0 and DONE in status.out and INTERRUPTED in status.out, status.err
    ended: Ended = run("run", "old.yaml")
    assert ended.code == 0, ended.err
    assert (tmp_path / "runs" / "trials" / DONE / "record.json").read_bytes() == before

    record = records(tmp_path / "runs")[INTERRUPTED]
    assert [session["first_step"] for session in record["sessions"]][-1] == 25
    expected = json.loads((STORE / "expected.json").read_text())
    np.testing.assert_allclose(numbers(record["curve"]), numbers(expected["curve"]), rtol=TOLERANCE)

    for words in (("report", "old"), ("show", DONE), ("show", INTERRUPTED), ("compare", "runs", "runs")):
        said: Ended = run(*words)
        assert said.code == 0 and "corrupt" not in said.out, said.err
    frame = analysis.load(tmp_path / "runs", "old")
    assert list(frame["status"]) == ["done", "done"] and list(frame["replicas"]) == [1, 1]
    np.testing.assert_allclose(*frame["last.test.loss"], rtol=TOLERANCE)  # torch of then against jax of now
