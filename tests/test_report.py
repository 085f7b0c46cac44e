"""The table of an ablation, against cells worked out by hand."""

import csv
import io
import json
import math
import os
import statistics
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scipy import stats

from analysis.frame import trials_frame
from analysis.table.layout import aligned, markdown
from analysis.table.render import cells, render
from experiments.design.ablation import load_ablation
from experiments.design.trials import trials
from experiments.results.claims import Claim
from experiments.results.record import RECORD_SCHEMA
from experiments.results.store import Store
from tests.conftest import write_yaml

BLOCKS, MIXING = "model.num_blocks", "model.token_mixing"
GRID = {BLOCKS: [2, 1], MIXING: ["untied", "tied"], "seed": [0, 1, 2]}
REPORT = {"rows": [BLOCKS], "columns": [MIXING]}
SECONDS = {"compile": 1.0, "train": 2.0, "evaluate": 3.0}


def done(accuracy: float | None, loss: float | None = 0.5, best: float | None = None) -> dict[str, Any]:
    """A record's part: the same metrics on every split."""
    last = {split: {"accuracy": accuracy, "loss": loss} for split in ("train", "validation", "test")}
    first = {split: {"accuracy": best, "loss": loss} for split in last}
    metrics = {"last": {"step": 6, **last}, "best": {"step": 3, **first}}
    numbers = {
        "steps": 6,
        "forward_flops_per_image": 5,
        "images_per_s": 1.0,
        "parameters": 2,
        "training_flops": 3,
        "peak_memory_bytes": 4,
    }
    return {"status": "done", "reason": None, "metrics": metrics, "seconds": SECONDS, "sessions": [], **numbers}


FAILED = {"status": "failed", "reason": "diverged at step 3"}
RUNNING = "running"


class Bench:
    """An ablation and a store whose records are written by hand, in the order of the grid."""

    def __init__(self, folder: Path, cache: Path, **keys: Any):
        self.ablation = load_ablation(write_yaml(folder / "one.yaml", **{"grid": GRID, "report": REPORT, **keys}))
        self.trials = trials(self.ablation, cache)
        self.store = Store(folder / "runs")

    def put(self, *outcomes: dict[str, Any] | str | None) -> "Bench":
        for planned, outcome in zip(self.trials, outcomes, strict=False):
            key = planned.trial.id
            if outcome == RUNNING:
                Claim(self.store.folder(key))
            elif isinstance(outcome, dict):
                (self.store.folder(key) / "record.json").unlink(missing_ok=True)  # a done one stays
                self.store.finish(key, {"schema": RECORD_SCHEMA, "id": key, "notes": [], **outcome})
        return self

    @property
    def frame(self) -> pd.DataFrame:
        return trials_frame(self.ablation, self.trials, self.store)

    @property
    def cells(self) -> list[dict[str, Any]]:
        return [
            {str(key): value for key, value in row.items()}
            for row in cells(self.ablation, self.frame).to_dict("records")
        ]

    def text(self, style: str = "text") -> str:
        return render(self.ablation, self.frame, style)

    def table(self) -> list[list[str]]:
        """Header and rows of the Markdown table."""
        lines = [line for line in self.text("markdown").splitlines() if line.startswith("|")]
        return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in (lines[0], *lines[2:])]


@pytest.fixture
def bench(tmp_path: Path, cache: Path) -> Any:
    return lambda **keys: Bench(tmp_path, cache, **keys)


def test_mean_and_standard_deviation_are_those_of_a_sample(bench: Any) -> None:
    made = bench().put(done(0.5), done(0.6), done(0.7), done(0.25), done(0.25), done(0.25))
    first, second, *_ = made.cells
    assert (first[BLOCKS], first[MIXING], first["n"], first["planned"]) == (2, "untied", 3, 3)
    assert first["mean"] == pytest.approx(0.6, abs=1e-15) and first["std"] == pytest.approx(0.1, abs=1e-15)
    assert (second["mean"], second["std"]) == (0.25, 0.0)
    assert made.table()[1][1:] == ["60.0 ± 10.0 (3)", "25.0 ± 0.0 (3)"]


