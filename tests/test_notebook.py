"""The notebook runs from its first cell to its last on a store of the demo, and its numbers are the report's."""

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt

from analysis.cells import cells
from analysis.frame import load
from experiments.design import archive
from experiments.design.ablation import load_ablation
from experiments.design.trials import trials
from experiments.results.record import RECORD_SCHEMA
from experiments.results.store import Store
from tests.conftest import ROOT
from tests.test_report_files import record

NOTEBOOK = json.loads((ROOT / "analysis" / "example.ipynb").read_text())
DEMO = ROOT / "experiments" / "ablations" / "demo.yaml"


def sources() -> list[str]:
    return ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def run(source: str, names: dict[str, Any]) -> Any:
    """What a notebook shows below a cell: the value of its last line, where that is an expression."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.fixture
def store(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """As `make demo` leaves one, beside the folder that a notebook is opened in."""
    (tmp_path / "analysis").mkdir()
    monkeypatch.chdir(tmp_path / "analysis")
    demo, store = load_ablation(DEMO), Store(tmp_path / "runs")
    planned = trials(demo, cache)
    for i, one in enumerate(planned):
        gain = 0.05 * (one.settings["model.token_mixing"] == "untied")
        found = record(0.8 + gain + 0.001 * (i * i % 7), parameters=1000 * (i + 1))
        store.finish(one.trial.id, {"schema": RECORD_SCHEMA, "id": one.trial.id, **found})
    archive.keep(store, demo, planned)
    return store


def test_every_cell_runs_and_the_means_are_those_of_the_table(store: Store) -> None:
    names: dict[str, Any] = {}
    shown = [run(source, names) for source in sources()]
    assert len(names["frame"]) == 24 and len(shown) >= 4
    table = cells(load_ablation(DEMO), load(store, "demo"))
    means = {
        (row["model.num_blocks"], row["model.token_mixing"], row["backend"]): row["mean"] for _, row in table.iterrows()
    }
    by_hand = shown[1]
    assert by_hand.shape == (4, 2)
    for (blocks, mixing), row in by_hand.iterrows():
        assert dict(row) == {name: round(100 * means[blocks, mixing, name], 1) for name in ("torch", "jax")}


def test_the_test_of_the_notebook_is_that_of_the_report(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for source in sources():
        run(source, names)
    table = cells(load_ablation(DEMO), load(store, "demo"))
    tested = table[(table["model.token_mixing"] == "untied") & (table["backend"] == "torch")]
    lines = [
        f"{row['model.num_blocks']} blocks: {100 * row['setting_difference']:+.2f} points, "
        f"p = {row['setting_p']:.2g}, {row['setting_pairs']} seeds"
        for _, row in tested.iterrows()
    ]
    assert capsys.readouterr().out.splitlines() == lines and len(lines) == 2


def test_it_draws_two_figures_of_the_trials_in_the_frame(store: Store) -> None:
    plt.close("all")
    names: dict[str, Any] = {}
    for source in sources():
        run(source, names)
    scatter, by_seed = map(plt.figure, plt.get_fignums())
    done = names["frame"]
    points = np.concatenate([np.asarray(c.get_offsets()) for c in scatter.axes[0].collections])
    expected = np.stack([done["parameters"], 100 * done["last.test.accuracy"]], axis=1)
    assert sorted(map(tuple, points)) == sorted(map(tuple, expected))
    for ax, blocks in zip(by_seed.axes, (2, 4), strict=True):
        assert ax.get_title() == f"{blocks} blocks"
        ends = [
            100
            * done[(done["model.num_blocks"] == blocks) & (done["model.token_mixing"] == mixing)]["last.test.accuracy"]
            for mixing in ("tied", "untied")
        ]
        for place, values in enumerate(ends):
            assert sorted(line.get_ydata()[place] for line in ax.lines) == sorted(values)
    plt.close("all")


def test_no_outputs_are_committed() -> None:
    assert [cell for cell in NOTEBOOK["cells"] if cell.get("outputs") or cell.get("execution_count")] == []
