"""A batch in microbatches: which rows each has, in which order they are added, and that the step is the same."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
from backends.arrays import State
from backends.contract import ArrayDataset, Program
from backends.errors import MixlabError
from backends.microbatches import Group, padded_size, rows_read, split, tree_sum
from experiments import data
from experiments.parity.plans import whole_plan
from experiments.spec.trial import Trial
from experiments.training.plan import step_plan, step_rows
from experiments.training.start import initial_state
from tests.conftest import base, planned, write_yaml

BACKENDS = backends.names()
ON: dict[str, Any] = {"flip": True, "crop": 1, "mixup": 0.4, "cutmix": 1.0}
# Of gradients in float64, against their largest number; seen: 3e-15.
SAME = 1e-13


def trial_of(folder: Path, **values: Any) -> Trial:
    return planned(write_yaml(folder / "one.yaml", base=base(**values)), folder)[0].trial


def step_of(folder: Path, backend: str, microbatches: int, **values: Any) -> tuple[State, State, float]:
    """The gradient of a step of 8 rows, and the state and the loss after it."""
    train = {"precision": "float64", "batch_size": 8, "microbatches": microbatches, **values.pop("train", {})}
    trial = trial_of(folder, backend=backend, train=train, **values)
    splits = data.load(trial.data, trial.info, folder)
    dataset = ArrayDataset(np.asarray(splits.images), np.asarray(splits.labels))
    program: Program = backends.load(backend).open(trial.model, trial.optimizer, dataset, trial.run_spec(1))
    program.load([initial_state(trial)])
    plan = whole_plan(trial, splits, 3, 1)
    gradient = program.gradients([plan])[0]
    (metrics,) = program.train([plan])
    return gradient, program.states()[0], float(metrics.loss[0])


def test_the_tree_is_the_one_that_is_written_down() -> None:
    assert tree_sum("01234567", lambda a, b: f"({a}+{b})") == "(((0+1)+(2+3))+((4+5)+(6+7)))"
    assert tree_sum(["0"], lambda a, b: f"({a}+{b})") == "0"


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_the_sums_of_processes_are_subtrees(size: int) -> None:
    numbers = np.random.default_rng(0).normal(size=(8, 1000)).astype(np.float32)
    own = [tree_sum(part, np.add) for part in np.split(numbers, size)]
    np.testing.assert_array_equal(tree_sum(own, np.add), tree_sum(numbers, np.add))
    assert (tree_sum(numbers, np.add) != sum(numbers)).any(), "another order gives other bits, or nothing is tested"


@pytest.mark.parametrize("size", [1, 2, 4])
def test_each_row_is_one_process_s_own_and_partners_stand_behind(size: int, tmp_path: Path) -> None:
    trial = trial_of(tmp_path, data={**base()["data"], "augment": ON}, train={"batch_size": 16, "microbatches": 4})
    plan, seen = step_plan(trial, np.arange(40, dtype=np.int32), 5, 3), []
    for rank in range(size):
        parts = split(plan, 4, Group(rank, size))
        assert len(parts) == 4 // size
        for part in parts:
            own = int(part.first_rows[0]) + np.arange(4)  # type: ignore[index]
            seen += own.tolist()
            np.testing.assert_array_equal(part.examples[:, :4], plan.examples[:, own])
            assert part.mixup_partners is not None and plan.mixup_partners is not None
            assert part.crops is not None and plan.crops is not None
            for step in range(3):
                theirs = plan.mixup_partners[step, own]
                np.testing.assert_array_equal(
                    part.examples[step, part.mixup_partners[step]], plan.examples[step, theirs]
                )
                np.testing.assert_array_equal(part.crops[step, part.mixup_partners[step]], plan.crops[step, theirs])  # type: ignore[index]
    assert sorted(seen) == list(range(16))


def test_one_microbatch_is_the_plan_itself(tmp_path: Path) -> None:
    plan = step_plan(trial_of(tmp_path), np.arange(40, dtype=np.int32), 0, 2)
    assert split(plan, 1) == [plan]
    np.testing.assert_array_equal(step_rows(trial_of(tmp_path), 0), np.arange(8))


def test_rows_whose_pixels_are_read_are_those_of_the_microbatches(tmp_path: Path) -> None:
    trial = trial_of(tmp_path, data={**base()["data"], "augment": ON}, train={"batch_size": 16, "microbatches": 4})
    partners = step_plan(trial, np.arange(40, dtype=np.int32), 5, 1).mixup_partners
    for rank in (0, 1):
        wanted = rows_read(16, partners, 4, Group(rank, 2))[0].reshape(-1)
        np.testing.assert_array_equal(step_rows(trial, 5, Group(rank, 2)), wanted)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000])
def test_a_flat_array_has_equal_shares(size: int) -> None:
    assert padded_size(size, 4) >= size and padded_size(size, 4) % (4 * 64) == 0 and padded_size(size, 4) < size + 256


CASES: dict[str, dict[str, Any]] = {
    "all that is drawn": {
        "model": {"dropout": 0.2, "stochastic_depth": 0.5, "num_blocks": 2},
        "data": {"augment": ON},
        "train": {"ema_decay": 0.9, "weight_decay": 0.1, "label_smoothing": 0.1},
    },
    "untied, on the host": {
        "model": {"dropout": 0.2, "token_mixing": "untied"},
        "data": {"augment": {"inception": "tf", "mixup": 0.4, "flip": True}},
        "train": {"optimizer": "sgd", "loss": "sigmoid"},
    },
    "no partner": {"model": {"dropout": 0.2}, "data": {"augment": {"flip": True}}, "train": {"clip_norm": 0.01}},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_in_microbatches_is_the_step(backend: str, case: str, tmp_path: Path) -> None:
    """Up to rounding: masks, partners and crops are those of the whole batch's rows."""
    values = {key: {**base()[key], **value} for key, value in CASES[case].items()}
    whole, *after = step_of(tmp_path, backend, 1, **{key: dict(value) for key, value in values.items()})
    parts, *later = step_of(tmp_path, backend, 4, **{key: dict(value) for key, value in values.items()})
    largest = max(abs(array).max() for array in whole.values())
    assert max(abs(whole[name] - parts[name]).max() for name in whole) < SAME * largest
    moments = [name for name in after[0] if "moment" in name]  # parameters divide by what may be rounding alone
    assert moments and max(abs(after[0][name] - later[0][name]).max() for name in moments) < SAME * largest
    assert later[1] == pytest.approx(after[1], rel=SAME)


