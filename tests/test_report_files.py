"""What `mixlab report` writes, from records written by hand: the numbers again by another route, and bad input."""

import csv
import json
import math
import re
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.power import TTestPower

import analysis
from analysis import records
from analysis.cells import Options
from analysis.page.answer import sentences
from analysis.page.writing import write_reports
from analysis.report import Report, make_report
from analysis.table import trends
from analysis.table.render import render_cells
from experiments.design import archive
from experiments.design.ablation import load_ablation
from experiments.design.trials import trials
from experiments.results.record import RECORD_SCHEMA
from experiments.results.store import Store
from tests.conftest import command, write_yaml

MIXING, BLOCKS, RATE = "model.token_mixing", "model.num_blocks", "train.learning_rate"
GRID = {BLOCKS: [1, 2, 4], MIXING: ["tied", "untied"], "backend": ["torch", "jax"], "seed": [0, 1, 2]}
REPORT = {
    "rows": [BLOCKS, MIXING],
    "columns": ["backend"],
    "baseline": {MIXING: "tied"},
    "equivalence": {"margin": 0.05},
}
COMMIT, OTHER = "a" * 40, "b" * 40


def record(
    accuracy: float | None, commit: str = COMMIT, points: int = 4, device: str = "cpu", **parts: Any
) -> dict[str, Any]:
    """A whole record of a trial that is done, as a run writes it, but for its id and spec."""

    def at(step: int, value: float | None) -> dict[str, Any]:
        splits = {split: {"accuracy": value, "loss": 0.5} for split in ("train", "validation", "test")}
        return {"step": step, "loss": 0.7, "learning_rate": 0.001, **splits}

    curve = [at(i + 1, None if accuracy is None else accuracy * (i + 1) / points) for i in range(points)]
    backend = {"name": "torch", "device": device}
    environment = {"commit": commit, "dirty": False, "processor": "x", "packages": {"numpy": "2"}, "backend": backend}
    numbers = {"images_per_s": 10.0, "parameters": 100, "forward_flops_per_image": 7, "training_flops": 10**21}
    return {
        "status": "done",
        "reason": None,
        "environment": environment,
        "started": 1.0,
        "finished": 2.0,
        "steps": points,
        "sessions": [{"commit": commit, "dirty": False, "backend": {}}],
        "seconds": {"compile": 1.0, "train": 2.0, "evaluate": 3.0},
        **numbers,
        "peak_memory_bytes": 4,
        "metrics": {"last": curve[-1], "best": curve[-1]},
        "notes": [],
        "curve": curve,
        **parts,
    }


class Bench:
    """An ablation of the digits and a store of records, in the order of the grid."""

    def __init__(self, folder: Path, cache: Path, **keys: Any):
        self.folder, self.path = folder, write_yaml(folder / "one.yaml", **{"grid": GRID, "report": REPORT, **keys})
        self.ablation = load_ablation(self.path)
        self.trials, self.store = trials(self.ablation, cache), Store(folder / "runs")

    def put(self, *found: dict[str, Any] | None) -> "Bench":
        for one, outcome in zip(self.trials, found, strict=False):
            if outcome is not None:
                (self.store.folder(one.trial.id) / "record.json").unlink(missing_ok=True)  # a done one stays
                self.store.finish(one.trial.id, {"schema": RECORD_SCHEMA, "id": one.trial.id, **outcome})
        archive.keep(self.store, self.ablation, self.trials)
        return self

    def fill(self) -> "Bench":
        dice = np.random.default_rng(0)
        gains = {"tied": 0.0, "untied": 0.1}
        values = [0.6 + 0.02 * one.trial.model.num_blocks + gains[one.settings[MIXING]] for one in self.trials]
        return self.put(*(record(round(value + float(dice.normal(0, 0.01)), 4)) for value in values))

    def report(self, options: Options = Options()) -> Report:  # noqa: B008
        return make_report(self.ablation, self.trials, self.store, options)

    def text(self, options: Options = Options()) -> str:  # noqa: B008
        """The table as it is printed."""
        report = self.report(options)
        return render_cells(report.ablation, report.frame, report.table, "text", options)

    def write(self, options: Options = Options()) -> Path:  # noqa: B008
        """The report's folder."""
        folder = self.folder / "out"
        write_reports([self.report(options)], [folder], self.folder, "mixlab report one.yaml")
        return folder


