"""Marginal effects: against the linear model of statsmodels, and where there are none."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from analysis.inference import crossed, holm
from analysis.table import marginal
from analysis.table.render import rendered_of
from experiments.results import predictions
from tests.test_report_files import BLOCKS, MIXING, Bench, record

NUM, SEEDS = 150, [0, 1, 2]
GRID = {BLOCKS: [1, 2, 4], MIXING: ["tied", "untied"], "backend": ["torch", "jax"], "seed": SEEDS}
REPORT = {"rows": [BLOCKS, MIXING], "columns": ["backend"], "baseline": {MIXING: "tied"}}


def answers(interaction: float = 0.0) -> Any:
    """Which examples are right, bool (blocks, mixings, backends, seeds, NUM)."""
    rng = np.random.default_rng(5)
    blocks, mixing = np.arange(3)[:, None, None, None, None], np.arange(2)[:, None, None, None]
    skill = -0.3 + rng.normal(0, 0.8, NUM) + 0.1 * blocks + 0.4 * mixing * (1 - interaction * blocks)
    return skill + rng.normal(0, 0.1, (3, 2, 1, 3, 1)) + rng.normal(0, 0.4, (3, 2, 2, 3, NUM)) > 0


@pytest.fixture
def bench(tmp_path: Path, cache: Path) -> Any:
    def bench(right: Any = None, with_predictions: bool = True, **keys: Any) -> Bench:
        made = Bench(tmp_path, cache, **{"grid": GRID, "report": REPORT, **keys})
        flat = (answers() if right is None else right).reshape(len(made.trials), NUM)
        made.put(*(record(float(one.mean())) for one in flat))
        splits: Any = SimpleNamespace(labels=np.zeros(NUM, int), validation=np.arange(0), test=np.arange(NUM))
        for planned, one in zip(made.trials, flat, strict=True):
            if with_predictions:
                said = {"test": (~one).astype(np.uint16)}
                predictions.keep(made.store.folder(planned.trial.id), splits, "x", {"last": said})
        return made

    return bench


def effects(made: Bench) -> Any:
    grid = marginal._grid(made.report(), (BLOCKS, MIXING))
    assert isinstance(grid, marginal.Grid)
    return marginal.marginal_effects(grid)


@pytest.mark.parametrize("with_predictions", [True, False])
def test_marginal_effects_are_the_coefficients_of_the_linear_model(bench: Any, with_predictions: bool) -> None:
    right = answers()
    made = bench(right, with_predictions)
    frame = made.report().frame.rename(columns={BLOCKS: "blocks", MIXING: "mixing", "last.test.accuracy": "y"})
    means = frame.groupby(["blocks", "mixing", "seed"])["y"].mean().reset_index()
    model, found = ols("y ~ C(blocks) + C(mixing) + C(seed)", means).fit(), effects(made)
    names = {(BLOCKS, 2, 1): "C(blocks)[T.2]", (BLOCKS, 4, 1): "C(blocks)[T.4]"}
    names[MIXING, "untied", "tied"] = "C(mixing)[T.untied]"
    assert list(found) == list(names)
    for name, coefficient in names.items():
        assert found[name].paired.difference == pytest.approx(model.params[coefficient])
    assert found[MIXING, "untied", "tied"].over == ("seeds and examples" if with_predictions else "seeds")


def test_the_interval_of_a_marginal_effect_is_over_seeds_and_examples(bench: Any) -> None:
    """Not over the cells, which share what a seed brings."""
    right = answers().astype(float)
    found = effects(bench(right > 0))
    expected = [
        crossed((right[1] - right[0]).mean((0, 1))),
        crossed((right[2] - right[0]).mean((0, 1))),
        crossed((right[:, 1] - right[:, 0]).mean((0, 1))),
    ]
    corrected = holm([one.p for one in expected])
    for one, other, p in zip(found.values(), expected, corrected, strict=True):
        assert one.paired.p == pytest.approx(other.p) and one.p_holm == pytest.approx(p)
        assert one.paired.n == 3 and one.paired.num_examples == NUM
        again = other.at(one.paired.level)
        assert (one.paired.low, one.paired.high) == pytest.approx((again.low, again.high))


def test_marginal_effects_stand_on_the_page(bench: Any) -> None:
    made = bench()
    folder = made.write()
    lines = marginal.told(made.report()).lines
    assert len(lines) == 4 and all(re.match(r"[24] blocks over 1 block: ", line) for line in lines[:2])
    told = r"untied token mixing over tied: \+\S+ points \[\S+, \S+\]( \(\S+ %\))?, n = 3 seeds and 150 test examples, "
    assert re.match(told + "(not )?distinguishable$", lines[2])
    assert lines[3].startswith("no interaction of the fields is shown (p = 0.")
    page = (folder / "report.md").read_text()
    assert "## Marginal effects" in page and all(line.split(":")[0] in page for line in lines[:3])
    assert "<h3>Marginal effects</h3>" in (folder / "report.html").read_text()


def test_an_interaction_is_said_to_make_them_misleading(bench: Any) -> None:
    *_, last = marginal.told(bench(answers(interaction=1.5)).report()).lines
    assert last.startswith(
        "number of blocks and token mixing interact (p < 0.001): the effect of one depends on the other"
    )


def test_the_test_of_an_interaction_is_that_of_a_two_way_table(bench: Any) -> None:
    """From sums of squares by hand: of the cells' means, against the residual with seeds as blocks."""
    right = answers(interaction=0.2)
    grid = marginal._grid(bench(right).report(), (BLOCKS, MIXING))
    assert isinstance(grid, marginal.Grid)
    y = right.mean((2, 4))  # (blocks, mixings, seeds)
    cell, m = y.mean(2, keepdims=True), y.mean()
    a, b, s = (y.mean(axes, keepdims=True) for axes in ((1, 2), (0, 2), (0, 1)))
    between = 3 * ((cell - a - b + m) ** 2).sum() / 2
    rest = ((y - cell - s + m) ** 2).sum() / 10
    assert marginal.interactions(grid) == {(BLOCKS, MIXING): pytest.approx(stats.f.sf(between / rest, 2, 10))}


