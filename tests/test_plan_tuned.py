"""A plan of a tuned grid counts the table's trials from the start, whatever values will be chosen."""

from pathlib import Path
from typing import Any

import pytest

from analysis.planning import spread
from analysis.planning.cost import cost
from analysis.planning.known import Known, training_flops
from analysis.terminal import plan_lines
from experiments.design.ablation import Ablation
from experiments.results.store import Store
from tests.conftest import base
from tests.test_tune import GRID, REPORT, TUNE, ablation_of, known, mixing, record, record_all

SIZE = "train.batch_size"


def planned_of(folder: Path, ablation: Ablation) -> Known:
    return Known.of(ablation, known(ablation, folder), Store(folder / "runs"))


def line(planned: Known, head: str) -> str:
    return next(line for line in plan_lines.summary(planned) if line.startswith(head))


def test_the_table_is_counted_before_it_is_known_and_costs_what_it_does_then(tmp_path: Path, quick: Path) -> None:
    ablation = ablation_of(tmp_path, report=REPORT)
    before = planned_of(tmp_path, ablation)
    assert len(before.whole) == 12 + 4 and len(before.left) == 16
    assert "trials  tuning: 12 trials, " in line(before, "trials") and "table: 4 trials, " in line(before, "trials")
    assert line(before, "trials").endswith("of which 4 wait for the choice of their values")
    record_all(tmp_path, ablation, lambda one: one.trial.train.learning_rate)
    after = planned_of(tmp_path, ablation)
    assert not after.waiting and [one.tunes for one in after.left] == [False] * 4
    assert cost(before).flops == cost(after).flops
    left = sum(training_flops(one.trial) for one in after.trials if not one.tunes)
    assert cost(after).flops_left == left and cost(before).flops_left == cost(before).flops > left
    assert cost(before).disk.weights == 4 * cost(after).disk.weights  # of 16 trials alike, and of 4
    assert "wait" not in line(after, "trials")


def test_the_seeds_that_tune_are_none_of_the_table(tmp_path: Path, quick: Path) -> None:
    assert spread.compared(planned_of(tmp_path, ablation_of(tmp_path, report=REPORT))) == spread.Compared(1, 2, 2)


@pytest.mark.parametrize("sizes", [[8, 16, 4], [16, 8, 4], [4, 8, 16]])
def test_a_setting_that_waits_is_counted_at_the_value_that_costs_the_most(
    tmp_path: Path, quick: Path, sizes: list[int]
) -> None:
    tuned = {**TUNE, "over": {SIZE: sizes}}
    found = planned_of(tmp_path, ablation_of(tmp_path, tuned))
    assert [one.trial.train.batch_size for one in found.waiting] == [16] * 4
    assert line(found, "trials").endswith("4 wait for the choice of their values, counted at those that cost the most")


def test_a_setting_that_is_chosen_waits_no_more_and_one_without_a_choice_has_no_table(
    tmp_path: Path, quick: Path
) -> None:
    ablation = ablation_of(tmp_path)
    for one in known(ablation, tmp_path):
        if mixing(one) == "tied":
            record(tmp_path, one, one.trial.train.learning_rate)
    found = planned_of(tmp_path, ablation)
    assert [(mixing(one), one.trial.train.learning_rate) for one in found.table] == [
        ("tied", 0.1), ("tied", 0.1), ("untied", 0.001), ("untied", 0.001),
    ]  # fmt: skip
    assert [mixing(one) for one in found.waiting] == ["untied", "untied"]
    for one in known(ablation, tmp_path):
        if one.tunes and mixing(one) == "untied":
            record(tmp_path, one, None)
    assert planned_of(tmp_path, ablation).waiting == []


def test_a_trial_that_two_settings_share_is_counted_once(tmp_path: Path, quick: Path) -> None:
    """Without weight decay it does not matter what it acts on."""
    tuned = {"over": {"train.weight_decay": [0.0, 0.1]}, "seeds": [100]}
    found = planned_of(tmp_path, ablation_of(tmp_path, tuned, grid={"train.decay": ["kernels", "all"], "seed": [0]}))
    assert "tuning: 3 trials, " in line(found, "trials")


def test_plan_and_a_dry_run_count_alike(tmp_path: Path, run: Any, quick: Path) -> None:
    ablation_of(tmp_path, base=base(backend="quick"), grid=GRID, report=REPORT)
    plan, dry = run("plan", "a.yaml"), run("run", "a.yaml", "--dry-run")
    assert plan.code == dry.code == 0
    assert plan.out.splitlines()[:6] == dry.out.splitlines()[:6] and plan.out.splitlines()[1].startswith("trials  ")
    first = known(ablation_of(tmp_path), tmp_path)[0].trial.id
    one = run("run", "a.yaml", "--dry-run", "--only", first).out.splitlines()
    assert one[0] == "a: 1 trial: 1 missing" and one[1].startswith("work  ")