def test_rows_and_columns_stand_in_the_order_of_the_grid(bench: Any) -> None:
    made = bench()
    assert [(cell[BLOCKS], cell[MIXING]) for cell in made.cells] == [
        (2, "untied"),
        (2, "tied"),
        (1, "untied"),
        (1, "tied"),
    ]
    table = made.table()
    assert table[0] == ["num_blocks", "untied", "tied"] and [row[0] for row in table[1:]] == ["2", "1"]


def test_what_is_not_done_is_counted_by_its_state_and_not_averaged(bench: Any) -> None:
    made = bench().put(
        *(done(0.5), done(0.7), FAILED),
        *(done(0.5), None, RUNNING),
        *(FAILED, FAILED, None),
        *(RUNNING, None, None),
    )
    counts = [[cell[name] for name in ("n", "planned", "failed", "running", "missing")] for cell in made.cells]
    assert counts == [[2, 3, 1, 0, 0], [1, 3, 0, 1, 1], [0, 3, 2, 0, 1], [0, 3, 0, 1, 2]]
    assert [cell["mean"] for cell in made.cells[:2]] == [pytest.approx(0.6), 0.5]
    assert all(math.isnan(cell["mean"]) for cell in made.cells[2:])
    table = made.table()
    assert table[1][1:] == ["60.0 ± 14.1 (2 of 3)", "50.0 ± ? (1 of 3)"]
    assert table[2][1:] == ["2 failed, 1 missing", "1 running, 2 missing"]
    text = made.text()
    assert text.count("failed: diverged at step 3") == 3 and f"process {os.getpid()} on" in text
    assert "nan" not in text.lower()


def test_one_seed_has_no_spread(bench: Any) -> None:
    made = bench(grid={BLOCKS: [1, 2], "seed": [0]}, report={"rows": [BLOCKS]}).put(done(0.5), done(0.25))
    assert all(math.isnan(cell["std"]) for cell in made.cells)
    assert [row[1] for row in made.table()[1:]] == ["50.0 ± ? (1)", "25.0 ± ? (1)"]
    assert "one seed has no spread" in made.text()


def test_nan_is_never_averaged_away(bench: Any) -> None:
    made = bench().put(done(None), done(0.6), done(0.7), done(0.5), done(0.5), done(0.5))
    assert made.cells[0]["n"] == 3 and math.isnan(made.cells[0]["mean"]) and made.cells[1]["mean"] == 0.5
    assert made.table()[1][1] == "no last.test.accuracy (3)"
    (cell, *_) = json.loads(made.text("json"), parse_constant=pytest.fail)["cells"]
    assert cell["mean"] is None and cell["n"] == 3


def test_a_metric_that_no_trial_has_is_said_so(bench: Any) -> None:
    outcome = done(0.5)
    outcome["metrics"]["last"]["validation"] = None
    report = {**REPORT, "metric": "last.validation.loss"}
    made = bench(report=report, grid={**GRID, "seed": [0]}).put(outcome, outcome, outcome, outcome)
    assert made.table()[1][1:] == ["no last.validation.loss (1)"] * 2


@pytest.mark.parametrize(
    ("metric", "cell"),
    [
        ("last.test.accuracy", "30.0 ± 14.1 (2)"),
        ("best.train.accuracy", "60.0 ± 14.1 (2)"),
        ("last.train.loss", "1.2500 ± 0.3536 (2)"),
    ],
)
def test_the_metric_is_the_one_asked_for_in_its_unit(bench: Any, metric: str, cell: str) -> None:
    made = bench(grid={"seed": [0, 1]}, report={"metric": metric}).put(done(0.2, 1.0, 0.5), done(0.4, 1.5, 0.7))
    assert made.table() == [[metric], [cell]]
    assert ("in %" if "accuracy" in metric else "in nats") in made.text()


def test_a_baseline_gives_differences_of_means(bench: Any) -> None:
    report = {**REPORT, "baseline": {MIXING: "tied"}}
    made = bench(report=report).put(*map(done, (0.5, 0.6, 0.7, 0.2, 0.3, 0.4, 0.1, 0.1, 0.1, 0.3, 0.3, 0.3)))
    differences = [cell["difference"] for cell in made.cells]
    assert differences[0] == pytest.approx(0.3) and differences[2] == pytest.approx(-0.2)
    assert math.isnan(differences[1]) and math.isnan(differences[3])  # the baseline itself
    table = made.table()
    assert table[1][1:] == ["60.0 ± 10.0 (3) +30.0", "30.0 ± 10.0 (3)"] and table[2][1] == "10.0 ± 0.0 (3) -20.0"
    assert "difference to token_mixing=tied" in made.text()


