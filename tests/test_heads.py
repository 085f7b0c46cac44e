"""Heads, values and sentences of a table as a reader of each format sees them, whatever they are made of."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.page.answer import sentences
from analysis.table.latex import document, escape
from analysis.table.layout import markdown, paragraph
from analysis.table.render import render_cells
from tests.test_report_files import BLOCKS, MIXING, Bench, check_latex, latex_folder, record  # noqa: F401

CHANNELS, PATCH = "model.channel_mixing", "model.patch_size"
SUBSET, SPLIT = "data.subset", "data.split_seed"
UNTIED_CHANNELS = {"model.channel_mixing": ["tied", "untied"]}


@pytest.fixture
def bench(tmp_path: Path, cache: Path) -> Any:
    return lambda **keys: Bench(tmp_path, cache, **keys)


def header(made: Bench) -> list[str]:
    """Of the CSV and the Markdown table: fields that name a cell, and the heads."""
    report = made.report()
    lines = render_cells(report.ablation, report.frame, report.table, "markdown", report.options).splitlines()
    return [cell.strip() for cell in next(line for line in lines if line.startswith("|")).strip("|").split(" | ")]


# --- heads ------------------------------------------------------------------------------------------------------------


def test_words_that_two_columns_share_are_given_with_their_field(bench: Any) -> None:
    made = bench(
        grid={MIXING: ["tied", "untied"], **UNTIED_CHANNELS}, report={"rows": [], "columns": [MIXING, CHANNELS]}
    )
    words = [
        f"token_mixing={first} channel_mixing={second}" for first in ("tied", "untied") for second in ("tied", "untied")
    ]
    assert header(made) == words
    report = made.report()
    for style in ("text", "latex"):
        said = render_cells(report.ablation, report.frame, report.table, style, report.options)
        assert all((escape(word) if style == "latex" else word) in said for word in words)


def test_words_that_a_row_shares_with_a_column_are_given_with_their_field(bench: Any) -> None:
    grid = {MIXING: ["tied", "untied"], **UNTIED_CHANNELS}
    made = bench(grid=grid, report={"rows": [CHANNELS], "columns": [MIXING]})
    assert header(made) == ["channel_mixing", "token_mixing=tied", "token_mixing=untied"]
    one = bench(grid={BLOCKS: [1, 2], MIXING: ["tied", "untied"]}, report={"rows": [BLOCKS], "columns": [MIXING]})
    assert header(one) == ["num_blocks", "tied", "untied"]  # which can be of one field alone


def test_numbers_of_two_fields_are_given_with_their_field(bench: Any) -> None:
    made = bench(grid={BLOCKS: [2, 4], PATCH: [2, 4]}, report={"rows": [], "columns": [BLOCKS, PATCH]})
    assert header(made)[0] == "num_blocks=2 patch_size=2" and header(made)[-1] == "num_blocks=4 patch_size=4"
    both = bench(grid={BLOCKS: [2, 4], PATCH: [2, 4]}, report={"rows": [BLOCKS], "columns": [PATCH]})
    assert header(both) == ["num_blocks", "patch_size=2", "patch_size=4"]


def of_subsets(made: Bench, rows: tuple[str, ...], columns: tuple[str, ...], *subsets: str) -> Bench:
    """The cells of split seeds 0, 1, ..., said to be of the subsets too: any text, without data of such a name."""
    names = dict(enumerate(subsets))
    given = [{**point, SUBSET: names[point[SPLIT]]} for point in made.ablation.points]
    layout = replace(made.ablation.report, rows=rows, columns=columns)
    made.ablation = replace(made.ablation, points=tuple(given), report=layout)
    made.trials = [replace(one, settings=point) for one, point in zip(made.trials, given, strict=True)]
    return made


def test_text_that_reads_as_a_number_is_given_with_its_field(bench: Any) -> None:
    for first, words in (
        ("10", ["subset=10", "subset=v2"]),
        ("true", ["subset=true", "subset=v2"]),
        ("v1", ["v1", "v2"]),
    ):
        made = bench(grid={SPLIT: [0, 1]}, report={"rows": [SPLIT]})
        assert header(of_subsets(made, (SPLIT,), (SUBSET,), first, "v2")) == ["split_seed", *words]


def test_fields_of_one_last_name_are_given_in_full(bench: Any) -> None:
    grid = {"classes": [{"data.num_classes": count, "model.num_classes": count} for count in (2, 3)]}
    made = bench(grid=grid, report={"rows": ["data.num_classes"], "columns": ["model.num_classes"]})
    assert header(made) == ["data.num_classes", "model.num_classes=2", "model.num_classes=3"]


def test_the_answer_names_the_fields_of_a_baseline_of_two(bench: Any) -> None:
    grid = {MIXING: ["tied", "untied"], **UNTIED_CHANNELS, "seed": [0, 1, 2]}
    report = {"rows": [MIXING, CHANNELS], "baseline": {MIXING: "tied", CHANNELS: "tied"}}
    made = bench(grid=grid, report=report).put(*map(record, (0.5, 0.6, 0.7, *(0.5, 0.61, 0.7) * 2, 0.8, 0.7, 0.7)))
    said = sentences(made.report())
    assert "none of 3 settings is distinguishable from the baseline (tied token mixing, tied channel mixing)" in said[0]
    assert all(" the baseline [" in line and ": not distinguishable; with 80 % power" in line for line in said)


# --- text of any kind -------------------------------------------------------------------------------------------------

SPECIAL = (
    "[v2] scans",
    "*starred",
    "50 % & more",
    r"C:\new_1|2",
    "a#b~c^d",
    "$x_$ {y}",
    "--deep",
    "\u03b1 \u03b2",
    "<i>x</i>",
)


@pytest.mark.parametrize("where", ["rows", "columns"])
def test_a_table_of_any_values_compiles_and_keeps_them(bench: Any, where: str) -> None:
    made = bench(grid={SPLIT: list(range(len(SPECIAL)))}, report={"rows": [SPLIT]}).put(*[record(0.5)] * len(SPECIAL))
    of_subsets(made, *(((SUBSET, SPLIT), ()) if where == "rows" else ((SPLIT,), (SUBSET,))), *SPECIAL)
    folder = made.write()
    tex, text, html = ((folder / name).read_text() for name in ("table.tex", "table.txt", "report.html"))
    assert all(value in text for value in SPECIAL)
    check_latex(tex)
    assert not re.search(r"^\s*[\[*]", tex, re.MULTILINE)
    assert r"$^{*}$starred" in tex and "-{}-deep" in tex and "[U+03B1] [U+03B2]" in tex
    assert "<i>x" not in html and "&lt;i&gt;x&lt;/i&gt;" in html
    lines = [line for line in (folder / "table.md").read_text().splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines}) == 1  # as many cells in each row


def test_a_bracket_begins_no_row_of_latex() -> None:
    """Neither the head nor a row: both follow a command that takes an option."""
    tex = document([["[a]", "b"], ["[c]", "[d]"], ["e", "[f]"]], 1, "name", ["q"], [])
    assert "\n{}[a] & b \\\\" in tex and "\n{}[c] & [d] \\\\" in tex and "\ne & [f] \\\\" in tex


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("--mix-commits", "-{}-mix-commits"),
        ("a, b,,c", "a, b,{},c"),
        ("?` `x'", r"?\`{} \`{}x'"),
        ("u\u0308 \u00fc", "\u00fc \u00fc"),  # one letter, written in two ways
        ("\u03b1\u03b2", "[U+03B1][U+03B2]"),
        ("-0.4 to -0.2, 1-2", "$-$0.4 to $-$0.2, 1-2"),
        ("3\u00d73 \u2264 9", r"3$\times$3 $\leq$ 9"),
        ("a\n\tb", "a b"),
        ("\x1b[0m", "[U+001B][0m"),
    ],
)
def test_latex_prints_text_as_it_is(text: str, latex: str) -> None:
    assert escape(text) == latex


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("* p < 0.05, paired", r"\* p < 0.05, paired"),
        ("- no list", r"\- no list"),
        ("+1.2 points", r"\+1.2 points"),
        ("# no head", r"\# no head"),
        ("> no quotation", r"\> no quotation"),
        ("1. no list", r"1\. no list"),
        ("1.5 points", "1.5 points"),
        ("`code` and $x$ and ~~no~~", r"\`code\` and \$x\$ and \~\~no\~\~"),
        ("token_mixing, _no_", r"token_mixing, \_no\_"),
        ("[0.1, 0.2] and [a](b)", r"[0.1, 0.2] and [a]\(b)"),
        ("&amp; & <b> < 3", "&amp;amp; & &lt;b> < 3"),
        ("two\nlines", "two lines"),
    ],
)
def test_markdown_prints_a_paragraph_as_it_is(text: str, shown: str) -> None:
    assert paragraph(text) == f"{shown}\n"


def test_markdown_keeps_a_cell_in_its_column() -> None:
    assert markdown([["a|b", r"c\|d"], ["- e", "f\n\ng"]]) == [r"| a\|b | c\\\|d |", "|---|---|", "| - e | f g |"]


@pytest.mark.parametrize("question", ["", None, " \n "])
def test_an_empty_question_prints_nothing(bench: Any, question: str | None) -> None:
    made = bench(grid={"seed": [0]}, report={})
    made.ablation = replace(made.ablation, question=question)
    assert made.text().splitlines()[0] == "one"
    assert '<h1 id="a0-title">one</h1>' in (made.write() / "report.html").read_text()
