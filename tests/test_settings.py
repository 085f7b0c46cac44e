"""What is tested is a setting: its frameworks are one experiment done several times."""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from analysis.figures import draw_all
from analysis.page.answer import sentences
from analysis.settings import averaged, setting_of
from tests.test_report_files import BLOCKS, COMMIT, MIXING, OTHER, Bench, record

SEEDS = [0, 1, 2, 3, 4]
TIED = (0.80, 0.81, 0.82, 0.83, 0.84)
SHIFTS = (0.010, 0.002, 0.015, 0.020, 0.003)
UNTIED = tuple(a + b for a, b in zip(TIED, SHIFTS, strict=True))
REPORT = {"rows": [MIXING], "columns": ["backend"], "baseline": {MIXING: "tied"}}


def p_of(differences: Sequence[float]) -> float:
    """Of the two-sided t-test, from its definition."""
    n = len(differences)
    t = abs(statistics.mean(differences)) / (statistics.stdev(differences) / math.sqrt(n))
    return float(2 * stats.t.sf(t, n - 1))


@pytest.fixture
def bench(tmp_path: Path, cache: Path) -> Any:
    """Tied and untied mixing on some frameworks; accuracies by mixing, then framework, then seed."""

    def bench(*columns: Sequence[float | None], backends: Sequence[str] = ("torch", "jax"), **keys: Any) -> Bench:
        grid = {MIXING: ["tied", "untied"], "backend": list(backends), "seed": SEEDS}
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        made = Bench(folder, cache, **{"grid": grid, "report": REPORT, **keys})
        assert len(made.trials) == len(columns) * len(SEEDS)
        return made.put(*(None if value is None else record(value) for column in columns for value in column))

    return bench


def cells(made: Bench) -> list[dict[str, Any]]:
    return [dict(row) for _, row in made.report().table.iterrows()]


def test_a_copy_on_another_framework_changes_neither_p_nor_the_answer(bench: Any) -> None:
    one = bench(TIED, UNTIED, backends=["torch"])
    alone, said = cells(one)[1], sentences(one.report())
    two = bench(TIED, TIED, UNTIED, UNTIED)
    assert alone["p_holm"] == pytest.approx(p_of(SHIFTS))
    for cell in cells(two)[2:]:
        for name in ("difference", "p", "pairs", "setting_difference", "setting_p", "setting_pairs", "p_holm"):
            assert cell[name] == pytest.approx(alone[name], rel=1e-9), name
    again = sentences(two.report())
    assert len(again) == len(said) == 1  # one setting, and no verdict on "2 settings"
    assert again[0].replace(", mean of torch and jax", "") == said[0]
    assert "on the mean of torch and jax seed by seed, Holm's correction for 1 setting" in two.text()
    assert two.text().count("*") == 1 + 2  # its meaning, and the star of both columns
    assert "Holm's correction for 1 test" in one.text()


def test_each_framework_keeps_its_difference_and_the_setting_has_that_of_the_means(bench: Any) -> None:
    other = (0.83, 0.82, 0.85, 0.83, 0.86)
    made = bench(TIED, TIED, UNTIED, other)
    apart = [a - b for a, b in zip(other, TIED, strict=True)]
    mean = [(a + b) / 2 for a, b in zip(SHIFTS, apart, strict=True)]
    torch, jax = cells(made)[2:]
    assert torch["difference"] == pytest.approx(statistics.mean(SHIFTS)) and torch["p"] == pytest.approx(p_of(SHIFTS))
    assert jax["difference"] == pytest.approx(statistics.mean(apart)) and jax["p"] == pytest.approx(p_of(apart))
    for cell in (torch, jax):
        assert cell["setting_difference"] == pytest.approx(statistics.mean(mean))
        assert cell["setting_p"] == cell["p_holm"] == pytest.approx(p_of(mean))
        half = float(stats.t.ppf(0.975, 4)) * statistics.stdev(mean) / math.sqrt(5)
        ends = statistics.mean(mean) - half, statistics.mean(mean) + half
        assert (cell["setting_low"], cell["setting_high"]) == pytest.approx(ends)
        assert cell["frameworks"] == "torch jax"
    folder = made.write()
    line = f"token_mixing=untied, mean of torch and jax: +{100 * statistics.mean(mean):.2f} points"
    markdown = (folder / "table.md").read_text()
    assert line in markdown and markdown.count("(Holm)") == 1
    assert "p are of the mean of torch and jax, seed by seed" in (folder / "report.html").read_text()
    values = {figure.name: figure.values.values() for figure in draw_all(made.report())}
    told = " ".join(text for texts in values["differences"] for text in texts)
    assert line.removeprefix("token_mixing=") in told and told.count("p =") + told.count("p <") == 1


def test_a_seed_that_one_framework_lacks_counts_by_the_other(bench: Any) -> None:
    made = bench(TIED, (*TIED[:3], None, None), UNTIED, (*UNTIED[:2], None, None, None))
    torch, jax = cells(made)[2:]
    assert (torch["pairs"], jax["pairs"], torch["setting_pairs"], jax["setting_pairs"]) == (5, 2, 5, 5)
    assert torch["p_holm"] == jax["p_holm"] == pytest.approx(p_of(SHIFTS))