@pytest.fixture
def bench(tmp_path: Path, cache: Path) -> Any:
    return lambda **keys: Bench(tmp_path, cache, **keys)


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what does not look at them: they take most of a report's seconds."""
    monkeypatch.setattr("analysis.page.writing.draw_all", lambda report: [])


# --- the numbers by another route -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_figures")
def test_the_table_is_recomputed_from_tidy_csv(bench: Any) -> None:
    folder = bench().fill().write()
    rows = list(csv.DictReader((folder / "tidy.csv").read_text().splitlines()))
    cells = json.loads((folder / "table.json").read_text())["cells"]
    assert len(rows) == 36 and len(cells) == 12

    def numbers(blocks: int, mixing: str, backend: str) -> dict[str, float]:
        settings = (str(blocks), mixing, backend)
        return {row["seed"]: float(row["last.test.accuracy"]) for row in rows
                if (row[BLOCKS], row[MIXING], row["backend"]) == settings}  # fmt: skip

    for cell in cells:
        own = numbers(cell[BLOCKS], cell[MIXING], cell["backend"])
        base = numbers(cell[BLOCKS], "tied", cell["backend"])
        values = list(own.values())
        assert cell["n"] == 3
        assert (cell["mean"], cell["std"]) == pytest.approx((statistics.mean(values), statistics.stdev(values)))
        half = 4.3026527297494637 * statistics.stdev(values) / math.sqrt(3)
        assert (cell["low"], cell["high"]) == pytest.approx((cell["mean"] - half, cell["mean"] + half))
        assert (cell["least"], cell["median"], cell["most"]) == (min(values), statistics.median(values), max(values))
        assert cell["accelerator_hours"] == pytest.approx(3 * 6 / 3600)
        if cell[MIXING] == "untied":
            d = [own[seed] - base[seed] for seed in own]
            assert cell["difference"] == pytest.approx(statistics.mean(d))
            assert cell["effect_size"] == pytest.approx(statistics.mean(d) / statistics.stdev(d))
            t = abs(statistics.mean(d)) / (statistics.stdev(d) / math.sqrt(3))
            assert cell["p"] == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-6)
            assert cell["pairs"] == 3
        else:
            assert cell["difference"] is None and cell["p"] is None
    by_p = {}
    for blocks in (1, 2, 4):  # what is tested: each seed's mean over the two frameworks
        sides = [[numbers(blocks, mixing, backend) for backend in ("torch", "jax")] for mixing in ("tied", "untied")]
        d = [sum(two[seed] for two in sides[1]) / 2 - sum(two[seed] for two in sides[0]) / 2 for seed in sides[0][0]]
        t = abs(statistics.mean(d)) / (statistics.stdev(d) / math.sqrt(3))
        by_p[1 - t / math.sqrt(2 + t * t)] = blocks
    running = np.maximum.accumulate([p * (3 - i) for i, p in enumerate(sorted(by_p))])
    corrected = {by_p[p]: min(value, 1) for p, value in zip(sorted(by_p), running, strict=True)}
    for cell in cells:
        assert cell["p_holm"] == (pytest.approx(corrected[cell[BLOCKS]], rel=1e-6) if cell["p"] is not None else None)