def test_a_difference_to_a_baseline_without_a_mean_is_none(bench: Any) -> None:
    report = {**REPORT, "baseline": {MIXING: "tied"}}
    made = bench(report=report).put(*map(done, (0.5, 0.6, 0.7)), FAILED, None, None)
    assert math.isnan(made.cells[0]["difference"]) and made.table()[1][1:] == ["60.0 ± 10.0 (3)", "1 failed, 2 missing"]


def test_a_baseline_of_two_fields_is_one_cell(bench: Any) -> None:
    report = {**REPORT, "baseline": {MIXING: "tied", BLOCKS: 1}}
    made = bench(report=report, grid={**GRID, "seed": [0]}).put(*map(done, (0.5, 0.4, 0.3, 0.1)))
    assert [cell["difference"] for cell in made.cells[:3]] == [pytest.approx(d) for d in (0.4, 0.3, 0.2)]


def test_none_is_a_value_of_an_axis_like_others(bench: Any) -> None:
    grid = {"model.tokens_mlp_dim": [None, 7], "seed": [0, 1]}
    made = bench(grid=grid, report={"rows": ["model.tokens_mlp_dim"], "baseline": {"model.tokens_mlp_dim": None}})
    made.put(*map(done, (0.2, 0.4, 0.6, 0.8)))
    assert [(cell["n"], cell["planned"]) for cell in made.cells] == [(2, 2), (2, 2)]
    assert [cell["mean"] for cell in made.cells] == [pytest.approx(0.3), pytest.approx(0.7)]
    assert made.cells[1]["difference"] == pytest.approx(0.4)
    assert [row[0] for row in made.table()[1:]] == ["None", "7"]
    found = json.loads(made.text("json"))["cells"]
    assert [cell["model.tokens_mlp_dim"] for cell in found] == [None, 7]


def test_fields_that_only_some_points_set_take_their_base_or_default(bench: Any) -> None:
    grid = [{MIXING: "untied", "seed": [0, 1]}, {BLOCKS: 2, "seed": [0, 1]}]
    made = bench(grid=grid, report={"rows": [MIXING, BLOCKS]}).put(*map(done, (0.2, 0.4, 0.6, 0.8)))
    assert [(cell[MIXING], cell[BLOCKS], cell["n"]) for cell in made.cells] == [("untied", 1, 2), ("tied", 2, 2)]


def test_a_cell_that_the_grid_does_not_have_is_a_dash(bench: Any) -> None:
    made = bench(exclude=[{BLOCKS: 1, MIXING: "tied"}])
    assert made.table()[2] == ["1", "3 missing", "—"]


def test_csv_and_json_hold_the_cells(bench: Any) -> None:
    made = bench().put(done(0.1), done(0.2), done(0.4), FAILED)
    lines = list(csv.DictReader(io.StringIO(made.text("csv"))))
    found = json.loads(made.text("json"))
    assert found["ablation"] == "one" and found["metric"] == "last.test.accuracy"
    names = (BLOCKS, MIXING, "n", "planned", "failed", "running", "missing")
    for cell, line, other in zip(made.cells, lines, found["cells"], strict=True):
        assert [str(cell[name]) for name in names] == [line[name] for name in names]
        assert [cell[name] for name in names] == [other[name] for name in names]
        for name in ("mean", "std", "difference"):
            if math.isnan(cell[name]):
                assert line[name] == "" and other[name] is None
            else:
                assert float(line[name]) == cell[name] and other[name] == pytest.approx(cell[name], rel=1e-12)


def test_json_keeps_small_numbers(bench: Any) -> None:
    made = bench(grid={"seed": [0, 1]}, report={"metric": "last.test.loss"}).put(
        done(1.0, 1.23456789e-12), done(1.0, 3e-12)
    )
    (cell,) = json.loads(made.text("json"))["cells"]
    assert cell["mean"] == pytest.approx(made.cells[0]["mean"], rel=1e-12)


