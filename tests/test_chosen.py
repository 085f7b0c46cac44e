"""What a report chooses by, and what it puts into one trend."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.page.answer import sentences
from analysis.page.paper import DATA, FINDINGS, findings
from analysis.table import trends
from experiments.design.ablation import load_ablation
from tests.conftest import write_yaml
from tests.test_report_files import BLOCKS, MIXING, Bench, record


@pytest.fixture
def bench(tmp_path: Path, cache: Path) -> Any:
    return lambda **keys: Bench(tmp_path, cache, **keys)


def on_splits(validation: float | None, test: float, parameters: int = 100) -> dict[str, Any]:
    made = record(test, parameters=parameters)
    for point in (made["metrics"]["last"], made["metrics"]["best"]):
        point["validation"] = None if validation is None else {"accuracy": validation, "loss": 0.5}
    return made


def test_the_best_cell_is_chosen_on_validation_and_told_by_its_test_number(bench: Any) -> None:
    made = bench(grid={MIXING: ["tied", "untied"], "seed": [0]}, report={"rows": [MIXING]})
    (said,) = sentences(made.put(on_splits(0.8, 0.6), on_splits(0.7, 0.9)).report())
    assert said.startswith("Best on validation of 2 settings: tied token mixing. Its test accuracy is 60.0 %, n = 1")
    (said,) = sentences(made.put(on_splits(0.8, 0.6), on_splits(None, 0.9)).report())
    assert said.startswith(
        "Best on test, by which it was chosen, of 2 settings: untied token mixing. Its test accuracy is"
    )


def test_a_trend_is_of_cells_that_differ_in_the_swept_field_alone(bench: Any) -> None:
    """Untied is better and larger; along the depth nothing changes, whatever the size."""
    made = bench(grid={BLOCKS: [1, 2, 4], MIXING: ["tied", "untied"], "seed": [0]}, report={"rows": [BLOCKS, MIXING]})
    sizes = {"tied": 100, "untied": 1000}
    made.put(
        *(
            record({"tied": 0.5, "untied": 0.8}[one.settings[MIXING]], parameters=sizes[one.settings[MIXING]] * (i + 3))
            for i, one in enumerate(made.trials)
        )
    )
    found = list(trends.trends(made.report()))
    assert [(one.what, one.rest) for one in found] == [
        (what, f"{mixing} token mixing")
        for mixing in ("tied", "untied")
        for what in ("number of blocks", "parameters by number of blocks")
    ]
    assert all(one.trend.n == 3 and abs(one.trend.slope) < 1e-12 for one in found)
    x = np.log2([float(cell["parameters"]) for cell in made.report().rows.values()])
    pooled = np.polyfit(x, [float(cell["mean"]) for cell in made.report().rows.values()], 1)[0]
    assert pooled > 0.05 and not math.isnan(pooled)  # what all cells together would show


def test_a_finding_of_the_paper_on_other_data_says_so(bench: Any) -> None:
    made = bench(grid={MIXING: ["tied", "untied"], "model.position_embedding": ["none", "learned"], "seed": [0]},
                 report={"rows": [MIXING, "model.position_embedding"]})  # fmt: skip
    mixing, position = findings(made.ablation)
    assert mixing.startswith(FINDINGS[MIXING]) and "Found on JFT-300M and ImageNet" in mixing
    assert mixing.endswith("on synthetic it need not hold.")
    assert position == FINDINGS["model.position_embedding"] and "model.position_embedding" not in DATA


@pytest.mark.parametrize(
    ("field", "values", "is_said"),
    [
        (MIXING, ["tied", "grouped"], True),
        (MIXING, ["tied", "pooling", "untied"], True),
        (MIXING, ["tied", "pooling", "identity"], False),
        ("model.channel_mixing", ["tied", "untied"], True),
        ("data.fraction", [0.5, 1.0], True),
    ],
)
def test_a_finding_is_told_where_two_of_its_values_are_in_the_table(
    tmp_path: Path, field: str, values: list[Any], is_said: bool
) -> None:
    path = write_yaml(tmp_path / "one.yaml", grid={field: values, "seed": [0]}, report={"rows": [field]})
    found = findings(load_ablation(path))
    assert len(found) == is_said and all(one.startswith(FINDINGS[field]) for one in found)