@pytest.mark.usefixtures("without_figures")
def test_parquet_and_the_notebook_hold_what_csv_holds(bench: Any) -> None:
    made = bench().fill()
    folder, frame = made.write(), analysis.load(made.store.root, "one")
    parquet = pd.read_parquet(folder / "tidy.parquet")
    assert list(parquet.columns) == list(frame.columns)
    assert list(parquet["last.test.accuracy"]) == list(frame["last.test.accuracy"])
    assert list(pd.read_csv(folder / "tidy.csv")["id"]) == list(frame["id"]) == [one.trial.id for one in made.trials]
    assert list(frame["model.hidden_dim"]) == [one.trial.model.hidden_dim for one in made.trials]
    assert frame["training_flops"].iloc[0] == 1e21
    assert len(analysis.load(str(made.store.root), made.path, ["seed=[0]"])) == 12


def test_a_second_report_reads_only_what_changed(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made, read = bench().fill(), []
    first = made.report()
    own = Store.record
    monkeypatch.setattr(Store, "record", lambda *given, **options: read.append(given[1]) or own(*given, **options))
    second = made.report()
    assert read == [] and first.frame.equals(second.frame)
    pd.testing.assert_frame_equal(first.table, second.table)
    for key, result in first.results.items():
        assert np.array_equal(result.curve, second.results[key].curve, equal_nan=True)
    changed = made.trials[3].trial.id
    made.put(None, None, None, record(0.99))
    frame = made.report().frame
    assert read == [changed] and frame["last.test.accuracy"][3] == 0.99
    cache = made.store.root / "ablations" / "one" / "records.parquet"
    for damage in (b"", b"PAR1 and no more", cache.read_bytes()[:-50]):
        cache.write_bytes(damage)
        assert made.report().frame.equals(frame)
    monkeypatch.setattr(records, "CACHE_VERSION", -1)
    read.clear()
    made.report()
    assert len(read) == 36  # of another version nothing is taken


def test_long_curves_are_thinned_and_keep_their_ends(bench: Any) -> None:
    made = bench(grid={"seed": [0, 1]}, report={}).put(record(0.8, points=501), record(0.6, points=501))
    steps, values = made.report().curve((), "test.accuracy")
    assert len(steps) == records.MAX_POINTS and (steps[0], steps[-1]) == (1, 501)
    assert values[:, -1].tolist() == [0.8, 0.6] and values[0] == pytest.approx(0.8 * steps / 501)


# --- marked cells -----------------------------------------------------------------------------------------------------


def test_trials_of_several_commits_are_not_averaged_unless_asked(bench: Any) -> None:
    made = bench(
        grid={MIXING: ["tied", "untied"], "seed": [0, 1]}, report={"rows": [MIXING], "baseline": {MIXING: "tied"}}
    )
    made.put(record(0.5), record(0.6), record(0.7), record(0.9, commit=OTHER))
    cell = made.report().table.iloc[1]
    assert math.isnan(cell["mean"]) and math.isnan(cell["difference"]) and math.isnan(cell["p"])
    text = made.text()
    assert "2 commits (2)" in text and "--mix-commits averages them" in text
    mixed = made.report(Options(mix_commits=True)).table.iloc[1]
    assert mixed["mean"] == pytest.approx(0.8) and mixed["difference"] == pytest.approx(0.25)
    text = made.text(Options(mix_commits=True))
    assert "80.0 ± 14.1 (2) +25.0†" in text and "averaged over trials of 2 commits" in text


def test_cells_of_several_environments_or_fewer_pairs_are_marked(bench: Any) -> None:
    made = bench(
        grid={MIXING: ["tied", "untied"], "seed": [0, 1, 2]}, report={"rows": [MIXING], "baseline": {MIXING: "tied"}}
    )
    made.put(record(0.5), record(0.6), None, record(0.7), record(0.9, device="cuda"), record(0.8))
    text = made.text()
    assert "80.0 ± 10.0 (3) +25.0†" in text and "† see below" in text
    assert "token_mixing=untied: its trials ran in 2 environments" in text
    assert "its difference is over the 2 seeds that the baseline has too" in text


def test_a_baseline_of_another_commit_or_machine_is_marked(bench: Any) -> None:
    grid = {BLOCKS: [1, 2], MIXING: ["tied", "untied"], "seed": [0, 1, 2]}
    made = bench(grid=grid, report={"rows": [BLOCKS, MIXING], "baseline": {MIXING: "tied"}})
    there = [record(value, commit=OTHER, device="cuda") for value in (0.5, 0.6, 0.7)]
    made.put(*map(record, (0.4, 0.5, 0.6)), *there, *map(record, (0.4, 0.5, 0.6, 0.5, 0.61, 0.72)))
    text = made.text()
    assert "num_blocks=1 token_mixing=untied: its baseline ran under another commit" in text
    assert "num_blocks=2 token_mixing=untied: its baseline" not in text
    assert [cell["unlike"] for _, cell in made.report().table.iterrows()] == [False, True, False, False]
    assert "+10.0†" in text


def test_what_a_cell_lacks_is_not_averaged_over_the_rest(bench: Any) -> None:
    slow = {"compile": 1.0, "train": None, "evaluate": 3.0}
    found = [record(0.5, images_per_s=None, seconds=slow), record(0.6), record(0.7)]
    cell = bench(grid={"seed": [0, 1, 2]}, report={}).put(*found).report().table.iloc[0]
    assert all(math.isnan(cell[name]) for name in ("images_per_s", "seconds", "accelerator_hours"))
    assert cell["parameters"] == 100


def test_a_metric_out_of_its_range_is_no_metric(bench: Any) -> None:
    text = bench(grid={"seed": [0, 1]}, report={}).put(record(50.0), record(0.5)).text()
    assert (
        "50.0 ± ? (1 of 2)" in text
        and "metrics.last.train.accuracy is missing, of a wrong type or out of range" in text
    )


def test_seeds_at_chance_have_a_report(bench: Any) -> None:
    """The mean of three times 0.1 is not 0.1 in binary."""
    made = bench(grid={BLOCKS: [1, 2, 4], "seed": [0, 1, 2]}, report={"rows": [BLOCKS]}).put(*[record(0.1)] * 9)
    made.write()
    cell = made.report().table.iloc[0]
    assert (cell["mean"], cell["low"], cell["high"], cell["std"]) == (0.1, 0.1, 0.1, 0.0)


def test_a_bootstrap_is_of_means_and_a_difference_keeps_the_interval_of_its_test(bench: Any) -> None:
    grid = {MIXING: ["tied", "untied"], "seed": list(range(10))}
    made = bench(grid=grid, report={"rows": [MIXING], "baseline": {MIXING: "tied"}}).fill()
    options = Options(interval="bootstrap")
    assert "intervals of means by bootstrap, for 10 seeds or more" in made.text(options)
    t, bootstrap = made.report().table, made.report(options).table
    assert (bootstrap["low"] > t["low"]).all()
    assert all(bootstrap[name].equals(t[name]) for name in ("difference_low", "setting_low", "setting_high", "p"))


def test_a_bootstrap_of_few_seeds_has_no_interval_and_says_what_it_would_cover(bench: Any) -> None:
    """Ten seeds of a cell, of which nine have a pair."""
    grid = {MIXING: ["tied", "untied"], "seed": list(range(10))}
    made = bench(grid=grid, report={"rows": [MIXING], "baseline": {MIXING: "tied"}}).fill()
    path = made.store.folder(made.trials[0].trial.id) / "record.json"
    path.unlink()
    options = Options(interval="bootstrap")
    tied, untied = (row for _, row in made.report(options).table.iterrows())
    assert math.isnan(tied["low"]) and not math.isnan(untied["low"])
    assert untied["pairs"] == 9 and not math.isnan(untied["setting_low"])
    assert "There is no interval for n below 10" in made.text(options) and "(89 % with n = 9)" in made.text(options)
    assert "No interval" not in made.text()


def test_two_seeds_say_how_little_their_interval_means(bench: Any) -> None:
    grid = {MIXING: ["tied", "untied"], "seed": [0, 1, 2]}
    made = bench(grid=grid, report={"rows": [MIXING], "baseline": {MIXING: "tied"}})
    made.put(*map(record, (0.5, 0.6, 0.7, 0.7, 0.81)), None)
    said = "n = 2 leaves 1 degree of freedom: its interval is ±12.7 standard errors, and says little"
    assert said in made.text()
    assert "n = 2 seeds (few seeds: the interval is ±12.7 standard errors). " in sentences(made.report())[0]
    made.put(*[None] * 5, record(0.9))
    assert "degree" not in made.text() and "(few seeds: the interval is ±4.3 " in sentences(made.report())[0]


@pytest.mark.usefixtures("without_figures")
def test_equal_and_alike_frameworks_are_told_apart(bench: Any) -> None:
    grid = {"backend": ["torch", "jax"], "seed": [0, 1]}
    report = {"rows": [], "columns": ["backend"], "equivalence": {"margin": 0.02}}
    for shift, kind in ((0.0, "same"), (0.015625, "within"), (0.25, "differ")):
        made = bench(grid=grid, report=report).put(*map(record, (0.5, 0.625, 0.5 + shift, 0.625 + shift)))
        assert f"{kind} (2)" in made.text()
        html = (made.write() / "report.html").read_text()
        word = "not shown to be within" if kind == "differ" else "within"
        why = "identical" if kind == "same" else "all differ by the same"
        assert f"backend=jax: {word} ±2 points (2 pairs, {why})" in html


def test_the_answer_says_difference_interval_n_verdict_and_size(bench: Any) -> None:
    grid = {MIXING: ["tied", "untied"], "seed": [0, 1, 2]}
    report = {"rows": [MIXING], "baseline": {MIXING: "tied"}}
    made = bench(grid=grid, report=report)
    made.put(
        *(record(value) for value in (0.5, 0.6, 0.7)), *(record(value, parameters=3100) for value in (0.7, 0.6, 0.71))
    )
    (said,) = sentences(made.report())
    d = [0.2, 0.0, 0.01]
    half = 4.3026527297494637 * statistics.stdev(d) / math.sqrt(3)
    least = 100 * statistics.stdev(d) * TTestPower().solve_power(nobs=3, alpha=0.05, power=0.8)
    assert said == (
        "In test accuracy, untied token mixing scored 7.00 points above tied "
        f"[{100 * (0.07 - half):.2f}, {100 * (0.07 + half):.2f}], "
        "at 31x the parameters, equal training FLOPs and steps: not distinguishable; "
        f"with 80 % power a difference of {least:.2f} points would have been found. "
        "n = 3 seeds (few seeds: the interval is ±4.3 standard errors). No setting was tuned."
    )


# --- bad input --------------------------------------------------------------------------------------------------------

NASTY = "A <script>alert(1)</script> \"quoted\" & 'single' \\ $x_1^2$ 50% {a} #1 ~ ü line\nbreak"


def test_text_from_outside_is_escaped_everywhere(bench: Any) -> None:
    made = bench(question=NASTY, grid={"seed": [0, 1]}, report={})
    failed = {"status": "failed", "reason": NASTY, "notes": [], "environment": {}, "sessions": []}
    folder = made.put(record(0.5), failed).write()
    html = (folder / "report.html").read_text()
    assert "<script>alert" not in html and "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "\\u003cscript\\u003ealert" in html  # in the trials' JSON
    tex = (folder / "table.tex").read_text()
    check_latex(tex)
    assert r"\textbackslash{} \$x\_1\textasciicircum{}2\$ 50\% \{a\} \#1 \textasciitilde{} ü line break" in tex
    frame = pd.read_csv(folder / "tidy.csv")
    assert frame["why"][1] == NASTY


@pytest.mark.parametrize(
    ("outcomes", "answer"),
    [
        ([], "No answer yet: none of 36 trials is done."),
        (
            [None] * 35 + [record(0.5)],
            "Interim: 1 of 36 trials are done. There is no difference to tied token mixing yet, since no setting and "
            "its baseline both have a number. The test accuracy of 4 blocks, untied token mixing, on jax is 50.0 %, "
            "n = 1 seed, which has no spread.",
        ),
        ([record(None)] * 36, "No answer: 36 trials are done, but no cell has"),
        ([record(0.5)] * 36, "In test accuracy, none of 3 settings could be tested against tied"),
        (
            [{**record(0.5), "curve": "x", "environment": [], "sessions": [{"commit": None}]}] * 36,
            "In test accuracy, none of 3",
        ),
        ([{**record(0.5), "curve": [{"step": 1}], "images_per_s": None}] * 36, "In test accuracy, none of 3"),
    ],
)
def test_stores_without_numbers_have_a_report_that_says_so(bench: Any, outcomes: list, answer: str) -> None:
    made = bench().put(*outcomes)
    folder, said = made.write(), sentences(made.report())[0]
    assert said.startswith(answer)
    html = (folder / "report.html").read_text()
    text = re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<(script|style).*?</\1>|base64,[^\"]*", " ", html))
    assert "nan" not in text.lower().split() and "None" not in text.split()
    check_latex((folder / "table.tex").read_text())


