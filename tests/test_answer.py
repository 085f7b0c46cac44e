"""The sentences that answer an ablation's question: settings in words, and nothing that contradicts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.page.answer import sentences
from tests.test_report_files import BLOCKS, MIXING, RATE, Bench, record

Sentences = Callable[..., list[str]]
SHIFTS = (0.01, 0.02, 0.012)  # by seed: what a setting adds, where it adds something
TIED = {"rows": [MIXING], "baseline": {MIXING: "tied"}}


@pytest.fixture
def told(tmp_path: Path, cache: Path) -> Sentences:
    """The sentences on a grid, in which each value of `gains` adds so many times SHIFTS to 70 % of the baseline."""

    def told(
        grid: dict[str, Any], report: dict[str, Any], gains: dict[Any, float], num: int = 99, **keys: Any
    ) -> list[str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        made = Bench(folder, cache, grid={**grid, "seed": [0, 1, 2]}, report=report, **keys)
        values = [
            0.7 + SHIFTS[one.trial.seed] * sum(gains.get(value, 0) for value in one.settings.values() if value != 0)
            for one in made.trials
        ]
        return sentences(made.put(*map(record, values[:num])).report())

    return told


def test_settings_that_are_compared_at_several_places_name_them(told: Sentences) -> None:
    grid = {BLOCKS: [2, 4], RATE: [0.001, 0.01], MIXING: ["tied", "untied"]}
    first, *others = told(grid, {**TIED, "rows": [BLOCKS, RATE, MIXING]}, {"untied": 1})
    count = "In test accuracy, none of 4 settings is distinguishable from tied token mixing. The largest difference: "
    one = "with 2 blocks and learning rate 0.001, untied token mixing scored 1.40 points above tied ["
    assert first.startswith(count + one) and first.endswith(" standard errors). No setting was tuned.")
    assert [line.partition(", untied")[0] for line in others] == [
        f"with {blocks} blocks and learning rate {rate}" for blocks, rate in ((2, 0.01), (4, 0.001), (4, 0.01))
    ]


def test_counts_switches_and_nothing_are_words(told: Sentences) -> None:
    said = told({BLOCKS: [1, 2, 4]}, {"rows": [BLOCKS], "baseline": {BLOCKS: 2}}, {4: 1, 1: -1})
    assert "from 2 blocks. The largest difference: 1 block scored 1.40 points below 2 blocks [" in said[0]
    assert said[1].startswith("4 blocks scored 1.40 points above 2 blocks [")
    embedding, flip = "model.position_embedding", "data.augment.flip"
    report = {"rows": [embedding, flip], "baseline": {embedding: "none"}}
    said = told({embedding: ["none", "learned"], flip: [True, False]}, report, {"learned": 1})
    assert "with flip on, learned position embedding scored 1.40 points above no position embedding [" in said[0]
    assert said[1].startswith("with flip off, learned position embedding ")


def test_a_baseline_of_two_fields_is_named_once(told: Sentences) -> None:
    report = {"rows": [BLOCKS, MIXING], "baseline": {MIXING: "tied", BLOCKS: 2}}
    said = told({BLOCKS: [2, 4], MIXING: ["tied", "untied"]}, report, {"untied": 1, 4: 2})
    assert (
        "from the baseline (2 blocks, tied). The largest difference: 4 blocks, untied scored 4.20 points above the"
        in said[0]
    )
    assert [line.partition(" scored")[0] for line in said[1:]] == ["4 blocks", "untied"]


def test_frameworks_are_averaged_or_compared_in_words(told: Sentences) -> None:
    grid = {MIXING: ["tied", "untied"], "backend": ["torch", "jax"]}
    (said,) = told(grid, {**TIED, "columns": ["backend"]}, {"untied": 1}, labels={"backend": {"jax": "JAX"}})
    assert " untied token mixing scored 1.40 points above tied [" in said and ", mean of torch and JAX. No" in said
    report = {"rows": [MIXING], "columns": ["backend"], "baseline": {"backend": "torch"}}
    said, _ = told(grid, report, {"jax": 1})
    assert "from torch. The largest difference: with tied token mixing, jax scored 1.40 points above torch [" in said


def test_settings_that_are_distinguishable_are_named(told: Sentences, monkeypatch: pytest.MonkeyPatch) -> None:
    grid, gains = {MIXING: ["tied", "untied", "pooling"]}, {"untied": 1, "pooling": -2}
    assert told(grid, TIED, gains)[0].startswith(
        "In test accuracy, none of 2 settings is distinguishable from tied token"
    )
    monkeypatch.setattr("tests.test_answer.SHIFTS", (0.01, 0.0101, 0.0102))
    first, second = told(grid, TIED, gains)
    assert (
        "2 of 2 settings are distinguishable from tied token mixing (pooling; untied). The largest difference: p"
        in first
    )
    assert ": distinguishable. " in first and ": distinguishable. " in second
    (alone,) = told({MIXING: ["tied", "untied"]}, TIED, gains)
    assert ": distinguishable. " in alone and "settings" not in alone


def test_a_difference_that_is_shown_never_reads_as_zero(told: Sentences, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_answer.SHIFTS", (1.0e-5, 1.1e-5, 1.2e-5))
    (said,) = told({MIXING: ["tied", "untied"]}, TIED, {"untied": 1})
    assert "scored 0.001 points above tied [0.001, 0.001]" in said and ": distinguishable. " in said
    monkeypatch.setattr("tests.test_answer.SHIFTS", (1.0e-5, -1.1e-5, 0.2e-5))
    (said,) = told({MIXING: ["tied", "untied"]}, TIED, {"untied": 1})
    assert "scored level with tied [0.00, 0.00]" in said and "not distinguishable;" in said


def test_what_cannot_be_tested_says_why(told: Sentences) -> None:
    (said,) = told({MIXING: ["tied", "untied"]}, TIED, {})
    assert "scored level with tied, at equal" in said and "not tested, since all 3 seeds give the same diff" in said
    (said,) = told({MIXING: ["tied", "untied"]}, TIED, {"untied": 1}, num=4)
    assert said.startswith("Interim: 4 of 6 trials are done. In test accuracy, ") and said.count("trials are done") == 1
    assert said.endswith(": not tested, since one seed has no spread. n = 1 seed. No setting was tuned.")
    first, second = told({MIXING: ["tied", "untied", "pooling"]}, TIED, {"untied": 1})
    assert "the only setting that could be tested is distinguishable from tied token mixing. The largest" in first
    assert second.startswith("pooling token mixing scored level with tied, at")


def test_the_sentence_names_the_metric_and_its_direction(told: Sentences) -> None:
    grid = {MIXING: ["tied", "untied"]}
    assert told(grid, {**TIED, "metric": "best.train.loss"}, {})[0].startswith(
        "In training loss at the best evaluation (less is better), untied token mixing scored level with tied"
    )
    assert told(grid, {**TIED, "metric": "last.validation.accuracy"}, {})[0].startswith("In validation accuracy, ")


def test_the_smallest_of_many_differences_are_counted(told: Sentences) -> None:
    rates = [0.001 * i for i in range(1, 13)]
    said = told({RATE: rates}, {"rows": [RATE], "baseline": {RATE: 0.001}}, dict(zip(rates, range(12), strict=True)))
    assert len(said) == 9 and said[-1] == "3 settings more, of smaller differences, in the table"


def test_settings_that_are_all_baselines_are_not_called_untested_for_lack_of_one(told: Sentences) -> None:
    report = {"rows": [BLOCKS, MIXING], "baseline": {MIXING: "tied"}}
    (said,) = told({BLOCKS: [2, 4], MIXING: ["tied"]}, report, {4: 1})
    assert said.startswith("Best on validation of 2 settings: 4 blocks. Its test accuracy is 71.4 % [")
    assert said.endswith("All of them are baselines, so nothing is tested.")