def test_interactions_of_three_fields_are_those_of_the_linear_model() -> None:
    sizes, rng = {"a": 2, "b": 3, "c": 4}, np.random.default_rng(1)
    frame = pd.DataFrame([*np.ndindex(*sizes.values(), 5)], columns=[*sizes, "seed"])
    frame["y"] = rng.normal(size=len(frame)) + 0.8 * (frame["a"] * frame["c"] == 3)
    values: dict[Any, Any] = {}
    for *label, seed, y in frame.itertuples(index=False):
        values.setdefault(tuple(label), {"": {}})[""][seed] = y
    report: Any = SimpleNamespace(values=lambda name: list(range(sizes[name])))
    found = marginal.interactions(marginal.Grid(report, tuple(sizes), values, {}))
    table = anova_lm(ols("y ~ C(seed) + (C(a) + C(b) + C(c))**2", frame).fit(), typ=2)
    assert list(found) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert found == {pair: pytest.approx(table.loc[":".join(f"C({one})" for one in pair), "PR(>F)"]) for pair in found}


def test_a_whole_report_reads_each_file_of_predictions_once(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made, read, own = bench(), [], predictions.read
    monkeypatch.setattr(predictions, "read", lambda *given: read.append(given[0].name) or own(*given))
    assert len(marginal.told(made.report()).lines) == 4
    assert sorted(read) == sorted(one.trial.id for one in made.trials)


def test_an_incomplete_grid_has_none_and_says_what_it_lacks(bench: Any) -> None:
    made = bench()
    for planned in made.trials:
        if planned.settings[BLOCKS] == 2 and planned.settings[MIXING] == "tied":
            (made.store.folder(planned.trial.id) / "record.json").unlink()
    said = marginal.told(made.report()).why_not
    assert said.startswith("There are no marginal effects: of 6 combinations these have no number: ")
    assert said.endswith(": num_blocks=2 token_mixing=tied.")


def test_seeds_that_not_all_combinations_have_do_not_count(bench: Any) -> None:
    made = bench()
    gone = [one for one in made.trials if one.settings[BLOCKS] == 4 and one.trial.seed == 2]
    (made.store.folder(gone[0].trial.id) / "record.json").unlink()  # of one mixing, on torch
    found = effects(made)
    assert {one.paired.n for one in found.values()} == {3}  # jax has the seed everywhere
    assert gone[0].trial.backend == "torch"
    for one in gone[:2]:
        (made.store.folder(one.trial.id) / "record.json").unlink(missing_ok=True)
    assert {one.paired.n for one in effects(made).values()} == {2}
    for one in made.trials:
        if one.trial.seed == 1:
            (made.store.folder(one.trial.id) / "record.json").unlink(missing_ok=True)
    said = marginal.told(made.report()).why_not
    assert said.endswith("the 6 combinations have fewer than 2 seeds in common.")


def test_one_field_alone_has_no_marginal_effects(bench: Any) -> None:
    made = bench(answers()[:1], grid={**GRID, BLOCKS: [1]})
    assert marginal.told(made.report()) == marginal.Told()


def test_cells_that_are_all_alike_have_neither_test_nor_interaction(bench: Any) -> None:
    lines = marginal.told(bench(np.ones((3, 2, 2, 3, NUM), bool)).report()).lines
    assert len(lines) == 3 and all("not tested, since all 3 seeds give the same difference" in line for line in lines)


def test_marginal_effects_stand_below_the_printed_table_where_there_are_any(bench: Any) -> None:
    made = bench()
    report = made.report()
    lines = marginal.told(report).lines
    text = rendered_of(report).text("text")
    assert text.endswith("\n".join(["", f"Marginal effects, {marginal.ABOUT}:", *lines, ""])) and "\n\n\n" not in text
    for planned in made.trials:
        if planned.settings[BLOCKS] == 2 and planned.settings[MIXING] == "tied":
            (made.store.folder(planned.trial.id) / "record.json").unlink()
    assert "arginal effects" not in rendered_of(made.report()).text("text")