def test_microbatches_are_part_of_the_id_where_there_are_several(tmp_path: Path) -> None:
    ids = [trial_of(tmp_path, train={**base()["train"], "microbatches": number}).id for number in (1, 2, 4)]
    assert len(set(ids)) == 3 and ids[0] == trial_of(tmp_path).id


@pytest.mark.parametrize(
    ("train", "run", "words"),
    [
        ({"microbatches": 3}, {}, r"a power of two that divides train.batch_size 8 \(1, 2, 4, 8\), got 3"),
        ({"microbatches": 16}, {}, r"\(1, 2, 4, 8\), got 16"),
        (
            {"microbatches": 4},
            {"devices": 3},
            r"a number that divides train.microbatches 4 \(1, 2, 4\), got 3",
        ),
        ({"microbatches": 1}, {"devices": 2}, r"got 2; more devices need more microbatches"),
        (
            {"microbatches": 2},
            {"devices": 2, "replicas": "4"},
            r"expected 1 or auto where run.devices is 2",
        ),
    ],
)
def test_a_batch_that_cannot_be_dealt_out_is_a_sentence(
    train: dict[str, Any], run: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(MixlabError, match=words):
        trial_of(tmp_path, train={**base()["train"], **train}, run=run)


def test_devices_read_their_rows_alone(tmp_path: Path) -> None:
    from experiments.data.ahead import Room

    trial = trial_of(tmp_path, train={**base()["train"], "microbatches": 4})
    on = replace(trial, run=replace(trial.run, devices=4))
    assert Room.of(on).step_bytes * 4 == Room.of(trial).step_bytes
