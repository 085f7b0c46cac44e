"""The results that are committed: what today's code makes of their data, small; tables, pictures and predictions."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.cells import Options, cells
from analysis.page.markdown import markdown_page
from analysis.page.page import section
from analysis.predictions import reader
from analysis.report import Report
from analysis.table.render import render_cells, rendered_of
from experiments.design.ablation import Ablation, load_ablation
from experiments.results.store import Store
from tests.conftest import ROOT
from tests.test_report_files import BLOCKS, MIXING, NASTY, Bench, record

RESULTS = ROOT / "analysis" / "results"
KINDS = {".md", ".tex", ".csv", ".svg", ".json", ".gz"}
COMMITTED = sorted(path.parent for path in RESULTS.rglob("tidy.csv"))
MAX_BYTES = 900_000  # of all committed results; they were 1,244,456 with copies of the page's style and script


def ablation_of(folder: Path) -> Ablation:
    """As the page says that it was run."""
    words = re.search(r"^mixlab run (\S+) (.*) --store runs$", (folder / "report.md").read_text(), re.MULTILINE)
    assert words is not None
    return load_ablation(ROOT / words[1], words[2].split())


def tidy(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "tidy.csv", dtype={"why": str, "trained_on": str})


def test_committed_results_are_tables_pictures_and_pages_of_text() -> None:
    files = [path for path in RESULTS.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= KINDS and len(COMMITTED) >= 4
    assert sum(path.stat().st_size for path in files) < MAX_BYTES


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
@pytest.mark.parametrize(("style", "name"), [("markdown", "table.md"), ("latex", "table.tex")])
def test_a_committed_table_is_what_the_code_makes_of_the_tidy_data(folder: Path, style: str, name: str) -> None:
    ablation, frame, options = ablation_of(folder), tidy(folder), Options()
    table = cells(ablation, frame, options, reader(Store(folder / "predictions"), ablation.report.metric))
    assert render_cells(ablation, frame, table, style, options) == (folder / name).read_text()


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_a_committed_page_holds_its_table_and_leads_to_its_pictures(folder: Path) -> None:
    page, ablation = (folder / "report.md").read_text(), ablation_of(folder)
    assert page.startswith(f"# {ablation.question}\n")
    table = [line for line in (folder / "table.md").read_text().splitlines() if line.startswith("|")]
    assert "\n".join(table) in page and len(table) == 2 + len(cells_by_row(ablation, folder))
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", page)
    assert sorted(pictures) == sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.svg"))


def cells_by_row(ablation: Ablation, folder: Path) -> set[tuple[Any, ...]]:
    made = cells(ablation, tidy(folder))
    return set(map(tuple, made[list(ablation.report.rows)].astype(str).to_numpy()))


# --- the page as Markdown ---------------------------------------------------------------------------------------------


def test_a_report_has_a_page_of_text_that_names_every_picture(tmp_path: Path, cache: Path) -> None:
    grid = {BLOCKS: [1, 2], MIXING: ["tied", "untied"], "seed": [0, 1]}
    report = {"rows": [BLOCKS, MIXING], "baseline": {MIXING: "tied"}}
    made = Bench(tmp_path, cache, grid=grid, report=report, question="Is it so?")
    folder = made.put(*(record(0.5 + i * i / 200) for i in range(8))).write()
    page = (folder / "report.md").read_text()
    assert page.startswith("# Is it so?\n") and "\n\n\n" not in page
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", page)
    assert sorted(pictures) == sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.svg"))
    table = [line for line in (folder / "table.md").read_text().splitlines() if line.startswith("|")]
    assert "\n".join(table) in page and len(table) == 2 + 4
    assert "```bash\nmixlab run " in page and all(one.trial.id in page for one in made.trials)


def markdown(report: Report, command: str) -> str:
    rendered = rendered_of(report)
    return markdown_page(section(report, rendered), rendered, [], command)


def test_text_from_outside_ends_no_block_of_the_page_of_text(tmp_path: Path, cache: Path) -> None:
    made = Bench(tmp_path, cache, question=f"{NASTY} | `x`", grid={"seed": [0, 1]}, report={})
    failed = {"status": "failed", "reason": f"{NASTY}\n# a title", "notes": [], "environment": {}, "sessions": []}
    made.put(record(0.5), failed)
    page = markdown(made.report(), "mixlab report one.yaml\n```\n# not a title")
    assert "<script" not in page and "&lt;script>" in page and r"\| \`x\`" in page
    assert [line for line in page.splitlines() if "a title" in line and line.startswith("#")] == []
    assert page.count("\n```") == 2


def test_the_command_of_a_report_is_whole_however_long_its_overrides_are(tmp_path: Path, cache: Path) -> None:
    made = Bench(tmp_path, cache, grid={"seed": [0]}, report={})
    words = [
        "train.steps=3",
        "train.evaluate_every=3",
        "train.batch_size=16",
        "train.warmup_steps=0",
        "data.fraction=1",
    ]
    made.ablation = load_ablation(made.path, words)
    assert made.ablation.where.endswith("...") and made.ablation.file == str(made.path)
    page = markdown(made.report(), "mixlab report")
    assert f"\nmixlab run {made.path} {' '.join(words)} --store {made.store.root}\n" in page