def test_damaged_records_are_named_and_hide_no_other(bench: Any) -> None:
    made = bench(grid={"seed": [0, 1, 2, 3]}, report={}).put(*[record(0.5)] * 4)
    paths = [made.store.folder(one.trial.id) / "record.json" for one in made.trials]
    paths[0].write_text(paths[0].read_text()[:-30])
    paths[1].write_text(paths[1].read_text().replace(f'"schema": {RECORD_SCHEMA}', '"schema": 1'))
    paths[2].write_text(paths[2].read_text().replace('"accuracy": 0.5', '"accuracy": "high"'))
    text = made.text()
    assert (
        "50.0 ± ? (1 of 4)" in text and "has schema 1" in text and "not JSON" in text and "last.test.accuracy" in text
    )


def test_a_baseline_that_no_cell_has_is_said(bench: Any) -> None:
    made = bench(exclude=[{BLOCKS: 4, MIXING: "tied"}]).fill()
    assert (
        "num_blocks=4 token_mixing=untied backend=jax: no cell has num_blocks=4 token_mixing=tied backend=jax"
        in made.text()
    )


# --- LaTeX ------------------------------------------------------------------------------------------------------------


def check_latex(text: str) -> None:
    """Compiled, where a LaTeX is installed, alone and within a paper; else read by a strict parser."""
    if shutil.which("pdflatex"):
        compile_latex(text, "alone")
        begin = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs}\begin{document}"
        paper = rf"{begin}before \input{{table}} after\end{{document}}"
        compile_latex(text, "paper", paper)
    assert all(" " <= letter <= "~" or letter in "\nü" for letter in text)
    body = text[text.index(r"\begin{table}") : text.index(r"\mixlabend", text.index(r"\begin{table}"))]
    depth, opened = 0, []
    for token in re.findall(r"\\(?:begin|end)\{\w+\}|\\[a-zA-Z]+|\\.|[{}$&#%_^~]|[^\\{}$&#%_^~]+", body, re.DOTALL):
        if token.startswith(r"\begin"):
            opened.append(token[7:-1])
        elif token.startswith(r"\end"):
            assert opened.pop() == token[5:-1]
        depth += {"{": 1, "}": -1}.get(token, 0)
        assert depth >= 0 and token not in ("#", "%", "~"), token
    assert depth == 0 and not opened
    rows = body[body.index(r"\toprule") : body.index(r"\bottomrule")].split(r"\\")[:-1]
    assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1
    assert re.sub(r"\$[^$]*\$|\\.", "", body).count("$") == 0
    assert not re.search(r"(?<!\\)[_^]", re.sub(r"\$[^$]*\$", "", body))


