"""Differences over seeds and test examples: whose predictions are compared, and what tables and answers say of them."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import predictions as of_analysis
from analysis import settings
from analysis.cells import cells
from analysis.inference import crossed
from analysis.matching import beside
from analysis.page.answer import sentences
from analysis.page.main_table import MainTable
from analysis.predictions import Right
from analysis.report import Report
from analysis.table.wording import difference_text
from experiments.results import predictions
from tests.test_report_files import MIXING, Bench, record

SEEDS, NUM = [0, 1, 2], 200
LABELS = np.arange(NUM) % 3
REPORT = {"rows": [MIXING], "columns": ["backend"], "baseline": {MIXING: "tied"}}


def answers(mixings: int, backends: int, seeds: int, gain: float = 0.1) -> Any:
    """Which examples are right, bool (mixings, backends, seeds, NUM): frameworks of a seed are nearly alike."""
    rng = np.random.default_rng(0)
    skill = 0.8 + rng.normal(0, 0.8, (1, 1, 1, NUM)) + rng.normal(0, 0.05, (mixings, 1, seeds, 1))
    skill = skill + gain * 3 * np.arange(mixings)[:, None, None, None] + rng.normal(0, 0.4, (mixings, 1, seeds, NUM))
    return skill + rng.normal(0, 0.1, (mixings, backends, seeds, NUM)) > 0


def keep(folder: Path, right: Any, content: str = "digits") -> None:
    splits: Any = SimpleNamespace(labels=LABELS, validation=np.arange(0), test=np.arange(NUM))
    said = {"test": np.where(right, LABELS, 3).astype(np.uint16)}
    predictions.keep(folder, splits, content, {"last": said, "best": said})


@pytest.fixture
def bench(tmp_path: Path, cache: Path) -> Any:
    def bench(right: Any, backends: Sequence[str] = ("torch", "jax"), **keys: Any) -> Bench:
        grid = {MIXING: ["tied", "untied"], "backend": list(backends), "seed": SEEDS[: right.shape[2]]}
        made = Bench(tmp_path, cache, **{"grid": grid, "report": REPORT, **keys})
        flat = right.reshape(len(made.trials), NUM)
        made.put(*(record(float(one.mean())) for one in flat))
        for planned, one in zip(made.trials, flat, strict=True):
            keep(made.store.folder(planned.trial.id), one)
        return made

    return bench


def setting(made: Bench) -> Any:
    return made.report().table.iloc[-1]


def test_a_setting_is_tested_over_seeds_and_examples_its_frameworks_averaged(bench: Any) -> None:
    right = answers(2, 2, 3)
    made, d = bench(right), (right[1].mean(0) - right[0].mean(0))
    cell, expected = setting(made), crossed(d)
    assert 0 < expected.seeds_share < 1 and cell["over"] == "seeds and examples" and cell["examples"] == NUM
    names = ("setting_difference", "setting_low", "setting_high", "setting_p", "setting_error", "setting_seeds_share")
    numbers = (expected.difference, expected.low, expected.high, expected.p, expected.error, expected.seeds_share)
    assert tuple(cell[name] for name in names) == pytest.approx(numbers)
    assert cell["p_holm"] == cell["setting_p"] and cell["level"] == 0.95
    alone = crossed(right[1, 1].astype(float) - right[0, 1])
    assert (cell["difference_low"], cell["p"]) == pytest.approx((alone.low, alone.p))
    assert "over seeds and test examples, both as samples of many (crossed random effects)" in made.text()
    assert f"n = 3 seeds and {NUM} test examples (few seeds" in sentences(made.report())[0]


def test_interval_and_p_are_what_the_reference_says(bench: Any) -> None:
    """By the formulas of analysis/reference.md, "What is tested", and nothing of ours."""
    right = answers(2, 2, 3, gain=0.03)
    cell, d = setting(bench(right)), right[1].mean(0) - right[0].mean(0)
    n, num = d.shape
    m, of_seed, of_example = d.mean(), d.mean(1), d.mean(0)
    seeds = num * np.sum((of_seed - m) ** 2) / (n - 1)
    examples = n * np.sum((of_example - m) ** 2) / (num - 1)
    rest = np.sum((d - of_seed[:, None] - of_example + m) ** 2) / ((n - 1) * (num - 1))
    c = max(examples - rest, 0.0)
    e, w = math.sqrt((seeds + c) / (n * num)), seeds / (seeds + c)

    def q(a: float) -> float:
        return float(w * stats.t.ppf(1 - a / 2, n - 1) + (1 - w) * stats.t.ppf(1 - a / 2, num - 1))

    assert c > 0 and 0.05 < w < 0.95
    assert (cell["setting_error"], cell["setting_seeds_share"]) == pytest.approx((e, w))
    assert (cell["setting_low"], cell["setting_high"]) == pytest.approx((m - q(0.05) * e, m + q(0.05) * e))
    assert q(cell["setting_p"]) * e == pytest.approx(abs(m))


def test_a_table_on_validation_names_validation_examples(bench: Any) -> None:
    made = bench(answers(2, 2, 3), report={**REPORT, "metric": "last.validation.accuracy"})
    splits: Any = SimpleNamespace(labels=LABELS, validation=np.arange(NUM), test=np.arange(0))
    for planned, one in zip(made.trials, answers(2, 2, 3).reshape(-1, NUM), strict=True):
        said = {"validation": np.where(one, LABELS, 3).astype(np.uint16)}
        predictions.keep(made.store.folder(planned.trial.id), splits, "digits", {"last": said})
    folder = made.write()
    told = [
        made.text(),
        *sentences(made.report()),
        *((folder / name).read_text() for name in ("report.md", "table.tex")),
    ]
    assert "* p < 0.05, test over seeds and validation examples" in told[0]
    assert f"n = 3 seeds and {NUM} validation examples" in told[1]
    assert f"3 seeds and {NUM} validation examples" in (folder / "report.html").read_text()
    assert not [text for text in told if "test examples" in text]


def test_frameworks_have_no_interval_of_their_own_beside_that_of_their_setting(bench: Any) -> None:
    folder = bench(answers(2, 2, 3)).write()
    for name in ("table.md", "report.md", "report.html"):
        text = (folder / name).read_text()
        assert len(re.findall(r"points \[", text)) >= 1
        assert not re.search(r"backend=(torch|jax): \S+ points \[", text)
    assert f"3 seeds and {NUM} test examples" in (folder / "report.html").read_text()


def test_one_seed_is_told_to_be_tested_over_its_examples_alone(bench: Any) -> None:
    right = answers(2, 1, 1)
    made = bench(right, backends=["torch"])
    cell, expected = setting(made), crossed(right[1, 0].astype(float) - right[0, 0])
    assert (cell["over"], cell["setting_low"], cell["p_holm"]) == ("examples", expected.low, expected.p)
    said = sentences(made.report())[0]
    assert f"distinguishable at this seed. n = 1 seed (the interval is over {NUM} test examples alone)." in said
    assert "of one seed, over the test examples alone, and say nothing of other seeds" in made.text()


@pytest.mark.parametrize("why", ["none", "other examples", "no match", "damaged", "loss", "train"])
def test_without_predictions_of_the_same_examples_a_setting_is_tested_over_seeds(bench: Any, why: str) -> None:
    """Of one of six trials, or of the metric. Where predictions and record do not match, the record counts."""
    right = answers(2, 1, 3)
    made = bench(right, backends=["torch"])
    folder = made.store.folder(made.trials[4].trial.id)
    if why == "none":
        predictions.forget(folder)
    elif why == "damaged":
        (folder / predictions.FILE).write_bytes(b"PK")
    elif why == "other examples":
        keep(folder, right[1, 0, 1], content="others")
    elif why == "no match":
        keep(folder, right[1, 0, 1] ^ (np.arange(NUM) == 5))
    else:
        metric = {"loss": "last.test.loss", "train": "last.train.accuracy"}[why]
        made.ablation = replace(made.ablation, report=replace(made.ablation.report, metric=metric))
    cell = setting(made)
    assert cell["examples"] == 0 and cell["over"] == ("" if why == "loss" else "seeds")
    assert ("over seeds alone; the" in made.text()) == (why != "loss")


def test_a_tidy_frame_alone_is_tested_over_seeds(bench: Any) -> None:
    report = bench(answers(2, 2, 3)).report()
    assert list(cells(report.ablation, report.frame)["over"]) == ["", "", "seeds", "seeds"]


def test_each_file_of_predictions_is_read_once_and_only_of_what_is_compared(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, read, own = bench(answers(2, 2, 3)), [], predictions.read
    monkeypatch.setattr(predictions, "read", lambda *given: read.append(given[0].name) or own(*given))
    made.report()
    assert sorted(read) == sorted(one.trial.id for one in made.trials)
    read.clear()
    made.ablation = replace(made.ablation, report=replace(made.ablation.report, baseline={}))
    made.report()
    assert read == []


# --- answers ----------------------------------------------------------------------------------------------------------


def test_the_table_of_the_page_has_the_test_of_a_setting_with_its_level(bench: Any) -> None:
    grid = {MIXING: ["tied", "untied", "pooling", "identity"], "backend": ["torch", "jax"], "seed": [0, 1, 2]}
    report = bench(answers(4, 2, 3), grid=grid).report()
    table = MainTable(report).as_dict()
    places = {column["name"]: place for place, column in enumerate(table["columns"])}
    (group,) = table["groups"]
    tested = list(settings.rows_of(report.ablation, report.rows).values())
    levels = set()
    for row, cell in zip(group["rows"][1:], tested, strict=True):
        words = row["cells"][places["difference (points)"]]["text"].replace("\u00a0", " ")
        assert difference_text(report.ablation, cell).replace(" points", "") in words
        assert row["cells"][places["interval over"]]["text"] == f"3 seeds and {NUM} test examples"
        levels |= set(re.findall(r"\(([\d.]+) %\)", words))
    assert levels and table["together"] == "torch and jax"
    assert group["rows"][0]["cells"][places["interval over"]]["text"] == "—"


def test_an_answer_calls_distinguishable_exactly_what_its_interval_says(bench: Any) -> None:
    """Over 60 tables of three settings, on one framework or two, over seeds alone, over examples, or over both."""
    rng, found = np.random.default_rng(1), []
    grid = {MIXING: ["tied", "untied", "pooling", "identity"], "backend": ["torch", "jax"], "seed": [0, 1, 2]}
    made = bench(answers(4, 2, 3), grid=grid)
    report = made.report()
    for _ in range(60):
        base, gain = rng.uniform(0.1, 2), rng.uniform(0, 0.15)
        skill = base + rng.normal(0, 0.8, (1, 1, 1, NUM)) + gain * rng.normal(0, 3, (4, 1, 1, 1))
        right = skill + rng.normal(0, 0.03, (4, 1, 3, 1)) + rng.normal(0, 0.3, (4, 2, 3, NUM)) > 0
        flat = right.reshape(24, NUM)
        frame = report.frame.assign(**{"last.test.accuracy": flat.mean(1)})
        if rng.random() < 0.4:  # some of the seeds are not done
            frame.loc[frame["seed"] > rng.integers(0, 2), "status"] = "missing"
        by_id = {key: Right(np.packbits(one), NUM, "digits") for key, one in zip(frame["id"], flat, strict=True)}
        table = cells(report.ablation, frame, report.options, by_id.get if rng.random() < 0.7 else of_analysis.nothing)
        for line in sentences(Report(report.ablation, report.store, report.options, {}, frame, table)):
            if ends := re.search(r"\[(-?[\d.]+), (-?[\d.]+)\]", line):
                told = line[ends.end() :]
                leaves_out = float(ends[1]) > 0 or float(ends[2]) < 0
                assert (": distinguishable" in told) == leaves_out, line
                assert (": not distinguishable" in told) == ("with 80 % power" in told) == (not leaves_out), line
                found.append(leaves_out)
    assert 0.2 < np.mean(found) < 0.8 and len(found) > 100


def test_an_interval_that_ends_near_zero_shows_on_which_side() -> None:
    from analysis.table.wording import interval_text

    ablation: Any = SimpleNamespace(report=SimpleNamespace(metric="last.test.accuracy"))
    assert interval_text(ablation, 0.00003, 0.01, 1) == "[0.003, 1.000]"
    assert interval_text(ablation, -0.01, -0.00003, 1) == "[-1.000, -0.003]"
    assert interval_text(ablation, -0.00003, 0.01, 1) == "[0.00, 1.00]" and interval_text(ablation, math.nan, 1) == ""
    assert interval_text(ablation, 0.0, 0.01, 1) == "[0.00, 1.00]"


def test_an_answer_says_what_is_matched_and_what_is_not() -> None:
    base = pd.Series({"parameters": 100.0, "training_flops": 1e21, "steps": 4.0, "seconds": 9.0})
    assert beside(base, base) == "at equal parameters, training FLOPs and steps"
    other = base * pd.Series({"parameters": 7.9, "training_flops": 1.004, "steps": 2, "seconds": 3})
    assert beside(other, base) == "at 7.9x the parameters and 2x the steps, equal training FLOPs (within 0.4 %)"
    assert beside(base * math.nan, base) == ""
    assert beside(base.replace(4.0, math.nan), base) == "at equal parameters and training FLOPs"
