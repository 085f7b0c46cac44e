"""The table for LaTeX with siunitx: its columns under their heads, and the numbers that they hold."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from analysis.table.render import rendered_of
from tests.conftest import command
from tests.test_report_files import BLOCKS, MIXING, Bench, compile_latex, record

GRID = {MIXING: ["tied", "untied"], BLOCKS: [1, 2], "backend": ["torch", "jax"], "seed": [0, 1]}
REPORT = {"rows": [BLOCKS, MIXING], "columns": ["backend"], "baseline": {MIXING: "tied"}}


@pytest.fixture
def tex(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a grid with one cell that is not done, and one of 100 %."""
    made = Bench(tmp_path, cache, grid=GRID, report=REPORT, question="100 % of token_mixing?")
    values: list[Any] = [0.5 + 0.01 * i for i in range(14)]
    made.put(*(record(value) for value in values), None, None)
    ended = command(tmp_path, "report", "one.yaml", "--format", "siunitx")
    assert ended.code == 0 and not (made.store.root / "ablations" / "one" / "report").exists()
    return ended.out


def widths(line: str) -> int:
    """Columns that a row takes."""
    wide = [int(number) for number in re.findall(r"\\multicolumn\{(\d+)\}", line)]
    return len(re.findall(r"(?<!\\)&", line)) + 1 + sum(wide) - len(wide)


def test_numbers_stand_in_siunitx_columns_under_grouped_heads(tex: str) -> None:
    begin = re.search(r"\\begin\{tabular\}\{(.*)\}$", tex, re.MULTILINE)[1]  # type: ignore[index]
    assert (
        begin.startswith("ll")
        and begin.count("S[") == 8
        and begin.count("table-format=+1.1,retain-explicit-plus]@{}l") == 2
    )
    rows = [line for line in tex.splitlines() if line.endswith(r"\\")]
    num_columns = 2 + begin.count("S[") + begin.count("@{}l")
    assert [widths(row) for row in rows] == [num_columns] * 6
    assert r"\multicolumn{5}{c}{torch} & \multicolumn{5}{c}{jax}" in rows[0]
    assert r"\cmidrule(lr){3-7}\cmidrule(lr){8-12}" in tex and r"\usepackage{siunitx}" in tex
    first, second = (row.removesuffix(r" \\").split(" & ") for row in rows[2:4])
    assert first[:6] == ["{}1", "{}tied", "50.5", "0.7", "2", "{---}"]
    assert second[:2] == ["", "{}untied"] and second[5] == "+8.0"  # beside its baseline, which names the group
    assert rows[5].endswith(r"\multicolumn{5}{c}{0 of 2} \\")


def test_no_test_is_explained_that_this_table_has_no_column_for(tmp_path: Path, cache: Path) -> None:
    made = Bench(tmp_path, cache, grid=GRID, report={**REPORT, "equivalence": {"margin": 0.05}})
    rendered = rendered_of(made.put(*(record(0.5 + 0.01 * i) for i in range(16))).report())
    assert "TOST" in rendered.text("text") and "TOST" in rendered.text("latex")
    assert "TOST" not in rendered.text("siunitx")


def test_a_table_of_another_metric_says_that_its_margin_is_of_the_first(tmp_path: Path, cache: Path) -> None:
    made = Bench(tmp_path, cache, grid=GRID, report={**REPORT, "equivalence": {"margin": 0.05}})
    made.put(*(record(0.5 + 0.01 * i) for i in range(16)))
    note = "equivalence: its margin is one of last.test.accuracy; no such test of last.test.loss\n"
    for metric, is_said in (("last.test.loss", True), ("last.test.accuracy", False)):
        out = command(tmp_path, "report", "one.yaml", "--format", "text", "--metric", metric).out
        assert (note in out) == is_said and ("TOST" in out) == (not is_said)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex on PATH")
def test_the_table_with_siunitx_compiles(tex: str, tmp_path: Path) -> None:
    pytest.tmp = tmp_path / "latex"  # type: ignore[attr-defined]
    compile_latex(tex, "alone")