def compile_latex(text: str, name: str, paper: str | None = None) -> None:
    folder = Path(pytest.tmp) / name  # type: ignore[attr-defined]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.tex").write_text(text)
    (folder / "paper.tex").write_text(paper or text)
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0 and (folder / "paper.pdf").stat().st_size > 1000, done.stdout[-2000:]


@pytest.fixture(autouse=True)
def latex_folder(tmp_path: Path) -> None:
    pytest.tmp = tmp_path / "latex"  # type: ignore[attr-defined]


@pytest.mark.usefixtures("without_figures")
def test_the_latex_table_compiles(bench: Any) -> None:
    tex = (bench().fill().write() / "table.tex").read_text()
    check_latex(tex)
    assert tex.count(r"\\") == 7 and r"\toprule" in tex and "$\\pm$" in tex


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    "wrong",
    [("&", " "), (r"\%", "%"), (r"\end{tabular}", ""), (r"$\pm$", r"$\pm"), (r"\_", "_"), ("token", "{token")],
)
def test_the_parser_of_latex_refuses_what_does_not_compile(
    bench: Any, wrong: tuple[str, str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    tex = (bench(question="100 % of token_mixing?").fill().write() / "table.tex").read_text()
    begin = tex.index(r"\begin{table}")
    with pytest.raises((AssertionError, IndexError)):
        check_latex(tex[:begin] + tex[begin:].replace(*wrong, 1))


# --- trends ---------------------------------------------------------------------------------------------------------


def test_trends_are_slopes_a_doubling(bench: Any) -> None:
    grid = {BLOCKS: [1, 2, 4, 8], "seed": [0]}
    made = bench(grid=grid, report={"rows": [BLOCKS]})
    parameters = (100, 200, 400, 800)
    found = [record(value, parameters=size) for value, size in zip((0.5, 0.6, 0.65, 0.75), parameters, strict=True)]
    x, y = np.arange(4), np.array([50, 60, 65, 75])
    slope, _ = np.polyfit(x, y, 1)
    residual = y - np.polyval(np.polyfit(x, y, 1), x)
    half = 4.3026527297494637 * math.sqrt((residual**2).sum() / 2 / ((x - 1.5) ** 2).sum())
    said = f"+{slope:.1f} points a doubling [{slope - half:.1f}, {slope + half:.1f}], rank correlation +1.00, 4 cells"
    assert trends.sentences(made.put(*found).report()) == [
        f"number of blocks: {said}",
        f"parameters by number of blocks: {said}",
    ]
    three = bench(grid={BLOCKS: [1, 2, 4], "seed": [0]}, report={"rows": [BLOCKS]}).put(*found[:3])
    assert trends.sentences(three.report())[0].endswith("3 cells (one degree of freedom: ±12.7 standard errors)")


# --- the command ------------------------------------------------------------------------------------------------------


def test_several_ablations_are_one_page_and_a_format_alone_writes_nothing(bench: Any, tmp_path: Path) -> None:
    made = bench().fill()
    write_yaml(tmp_path / "two.yaml", grid={"seed": [0]}, base={"data": {"source": "digits"}})
    ended = command(tmp_path, "report", "one.yaml", "two.yaml", "--format", "csv")
    assert ended.code == 0 and ended.out.startswith(f"{BLOCKS},") and not (made.store.root / "report").exists()
    after = command(tmp_path, "report", "two.yaml", "--format", "csv", "seed=[0]")  # an override behind an option
    assert after.code == 0, after.err
    ended = command(tmp_path, "report", "one", "two.yaml")
    html = (tmp_path / "runs" / "report" / "report.html").read_text()
    assert ended.code == 0 and "2 ablations" in html and html.count("<article") == 2
    assert (tmp_path / "runs" / "ablations" / "two" / "report" / "report.html").exists()
    wrong = command(tmp_path, "report", "one", "seed=[0]")
    assert wrong.code == 2 and "overrides need a YAML file" in wrong.err
    assert command(tmp_path, "report", "seed=[0]").code == 2
    assert "did you mean 'one'" in command(tmp_path, "report", "ones").err