def test_markdown_escapes_the_sign_of_its_columns() -> None:
    lines = markdown([["label", "n"], ["a|b", "1"]])
    assert lines == ["| label | n |", "|---|---|", "| a\\|b | 1 |"]
    assert "a|b " in aligned([["label", "n"], ["a|b", "1"]])[2]


def test_heads_of_numbers_name_their_field_and_words_stand_alone(bench: Any) -> None:
    made = bench(report={"rows": [], "columns": [BLOCKS, MIXING]})
    assert made.table()[0] == ["num_blocks=2 untied", "num_blocks=2 tied", "num_blocks=1 untied", "num_blocks=1 tied"]


def test_a_trial_that_is_missing_is_named_with_its_settings(bench: Any) -> None:
    made = bench(grid={BLOCKS: [1, 2], "seed": [0]}, report={"rows": [BLOCKS]}).put(done(0.5), None)
    assert f"{made.trials[1].trial.id} (num_blocks=2 seed=0) missing" in made.text()


def test_the_heading_says_what_is_asked_and_shown(bench: Any) -> None:
    lines = bench(question="Does it help?").text().splitlines()
    assert lines[0] == "one: Does it help?"
    assert lines[1] == "last.test.accuracy in %, mean ± standard deviation over seeds (n)"


def test_values_that_differ_in_the_ninth_digit_are_told_apart(bench: Any) -> None:
    rates = {"train.learning_rate": [0.00123456789, 0.00123456780], "seed": [0]}
    rows = [row[0] for row in bench(grid=rates, report={"rows": ["train.learning_rate"]}).table()[1:]]
    assert rows == ["0.00123456789", "0.0012345678"]


def test_a_record_of_another_schema_is_named_and_hides_no_other(bench: Any) -> None:
    made = bench(grid={BLOCKS: [1, 2], "seed": [0]}, report={"rows": [BLOCKS]}).put(done(0.5), done(0.25))
    path = made.store.folder(made.trials[1].trial.id) / "record.json"
    path.write_text(path.read_text().replace(f'"schema": {RECORD_SCHEMA}', '"schema": 99'))
    assert [row[1] for row in made.table()[1:]] == ["50.0 ± ? (1)", "1 missing"]
    assert "has schema 99" in made.text()


def test_many_notes_are_cut_with_their_number(bench: Any) -> None:
    made = bench(grid={"seed": list(range(130))}, report={})
    lines = made.text().splitlines()
    assert sum(line.split()[:1] == [one.trial.id] for line in lines for one in made.trials) == 100
    assert lines[-1].startswith("and 30 more")


# --- statistical parity ----------------------------------------------------------------------------------------------

PAIRED = {"model.num_blocks": [1, 2], "backend": ["torch", "jax"], "seed": [0, 1, 2, 3]}
EQUIVALENT = {"rows": [BLOCKS], "columns": ["backend"], "equivalence": {"between": "backend", "margin": 0.02}}


def tost(differences: list[float], margin: float) -> float:
    """Two one-sided t-tests, from their definition."""
    n, mean = len(differences), statistics.mean(differences)
    error = statistics.stdev(differences) / math.sqrt(n)
    upper, lower = (mean - margin) / error, (mean + margin) / error
    return float(max(stats.t.cdf(upper, n - 1), stats.t.sf(lower, n - 1)))


def test_equivalence_is_two_one_sided_tests_over_paired_seeds(bench: Any) -> None:
    torch, jax = (0.5, 0.6, 0.7, 0.65), (0.501, 0.598, 0.703, 0.65)
    far = (0.46, 0.57, 0.66, 0.6)
    made = bench(grid=PAIRED, report=EQUIVALENT).put(*map(done, (*torch, *jax, *torch, *far)))
    found = [(cell["equivalence_p"], cell["equivalence_n"]) for cell in made.cells]
    assert math.isnan(found[0][0]) and math.isnan(found[2][0])  # torch is what is compared with
    expected = [tost([b - a for a, b in zip(torch, other, strict=True)], 0.02) for other in (jax, far)]
    assert [found[1][0], found[3][0]] == [pytest.approx(p, rel=1e-9) for p in expected]
    assert expected[0] < 0.001 < 0.95 < expected[1] and found[1][1] == found[3][1] == 4
    table = made.table()
    assert table[0] == ["num_blocks", "torch", "jax", "jax p (n, largest)"]
    assert [row[-1] for row in table[1:]] == ["<0.001 (4, 0.30)", f"{expected[1]:.3f} (4, 5.00)"]
    test = "two one-sided t-tests (TOST) against a difference of 2 points or more between backends, over n paired seeds"
    assert test in made.text() and "test examples fixed, no correction" in made.text()