def test_a_framework_is_held_against_itself_alone(bench: Any) -> None:
    """The baseline was trained on torch alone, the setting on jax alone: nothing is paired, and nothing tested."""
    nothing = (None,) * 5
    made = bench(TIED, nothing, nothing, UNTIED)
    assert all(math.isnan(cell["p_holm"]) and math.isnan(cell["difference"]) for cell in cells(made))
    half = bench(TIED, (0.6, *nothing[1:]), UNTIED, (None, 0.9, *nothing[2:]))
    torch, jax = cells(half)[2:]
    assert jax["pairs"] == 0 and math.isnan(jax["p_holm"]) and jax["difference"] == pytest.approx(0.3)
    assert torch["p_holm"] == pytest.approx(p_of(SHIFTS)) and torch["frameworks"] == "torch"


def test_the_answer_is_of_the_frameworks_that_have_pairs(bench: Any) -> None:
    nothing = (None,) * 4
    made = bench((0.6, *nothing), TIED, (None, 0.9, *nothing[1:]), UNTIED)
    torch, jax = cells(made)[2:]
    assert torch["pairs"] == 0 and jax["frameworks"] == "jax"
    (said,) = sentences(made.report())
    assert "scored 1.00 points above tied" in said and ": distinguishable. n = 5 seeds, on jax alone." in said


def test_a_cell_that_its_framework_alone_sets_apart_is_a_setting_of_its_own() -> None:
    names = [MIXING, "backend"]
    assert setting_of(names, ("untied", "jax"), ("tied", "jax")) == ("untied",)
    assert setting_of(names, ("untied", "jax"), ("tied", "torch")) == ("untied",)
    assert setting_of(names, ("tied", "jax"), ("tied", "torch")) == ("tied", "jax")
    assert setting_of([MIXING], ("untied",), ("tied",)) == ("untied",)


def test_a_cell_without_a_number_takes_no_part(bench: Any) -> None:
    """Of several commits, or with a trial that has no metric: the other framework is tested alone."""
    made = bench(TIED, TIED, UNTIED, UNTIED)
    places = [made.store.folder(one.trial.id) / "record.json" for one in made.trials]
    written = json.loads(places[15].read_text())
    places[15].write_text(json.dumps({**written, "sessions": [{"commit": OTHER}]}))
    torch, jax = cells(made)[2:]
    assert len(jax["commits"]) == 2 and COMMIT[:12] in jax["commits"]
    assert math.isnan(jax["difference"]) and math.isnan(jax["p_holm"])
    assert torch["p_holm"] == pytest.approx(p_of(SHIFTS)) and torch["frameworks"] == "torch"


def test_holm_counts_settings(bench: Any) -> None:
    """Two settings on two frameworks: each p is corrected for two, not for four."""
    best = tuple(value + 0.001 * value * value for value in UNTIED)
    grid = {BLOCKS: [1, 2, 4], "backend": ["torch", "jax"], "seed": SEEDS}
    report = {"rows": [BLOCKS], "columns": ["backend"], "baseline": {BLOCKS: 1}}
    made = bench(TIED, TIED, UNTIED, UNTIED, best, best, grid=grid, report=report)
    p = sorted((p_of(SHIFTS), p_of([a - b for a, b in zip(best, TIED, strict=True)])))
    corrected = [2 * p[0], max(2 * p[0], p[1])]
    assert sorted({round(cell["p_holm"], 12) for cell in cells(made)[2:]}) == pytest.approx(sorted(set(corrected)))
    assert sentences(made.report())[0].startswith(
        "In test accuracy, none of 2 settings is distinguishable from 1 block."
    )
    assert len(sentences(made.report())) == 2


def test_where_frameworks_are_what_is_compared_they_are_not_averaged(bench: Any) -> None:
    report = {"rows": [MIXING], "columns": ["backend"], "baseline": {"backend": "torch"}}
    made = bench(TIED, UNTIED, UNTIED, tuple(reversed(UNTIED)), report=report)
    tied, untied = cells(made)[1], cells(made)[3]
    assert tied["setting_p"] == tied["p"] == pytest.approx(p_of(SHIFTS)) and tied["frameworks"] == "jax"
    assert untied["setting_difference"] == untied["difference"] and untied["pairs"] == 5
    assert (
        "mean of" not in made.text()
        and "none of 2 settings is distinguishable from torch" in sentences(made.report())[0]
    )


def test_without_a_baseline_the_best_is_of_settings(bench: Any) -> None:
    made = bench(TIED, TIED, UNTIED, UNTIED, report={"rows": [MIXING], "columns": ["backend"]})
    (said,) = sentences(made.report())
    assert said.startswith(
        "Best on validation of 2 settings: untied token mixing, on torch. Its test accuracy is 83.0 %"
    )
    assert said.endswith("There is no baseline, so nothing is tested.")


def test_a_seed_that_has_no_pair_on_any_framework_takes_no_part() -> None:
    assert averaged([({0: 0.5, 1: 0.6}, {1: 0.7, 2: 0.9})]) == ({1: 0.6}, {1: 0.7})
    assert averaged([({0: 0.5}, {1: 0.7}), ({0: 0.4}, {0: 0.8})]) == ({0: 0.4}, {0: 0.8})
