"""Marginal effects and interactions: against the linear model of statsmodels, and where there are none."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.formula.api import ols

from analysis import factorial
from analysis.inference import crossed, holm, paired
from analysis.predictions import nothing
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
    return factorial.marginal_effects(grid_of(made))


def grid_of(made: Bench) -> factorial.Grid:
    grid = factorial.grid_of(made.report())
    assert isinstance(grid, factorial.Grid)
    return grid


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
    assert re.match(told + r"(not )?distinguishable, p = 0\.\d+ \(Holm\)$", lines[2])
    assert lines[3].startswith(
        "no interaction of the fields is shown: 0 of 2 contrasts distinguishable from 0; the largest: "
    )
    page = (folder / "report.md").read_text()
    assert "## Marginal effects\n\nOf each value of one field, as the mean over" in page and all(
        line.split(":")[0] in page for line in lines[:3]
    )
    assert "<h3>Marginal effects</h3>" in (folder / "report.html").read_text()


def test_an_interaction_is_said_to_make_them_misleading(bench: Any) -> None:
    *_, last = marginal.told(bench(answers(interaction=1.5)).report()).lines
    told = r"number of blocks and token mixing interact: 2 of 2 contrasts distinguishable from 0; the largest: from "
    told += r"1 block to 4 blocks, untied token mixing over tied changes by "
    told += r"-\d+\.\d\d points \[-\S+, -\S+\]( \(97.5 %\))?, "
    told += r"n = 3 seeds and 150 test examples \(few seeds: .*\), over seeds and examples, p (<|=) \S+ \(Holm\); "
    assert re.match(told, last) and last.endswith("true of no cell; look at the cells")


@pytest.mark.parametrize("with_predictions", [True, False])
def test_an_interaction_is_the_difference_of_differences(bench: Any, with_predictions: bool) -> None:
    right = answers(interaction=0.5)
    d = right.astype(float).mean(2)  # (blocks, mixings, seeds, examples)
    contrasts = [d[blocks, 1] - d[blocks, 0] - d[0, 1] + d[0, 0] for blocks in (1, 2)]
    expected = [crossed(one) if with_predictions else by_seeds(one) for one in contrasts]
    found = factorial.interactions(grid_of(bench(right, with_predictions)))
    assert list(found) == [((BLOCKS, value, 1), (MIXING, "untied", "tied")) for value in (2, 4)]
    corrected = holm([one.p for one in expected])
    for one, other, p in zip(found.values(), expected, corrected, strict=True):
        again = other.at(one.paired.level)
        assert (one.paired.p, one.p_holm, one.paired.error) == pytest.approx((other.p, p, other.error))
        assert (one.paired.difference, one.paired.low, one.paired.high) == pytest.approx(
            (other.difference, again.low, again.high)
        )
        assert one.over == ("seeds and examples" if with_predictions else "seeds")


def by_seeds(d: Any) -> Any:
    return paired(dict.fromkeys(SEEDS, 0.0), dict(zip(SEEDS, d.mean(1), strict=True)))


def test_interactions_of_three_fields_are_means_over_the_third() -> None:
    y = np.random.default_rng(1).normal(size=(2, 3, 4, 5))  # of fields a, b and c, and seeds
    cells = {tuple((one,) for one in place): {"": dict(enumerate(y[place]))} for place in np.ndindex(2, 3, 4)}
    report: Any = SimpleNamespace(ablation=SimpleNamespace(report=SimpleNamespace(baseline={"c": 2})), read=nothing)
    found = factorial.interactions(factorial.Grid(report, (("a",), ("b",), ("c",)), cells, cells))
    assert len(found) == 1 * 2 + 1 * 3 + 2 * 3
    for (first, second), one in found.items():
        axes = ["abc".index(effect.name) for effect in (first, second)]
        cell = y.mean(tuple({0, 1, 2} - set(axes)))
        (i, first_base), (j, second_base) = ((effect.value, 2 * (effect.name == "c")) for effect in (first, second))
        by_seed = cell[i, j] - cell[i, second_base] - cell[first_base, j] + cell[first_base, second_base]
        assert one.paired.difference == pytest.approx(by_seed.mean())
        assert one.paired.p == pytest.approx(stats.ttest_1samp(by_seed, 0).pvalue)


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


DRAWN = {"train.learning_rate": "loguniform(1e-3, 1e-2)", "model.dropout": "uniform(0, 0.3)"}


def test_fields_that_are_drawn_are_one_factor(bench: Any) -> None:
    """A setting against its baseline is the mean over the samples, which are compared with nothing."""
    right = answers()[:, :, :1]
    keys = {"samples": 3, "samples_seed": 0, "report": {"baseline": {MIXING: "tied"}}}
    made = bench(right, grid={**DRAWN, MIXING: ["tied", "untied"], "seed": SEEDS}, **keys)
    (line,) = marginal.told(made.report()).lines
    assert line.startswith("untied token mixing over tied: ")
    assert line.endswith("; mean over the 3 combinations of learning rate and dropout")
    d = right.astype(float)
    ((effect, one),) = factorial.marginal_effects(grid_of(made)).items()
    assert effect == (MIXING, "untied", "tied")
    assert one.paired.p == pytest.approx(crossed((d[:, 1] - d[:, 0]).mean((0, 1))).p)
    made = bench(right[:, :1], grid={**DRAWN, "seed": SEEDS}, **{**keys, "report": {}})
    line = marginal.told(made.report()).why_not
    assert line == "There are no marginal effects: learning_rate and dropout do not vary independently."


def test_the_finest_factors_are_those_whose_product_the_combinations_are() -> None:
    crossed_fields = [(a, b, c) for a in "xy" for b in "uv" for c in "pq"]
    assert factorial.factors_of("abc", crossed_fields) == (("a",), ("b",), ("c",))
    with_one_excluded = [one for one in crossed_fields if one[0::2] != ("y", "q")]
    assert factorial.factors_of("abc", with_one_excluded) == (("a", "c"), ("b",))
    assert factorial.factors_of("abc", crossed_fields[:-1]) == (("a", "b", "c"),)  # each two are crossed


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
