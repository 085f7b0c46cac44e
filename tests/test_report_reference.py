"""The page that explains a report has every key and every number of it, and no others."""

import dataclasses
import re
from pathlib import Path

import pytest

from analysis.labels import keys
from experiments.design.report_spec import EquivalenceSpec, ReportSpec
from experiments.results.metrics import BEST, LAST, METRICS, SPLITS
from tests.documents import text_of
from tests.test_report import BLOCKS, GRID, MIXING, Bench, done

PAGE = text_of("analysis/reference.md")


def named(section: str) -> set[str]:
    """What stands in the first column of a section's table."""
    table = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return {
        name for row in table.splitlines() if row[:1] == "|" for name in re.findall(r"`([^`]+)`", row.split("|")[1])
    }


def test_every_key_of_a_report_is_explained() -> None:
    own = {field.name for field in dataclasses.fields(ReportSpec)}
    inside = {f"equivalence.{field.name}" for field in dataclasses.fields(EquivalenceSpec)}
    assert own | inside <= named("Keys of `report:`")


def test_the_columns_of_a_table_are_those_that_are_explained(tmp_path: Path, cache: Path) -> None:
    grid, report = {**GRID, "backend": ["torch", "jax"]}, {
        "rows": [BLOCKS], "columns": [MIXING, "backend"], "baseline": {MIXING: "tied"}, "equivalence": {"margin": 0.01}
    }  # fmt: skip
    made = Bench(tmp_path, cache, grid=grid, report=report).put(done(0.5))
    assert {name for name in made.cells[0] if name not in keys(made.ablation)} == named("Columns of a table")


@pytest.mark.parametrize("name", (LAST, BEST, *SPLITS, *METRICS))
def test_every_part_of_a_metrics_name_is_explained(name: str) -> None:
    assert name in named("Metrics")
