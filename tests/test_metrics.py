"""The names of metrics stand in one place, and what a record holds in another."""

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.figures import curves
from analysis.frame import load
from analysis.page import answer
from analysis.report import Report, make_report
from analysis.run_sets import RunSet
from analysis.table.render import render_cells
from analysis.terminal.compare import compare_lines
from analysis.terminal.details import show_lines
from backends.arrays import Array
from backends.errors import MixlabError
from experiments import data
from experiments.design import archive
from experiments.design.ablation import GridTrial, load_ablation
from experiments.design.trials import trials
from experiments.machine.environment import ROOT
from experiments.results import metrics
from experiments.results.claims import Claim
from experiments.results.curves import best
from experiments.results.metrics import LOSS, METRICS, Metric
from experiments.results.record import make_record
from experiments.results.shape import faults
from experiments.results.store import Store
from experiments.training.evaluate import MEASURES
from experiments.training.loop import Loop
from experiments.training.trial_run import TrialRun
from tests.conftest import base, write_yaml
from tests.test_curve import LOGITS, Known

ERROR = Metric("error", "%", "points", 100, 1, 2, higher_is_better=False, most=1.0)


def error(logits: Array, labels: Array, loss: str) -> float:
    return float(np.mean(logits.argmax(1) != labels))


@pytest.fixture
def further(monkeypatch: pytest.MonkeyPatch) -> None:
    """A further metric, with all that it takes: its row, and the function that makes it."""
    monkeypatch.setitem(METRICS, "error", ERROR)
    monkeypatch.setitem(MEASURES, "error", error)


def train(planned: GridTrial, store: Store, cache: Path) -> None:
    trial = planned.trial
    splits, claim = data.load(trial.data, trial.info, cache), Claim(store.folder(trial.id))
    run = TrialRun(trial, store, claim, splits)
    loop = Loop([run], [run.restore()], Known(LOGITS), splits)  # type: ignore[arg-type]
    assert [error for _, error in loop.run(lambda: False)] == [None]
    about = data.in_record(trial.data, trial.info, cache)
    outcome = {"status": "done", "reason": None}
    store.finish(trial.id, make_record(trial, outcome, {}, 1.0, {"data": about, **run.result(1)}), claim)
    claim.release()


def report_of(folder: Path, cache: Path, metric: str, trains: bool = True) -> Report:
    often = base(train={"steps": 11, "evaluate_every": 1})  # points of 8 numbers, which fit into rows of 11 as well
    ablation = load_ablation(write_yaml(folder / "one.yaml", base=often, report={"metric": metric}))
    planned, store = trials(ablation, cache), Store(folder / "runs")
    if trains:
        for one in planned:
            train(one, store, cache)
        archive.keep(store, ablation, planned)
    return make_report(ablation, planned, store)


@pytest.mark.usefixtures("further")
def test_a_further_metric_is_a_row_and_its_measure(tmp_path: Path, cache: Path) -> None:
    report = report_of(tmp_path, cache, "last.test.error")
    store, (first, second) = report.store, report.frame["id"]
    record = store.record(first, with_curve=True)
    assert record is not None and list(faults(record, whole=True)) == []
    for point in (*record["curve"], record["metrics"]["best"]):
        assert point["test"]["error"] == pytest.approx(1 - point["test"]["accuracy"])
    wrong = [1 - value for value in report.frame["last.test.accuracy"]]
    assert list(load(store, "one")["last.test.error"]) == pytest.approx(wrong) and 0 < min(wrong) < 1
    text = render_cells(report.ablation, report.frame, report.table, "text", report.options)
    assert "last.test.error in % (less is better)" in text
    assert f"{100 * np.mean(wrong):.1f} ± {100 * np.std(wrong, ddof=1):.1f} (2)" in text
    assert report.curve((), "test.error")[1][:, -1] == pytest.approx(wrong)
    (drawn,) = curves.draw(report)
    assert any("test.error" in text for texts in drawn.values.values() for text in texts)
    assert any("test error" in line for line in show_lines(first, store))
    sets = [RunSet(key, Path(key), {"same": {**(store.record(key) or {})}}) for key in (first, second)]
    assert "last.test.error: " in "\n".join(compare_lines(*sets, "last.test.error"))


