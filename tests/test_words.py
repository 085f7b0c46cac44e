"""Reports in the words of an ablation, and what they say of settings that should be alike."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import matching
from analysis.frame import load
from analysis.page.answer import sentences
from analysis.page.main_table import MainTable
from analysis.run_sets import RunSet, read_run_set
from analysis.table import trends
from analysis.table.render import rendered_of
from analysis.table.wording import p_value
from analysis.terminal.compare import compare_lines, set_lines
from analysis.terminal.matched_lines import matched_lines
from experiments.design import archive
from experiments.design.labels import agreed
from experiments.results.store import Store
from experiments.spec.trial import as_tree
from tests.conftest import base
from tests.test_class_lines import keep
from tests.test_report_files import Bench, record

BLOCKS, MIXING, WIDTH = "model.num_blocks", "model.token_mixing", "model.tokens_mlp_dim"
SETTINGS = [{MIXING: "tied"}, {MIXING: "tied", WIDTH: 27}, {MIXING: "untied"}]
GRID = {"mixing": SETTINGS, BLOCKS: [1, 2, 4], "backend": ["torch", "jax"], "seed": [0, 1]}
LABELS = {
    "mixing": {"_": "token MLP", "tied 27": "tied, wide & 50%", "untied": "one per channel $c_1$"},
    BLOCKS: {"_": "depth", "4": "four"},
    "backend": {"torch": "PyTorch"},
}
REPORT = {"rows": [BLOCKS, "mixing"], "columns": ["backend"], "baseline": {"mixing": "tied"}}


def filled(bench: Bench, **parts: dict[str, Any]) -> Bench:
    """Records of all trials. Args: parts: of a record, by the value of the first row field."""
    row = [*bench.ablation.report.columns, *bench.ablation.report.rows][-1]
    outcomes = []
    for i, one in enumerate(bench.trials):
        value = str(one.settings[row])
        outcomes.append(record(0.5 + 0.1 * len(value) / 20 + 0.003 * (i % 2) * (i % 3), **parts.get(value, {})))
    return bench.put(*outcomes)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Bench, Path]:
    """A labelled ablation, and the folder of its report."""
    made = filled(Bench(tmp_path_factory.mktemp("words"), cache, grid=GRID, labels=LABELS, report=REPORT))
    return made, made.write()


def text_of(folder: Path, name: str) -> str:
    return (folder / name).read_text()


def test_labels_stand_in_the_table(written: tuple[Bench, Path]) -> None:
    lines = text_of(written[1], "table.txt").splitlines()
    head = next(line for line in lines if line.startswith("depth"))
    assert re.split(r"  +", head) == ["depth", "token MLP", "PyTorch", "jax"]
    rows = [re.split(r"  +", line)[:2] for line in lines[lines.index(head) + 2 :] if "±" in line]
    names = ["tied", "tied, wide & 50%", "one per channel $c_1$"]
    assert rows[:9] == [[depth, name] for depth in ("1", "2", "four") for name in names] or rows[:9] == [
        [depth, name] for name in names for depth in ("1", "2", "four")
    ]
    assert "difference to token MLP=tied" in lines[1]


def test_labels_are_escaped_where_a_format_needs_it(written: tuple[Bench, Path]) -> None:
    folder = written[1]
    latex, page, markdown = (text_of(folder, name) for name in ("table.tex", "report.html", "table.md"))
    assert r"tied, wide \& 50\%" in latex and r"one per channel \$c\_1\$" in latex and "wide & 50%" not in latex
    assert "tied, wide &amp; 50%" in page and "wide & 50%" not in page
    assert r"one per channel \$c_1\$" in markdown


def test_labels_stand_in_figures_sentences_and_trends(written: tuple[Bench, Path]) -> None:
    bench, folder = written
    figures = {path.stem: path.read_text() for path in (folder / "figures").glob("*.svg")}
    assert "one per channel $c_1$" in figures["differences"] and "tied, wide &amp; 50%" in figures["differences"]
    assert "PyTorch" in figures["learning_curves"] and "PyTorch" in figures["frameworks"]
    assert "token MLP" in figures["learning_curves"] and "tied, wide" in figures["learning_curves"]
    assert not any(raw in figure for raw in ("tied 27", "mixing", ">torch") for figure in figures.values())
    assert "four" in figures["sweep_num_blocks"] and "depth" in figures["sweep_num_blocks"]
    report = bench.report()
    told = " ".join([*sentences(report), *trends.sentences(report)])
    assert "one per channel $c_1$" in told and "mean of PyTorch and jax" in told and "with depth four, " in told
    assert "tied 27" not in told and "num_blocks" not in told and "torch" not in told.replace("PyTorch", "")


def test_labels_stand_in_the_table_of_the_page_and_in_that_of_siunitx(written: tuple[Bench, Path]) -> None:
    report = written[0].report()
    table = MainTable(report).as_dict()
    names = [column["name"] for column in table["columns"]]
    assert names[:2] == ["depth", "token MLP"] and {"●\u00a0PyTorch", "○\u00a0jax"} <= set(names)
    assert [group["head"] for group in table["groups"]] == ["depth 1", "depth 2", "depth four"]
    words = ["tied", "tied, wide & 50%", "one per channel $c_1$"]
    assert [row["cells"][1]["text"] for row in table["groups"][2]["rows"]] == words
    assert [row["label"] for row in table["groups"][2]["rows"]] == [f"depth four, {word}" for word in words]
    assert table["together"] == "PyTorch and jax"
    latex = rendered_of(report).text("siunitx")
    assert r"tied, wide \& 50\%" in latex and "PyTorch" in latex and "four" in latex and "tied 27" not in latex


def test_the_tidy_frame_has_the_names_of_settings(written: tuple[Bench, Path]) -> None:
    bench, folder = written
    for frame in (load(bench.store, "one"), pd.read_csv(folder / "tidy.csv")):
        assert list(dict.fromkeys(frame["axis.mixing"])) == ["tied", "tied 27", "untied"]
        assert frame["settings"][2] == "mixing=tied num_blocks=1 backend=jax seed=0"


def test_a_report_without_labels_has_the_names_of_fields_and_settings(tmp_path: Path, cache: Path) -> None:
    text = filled(Bench(tmp_path, cache, grid=GRID, report=REPORT)).text()
    assert "mixing=tied" in text.splitlines()[1]
    assert any(line.startswith("num_blocks  mixing") for line in text.splitlines())
    assert any(re.match(r"\d +tied 27 ", line) for line in text.splitlines())


def test_a_number_with_a_label_stands_alone_over_its_column(tmp_path: Path, cache: Path) -> None:
    labels = {BLOCKS: {"1": "one block", "2": "two blocks"}}
    grid = {BLOCKS: [1, 2], "seed": [0, 1]}
    made = filled(Bench(tmp_path, cache, grid=grid, report={"rows": [], "columns": [BLOCKS]}, labels=labels))
    assert "one block" in made.text() and "num_blocks=" not in made.text().partition("one block")[2]


def test_a_file_of_a_figure_has_a_plain_name_whatever_the_axis_is_called(tmp_path: Path, cache: Path) -> None:
    grid = {"a/b c": [{MIXING: "tied"}, {MIXING: "untied"}], "seed": [0, 1]}
    made = Bench(tmp_path, cache, grid=grid, report={"rows": ["a/b c"]})
    assert (filled(made).write() / "figures" / "sweep_a_b_c.svg").exists()


def test_the_paper_speaks_of_the_fields_of_a_named_axis(written: tuple[Bench, Path]) -> None:
    assert "Appendix A: untying the token-mixing MLP" in text_of(written[1], "report.html")


# --- stores and plans -------------------------------------------------------------------------------------------------


def runs(folder: Path, cache: Path, shift: float, **labels: Any) -> RunSet:
    """A store of tied and untied mixing on two frameworks, as `compare` reads it."""
    folder.mkdir()
    grid = {MIXING: ["tied", "untied"], "backend": ["torch", "jax"], "seed": [0, 1]}
    made = Bench(folder, cache, grid=grid, report={"rows": [MIXING]}, labels=labels)
    values = [0.5 + 0.1 * i / 8 + shift * (i % 3) for i in range(8)]
    made.put(*(record(value, spec=as_tree(one.trial)) for value, one in zip(values, made.trials, strict=True)))
    return read_run_set(str(made.store.root), folder)


def test_the_labels_on_which_stores_agree_stand_in_comparisons(tmp_path: Path, cache: Path) -> None:
    words = {MIXING: {"_": "token MLP", "untied": "per channel"}, "backend": {"torch": "PyTorch"}}
    first, second = (runs(tmp_path / name, cache, i / 100, **words) for i, name in enumerate("ab"))
    shown = "\n".join(compare_lines(first, second, "last.test.accuracy"))
    assert "token MLP=per channel: " in shown and "on the mean of PyTorch and jax" in shown
    assert "token MLP=tied backend=PyTorch seed=1" in shown and "token_mixing" not in shown
    other = runs(tmp_path / "c", cache, 0.03, **{MIXING: {"_": "token MLP", "untied": "one each"}})
    shown = "\n".join(compare_lines(first, other, "last.test.accuracy"))
    assert "token MLP=untied: " in shown and "per channel" not in shown and "one each" not in shown


def test_the_labels_of_a_store_stand_in_the_agreement_of_its_frameworks(tmp_path: Path, cache: Path) -> None:
    words = {MIXING: {"untied": "per channel"}, "backend": {"torch": "PyTorch"}}
    side = runs(tmp_path / "a", cache, 0.0, **words)
    for trial in side.records:
        keep(Store(side.root).folder(trial), np.zeros(9, np.int64), np.zeros(9, np.int64))
    shown = set_lines(side, "last.test.accuracy")
    assert any("jax and PyTorch, last.test example by example" in line for line in shown)
    assert any(line.startswith("token_mixing=per channel ") for line in shown)
    assert any("jax alone right  PyTorch alone right" in line for line in shown)


def test_labels_that_two_ablations_give_otherwise_are_left_out() -> None:
    both = [{"x": {"1": "one", "2": "two", "_": "X"}}, {"x": {"1": "ONE", "3": "two"}, "y": {"_": "Y"}}]
    assert agreed(both) == {"x": {"_": "X"}, "y": {"_": "Y"}}


def test_a_damaged_ablation_has_no_labels_and_hides_no_other(tmp_path: Path, cache: Path) -> None:
    side = runs(tmp_path / "a", cache, 0.0, **{MIXING: {"untied": "per channel"}})
    broken = Store(side.root).ablation("broken")
    broken.mkdir()
    (broken / archive.FILE).write_text("{")
    assert archive.labels(Store(side.root)) == {MIXING: {"untied": "per channel"}}


def test_labels_stand_in_a_plan_of_solved_widths(tmp_path: Path, cache: Path) -> None:
    given = {"base": base(model={"hidden_dim": 32, "tokens_mlp_dim": 4, "channels_mlp_dim": 512})}
    words = {MIXING: {"_": "token MLP", "tied": "shared"}, "model.channels_mlp_dim": {"_": "width"}}
    report = {"rows": [MIXING], "baseline": {MIXING: "tied"}}
    grid = {MIXING: ["tied", "untied"], "seed": [0]}
    asked = {"matched": {"parameters": "model.channels_mlp_dim"}, "report": report, "grid": grid, "labels": words}
    made = Bench(tmp_path, cache, **asked, **given)
    (line,) = matched_lines(made.ablation, made.trials)
    assert line.startswith("matched: token MLP=untied: width ") and line.endswith(" of token MLP=shared")


# --- what is matched ----------------------------------------------------------------------------------------------


PLAIN = {"grid": {MIXING: ["tied", "untied"], "seed": [0, 1]}}
ROWS = {"rows": [MIXING], "baseline": {MIXING: "tied"}}


def matched(folder: Path, cache: Path, report: dict[str, Any], **untied: Any) -> Bench:
    """Two settings, of which the second has a record with other parts."""
    return filled(Bench(folder, cache, **PLAIN, report=ROWS | report), untied=untied)


def test_what_settings_have_in_common_with_their_baseline_is_measured(tmp_path: Path, cache: Path) -> None:
    seconds = {"compile": 1.0, "train": 2.6, "evaluate": 3.0}
    made = matched(tmp_path, cache, {}, parameters=790, seconds=seconds)
    rows = made.report().rows
    found = {one.quantity: one for one in matching.matching(made.ablation, rows)}
    assert list(found) == ["parameters", "flops", "steps", "seconds"]
    assert (found["parameters"].low, found["parameters"].high) == (7.9, 7.9) and found["steps"].apart == 0
    assert [name for name, one in found.items() if one.is_equal] == ["flops", "steps"]
    told = [one.equal_text if one.is_equal else one.times_text for one in found.values()]
    assert told == ["7.9x the parameters", "equal training FLOPs", "equal steps", "1.3x the seconds of training"]
    assert matching.heading_text(made.ablation, rows) == "" and "matched" not in made.text()


@pytest.mark.parametrize(
    ("parameters", "is_equal", "text"),
    [
        (1010, True, "equal parameters (within 1.0 %)"),
        (1011, False, "1.01x the parameters"),
        (990, True, "(within 1.0 %)"),
        (500, False, "0.5x the parameters"),
    ],
)
def test_equal_is_within_one_percent(
    tmp_path: Path, cache: Path, parameters: int, is_equal: bool, text: str
) -> None:  # fmt: skip
    made = Bench(tmp_path, cache, **PLAIN, report=ROWS)
    filled(made, tied={"parameters": 1000}, untied={"parameters": parameters})
    one = matching.matching(made.ablation, made.report().rows)[0]
    assert one.is_equal == is_equal and (one.equal_text if is_equal else one.times_text).endswith(text)


def test_what_was_asked_to_be_equal_is_said_above_or_below_the_table(tmp_path: Path, cache: Path) -> None:
    made = matched(tmp_path, cache, {"matched": ["steps", "parameters"]}, parameters=790)
    above, _, below = made.text().partition("\n\n")
    assert "and the difference to token_mixing=tied, at equal steps" in above and "parameters" not in above
    assert "matched: settings do not have equal parameters: 7.9x the parameters of the baseline, as token_m" in below
    assert "equal steps" not in below


def test_where_a_setting_has_no_number_yet_nothing_is_called_equal(tmp_path: Path, cache: Path) -> None:
    grid = {MIXING: ["tied", "untied", "pooling"], "seed": [0, 1]}
    made = Bench(tmp_path, cache, grid=grid, report=ROWS | {"matched": ["parameters"]})
    made.put(*(record(0.5 + 0.01 * i, parameters=100) for i in range(4)))  # of the first two settings
    above, _, below = made.text().partition("\n\n")
    assert "equal parameters" not in above
    assert "matched: whether all settings have equal parameters is not known: 1 cell without a number" in below


@pytest.mark.parametrize(
    ("p", "text"), [(0.04996, "0.04996"), (0.05004, "0.050"), (0.0123, "0.012"), (0.0009, "<0.001"), (0.05, "0.050")]
)
def test_a_p_shows_on_which_side_of_the_level_it_is(p: float, text: str) -> None:
    assert p_value(p) == text


def test_what_is_not_known_is_not_called_equal(tmp_path: Path, cache: Path) -> None:
    made = Bench(tmp_path, cache, **PLAIN, report=ROWS | {"matched": ["parameters"]})
    made.put(record(0.5), record(0.6))  # of tied alone
    assert "matched: whether settings have equal parameters is not known: no two that are compared are" in made.text()
    assert "at equal" not in made.text()


def test_a_solved_width_is_told_above_the_table(tmp_path: Path, cache: Path) -> None:
    given = {"base": base(model={"hidden_dim": 32, "tokens_mlp_dim": 4, "channels_mlp_dim": 512})}
    asked = {"matched": {"parameters": "model.channels_mlp_dim"}, "report": ROWS, **PLAIN, **given}
    made = filled(Bench(tmp_path, cache, **asked), tied={"parameters": 1000}, untied={"parameters": 1004})
    assert "and the difference to token_mixing=tied, at equal parameters (within 0.4 %)" in made.text()


def test_a_baseline_is_compared_with_the_one_beside_it(tmp_path: Path, cache: Path) -> None:
    grid = {BLOCKS: [1, 2], MIXING: ["tied", "untied"], "seed": [0, 1]}
    made = Bench(tmp_path, cache, grid=grid, report={**ROWS, "rows": [BLOCKS, MIXING]})
    sizes = {(1, "tied"): 100, (1, "untied"): 50, (2, "tied"): 200, (2, "untied"): 600}
    made.put(*(record(0.5, parameters=sizes[one.settings[BLOCKS], one.settings[MIXING]]) for one in made.trials))
    one = matching.matching(made.ablation, made.report().rows)[0]
    assert (one.low, one.high, one.farthest) == (0.5, 3.0, (2, "untied"))
    assert one.times_text == "0.5x to 3x the parameters"