def test_equivalence_pairs_only_seeds_that_both_have(bench: Any) -> None:
    made = bench(grid=PAIRED, report=EQUIVALENT)
    made.put(done(0.5), done(0.6), done(0.7), FAILED, FAILED, done(0.601), done(0.702), done(0.9))
    (_, jax, _, nothing) = made.cells
    assert jax["equivalence_n"] == 2 and jax["equivalence_p"] == pytest.approx(tost([0.001, 0.002], 0.02), rel=1e-9)
    assert nothing["equivalence_n"] == 0 and math.isnan(nothing["equivalence_p"])
    assert [row[-1] for row in made.table()[1:]] == ["0.009 (2, 0.20)", "—"]


@pytest.mark.parametrize(("shift", "p", "shown"), [(0.0, 0.0, "same (4)"), (0.5, 1.0, "differ (4)")])
def test_differences_without_spread_are_inside_or_outside(bench: Any, shift: float, p: float, shown: str) -> None:
    grid = {"backend": ["torch", "jax"], "seed": [0, 1, 2, 3]}
    report = {"rows": [], "columns": ["backend"], "equivalence": {"margin": 0.02}}
    values = (0.25, 0.375, 0.5, 0.4375)
    made = bench(grid=grid, report=report).put(*map(done, values), *(done(value + shift) for value in values))
    assert made.cells[1]["equivalence_p"] == p and made.table()[1][-1] == shown


def test_one_pair_or_a_nan_gives_no_p(bench: Any) -> None:
    one = bench(grid={**PAIRED, "seed": [0]}, report=EQUIVALENT).put(done(0.5), done(0.5), done(None), done(0.5))
    assert [row[-1] for row in one.table()[1:]] == ["? (1)", "? (1)"]
    assert json.loads(one.text("json"))["cells"][1]["equivalence_p"] is None


def test_equivalence_of_rows_has_a_column_for_each_column(bench: Any) -> None:
    report = {"rows": [MIXING], "columns": [BLOCKS], "equivalence": {"between": MIXING, "margin": 0.02}}
    grid = {MIXING: ["tied", "untied"], BLOCKS: [1, 2], "seed": [0, 1]}
    made = bench(grid=grid, report=report).put(*map(done, (0.5, 0.6, 0.5, 0.6, 0.5, 0.601, 0.7, 0.9)))
    table = made.table()
    assert table[0][1:] == [
        "num_blocks=1",
        "num_blocks=2",
        "num_blocks=1 p (n, largest)",
        "num_blocks=2 p (n, largest)",
    ]
    assert table[1][3:] == ["—", "—"] and [cell.split(" ", 1)[1] for cell in table[2][3:]] == [
        "(2, 0.10)",
        "(2, 30.00)",
    ]


def test_a_trial_of_two_backends_is_named(bench: Any) -> None:
    def of(*names: str) -> dict[str, Any]:
        return {**done(0.5), "sessions": [{"backend": {"name": name}} for name in names]}

    made = bench(grid={"seed": [0, 1, 2, 3]}, report={})
    made.put(of("torch", "torch"), of("torch", "torch", "jax"), of("torch", "jax", "torch"), of("jax"))
    ids, text = [one.trial.id for one in made.trials], made.text()
    assert f"{ids[0]} (" not in text
    assert f"{ids[1]} (seed=1) was trained on torch, then jax\n" in text
    assert f"{ids[2]} (seed=2) was trained on torch, then jax, then torch\n" in text
    assert f"{ids[3]} (seed=3) was trained on jax\n" in text
    assert "was trained on" not in bench(grid={"seed": [2]}, report={}).put(done(0.5)).text()