def test_records_without_a_further_metric_are_read_and_say_that_they_lack_it(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = report_of(tmp_path, cache, "last.test.accuracy")
    points = {column: before.curve((), column)[1] for column in metrics.curve_columns()}
    monkeypatch.setitem(METRICS, "error", ERROR)
    after = report_of(tmp_path, cache, "last.test.accuracy", trains=False)
    assert list(after.frame["last.test.accuracy"]) == list(before.frame["last.test.accuracy"])
    for column, values in points.items():
        np.testing.assert_array_equal(after.curve((), column)[1], values)
    assert np.isnan(after.curve((), "test.error")[1]).all()
    asked = report_of(tmp_path, cache, "best.test.error", trains=False)
    assert (
        render_cells(asked.ablation, asked.frame, asked.table, "text", asked.options).count("no best.test.error") == 1
    )


def test_every_metric_has_a_measure() -> None:
    assert METRICS.keys() == MEASURES.keys() and all(name == one.name for name, one in METRICS.items())


def test_the_names_of_metrics_are_spelled_in_no_other_module() -> None:
    """`loss` alone is also the name of a field, of a rung and of what a step gives back."""
    names = {"accuracy", *metrics.names(), *(name for name in metrics.curve_columns() if "." in name)}
    spelled = {
        (path.relative_to(ROOT).as_posix(), node.value)
        for room in ("analysis", "experiments", "mixlab", "slurm")
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in names
    }
    assert spelled == {("experiments/results/metrics.py", "accuracy")}, "take the name from results/metrics.py"


def test_the_best_point_follows_the_direction_of_what_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [{"validation": {"accuracy": 0.5, "loss": loss}} for loss in (0.3, 0.1, 0.1, 0.2)]
    assert best(points) is points[0]
    monkeypatch.setattr("experiments.results.curves.CHOOSES", LOSS)
    assert best(points) is points[1]


def test_the_answer_follows_the_direction_of_the_metric(tmp_path: Path, cache: Path) -> None:
    grid = {"train.learning_rate": [0.001, 0.002], "seed": [0]}
    for metric, better in (("last.test.accuracy", 0.001), ("last.test.loss", 0.002)):
        path = write_yaml(tmp_path / "two.yaml", grid=grid, report={"metric": metric})
        ablation = load_ablation(path)
        planned, store = trials(ablation, cache), Store(tmp_path / "runs")
        for one in planned:
            if store.record(one.trial.id) is None:
                train(one, store, cache)
                change(store, one, accuracy=0.9, loss=2.0 if one.trial.train.learning_rate == 0.001 else 1.0)
        change(store, planned[1], accuracy=0.8)
        assert f"learning rate {better}" in answer.sentences(make_report(ablation, planned, store))[0]


def change(store: Store, planned: GridTrial, **values: float) -> None:
    """The numbers of the last evaluation on validation, by which the best is chosen, and on test."""
    path = store.folder(planned.trial.id) / "record.json"
    record = json.loads(path.read_text())
    for split in ("validation", "test"):
        record["metrics"]["last"][split] |= values
    path.write_text(json.dumps(record))


def test_a_report_that_was_kept_with_an_unknown_metric_is_named(tmp_path: Path, cache: Path) -> None:
    report = report_of(tmp_path, cache, "last.test.accuracy")
    path = report.store.ablation("one") / archive.FILE
    tree: Any = json.loads(path.read_text())
    tree["ablation"]["report"]["metric"] = "last.test.error"
    path.write_text(json.dumps(tree))
    with pytest.raises(MixlabError, match=r"report\.metric: 'last\.test\.error' is not known"):
        archive.recall(report.store, "one")
