"""The plan of a step says what it should, and is the same however a run is cut into chunks."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from backends.arrays import Array
from backends.plan import StepPlan
from experiments.spec.config import AugmentConfig, DataConfig, ModelConfig, TrainConfig, TrialConfig
from experiments.spec.resolve import resolve
from experiments.spec.trial import DataInfo, Trial
from experiments.training.plan import learning_rates, step_plan

INFO = DataInfo("none", image_size=8, image_channels=1, num_classes=3, num_train=50, num_validation=0, num_test=5)
EXAMPLES = np.arange(100, 150, dtype=np.int32)[::-1].copy()
PER_EPOCH = 6  # batches of 8 among 50 examples
AUGMENT = {"flip": True, "crop": 2, "mixup": 0.3}
TRAIN = {"batch_size": 8, "steps": 40, "learning_rate": 0.5, "warmup_steps": 10}
CHANCE = {"dropout": 0.1, "stochastic_depth": 0.3}
NUM = 2000  # steps whose frequencies are held against their rates
MAX_DEVIATIONS = 4  # standard deviations of a frequency; all is seeded, so this fails never or always. Seen: 2.1


def make_trial(
    model: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    augment: dict[str, Any] | None = None,
    seed: int = 0,
) -> Trial:
    config = TrialConfig(
        ModelConfig(**CHANCE | (model or {})),
        DataConfig(augment=AugmentConfig(**(AUGMENT if augment is None else augment))),
        TrainConfig(**TRAIN | (train or {})),
        seed=seed,
    )
    return resolve(config, INFO, "test")


def plan(trial: Trial, first: int, num: int) -> StepPlan:
    return step_plan(trial, EXAMPLES, first, num)


def joined(plans: list[StepPlan]) -> dict[str, Array]:
    return {name: np.concatenate([part.arrays()[name] for part in plans]) for name in plans[0].arrays()}


CUTS = [[20], [1] * 20, [7, 6, 7], [19, 1], [1, 5, 13, 1]]


@pytest.mark.parametrize("lengths", CUTS, ids=str)
@pytest.mark.parametrize("seed", [0, 11])
def test_chunks_join_to_the_plan_of_the_whole(lengths: list[int], seed: int) -> None:
    """Over the ends of three epochs, and of the warm-up."""
    trial = make_trial(seed=seed, augment={**AUGMENT, "cutmix": 0.5})
    whole = plan(trial, 0, 20)
    starts = np.cumsum([0, *lengths[:-1]])
    parts = [plan(trial, int(first), num) for first, num in zip(starts, lengths, strict=True)]
    assert [part.first_step for part in parts] == starts.tolist() and [part.num_steps for part in parts] == lengths
    together = joined(parts)
    others = {"first_step", "dropout_rate", "pixels", "first_rows"}  # `first_rows` is of a part of a batch alone
    assert set(together) == {f.name for f in dataclasses.fields(StepPlan)} - others
    for name, array in whole.arrays().items():
        assert array.dtype == together[name].dtype
        np.testing.assert_array_equal(together[name], array, err_msg=name)


def test_arrays_have_the_types_and_shapes_of_the_contract() -> None:
    b = TRAIN["batch_size"]
    expected = {
        "learning_rate": ("float64", (3,)),
        "moment_corrections": ("float64", (3, 2)),
        "examples": ("int32", (3, b)),
        "crops": ("int32", (3, b, 2)),
        "flips": ("bool", (3, b)),
        "mixup_partners": ("int32", (3, b)),
        "mixup_weights": ("float64", (3,)),
        "branch_scales": ("float64", (3, 8, b)),
        "dropout_keys": ("uint32", (3,)),
    }
    arrays = plan(make_trial(), 5, 3).arrays()
    assert {name: (str(array.dtype), array.shape) for name, array in arrays.items()} == expected


def test_what_is_off_is_none() -> None:
    bare = plan(make_trial({"dropout": 0.0, "stochastic_depth": 0.0}, augment={}), 0, 3)
    assert set(bare.arrays()) == {"learning_rate", "moment_corrections", "examples"}
    assert bare.dropout_rate is None


def test_seeds_draw_apart_and_share_the_rates() -> None:
    one, two = (plan(make_trial(seed=seed), 0, 20).arrays() for seed in (0, 1))
    same = {name for name in one if np.array_equal(one[name], two[name])}
    assert same == {"learning_rate", "moment_corrections"}


# Learning rate


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_rate_rises_in_equal_steps_to_its_highest(schedule: str) -> None:
    rates = learning_rates(make_trial(train={"schedule": schedule}).train, 0, 40)
    np.testing.assert_allclose(rates[:10], 0.5 * np.arange(1, 11) / 10, rtol=1e-15)
    assert rates[9] == rates[10] == rates.max() == 0.5  # the last step of the warm-up, and the first after it


@pytest.mark.parametrize(
    ("schedule", "last"),
    # 30 steps after the warm-up, of which 29 are over: half a cosine, sin^2 of the rest; a line, the rest.
    [("cosine", 0.5 * np.sin(np.pi / 60) ** 2), ("linear", 0.5 / 30), ("constant", 0.5)],
)
def test_rate_of_the_last_step(schedule: str, last: float) -> None:
    rates = learning_rates(make_trial(train={"schedule": schedule}).train, 0, 40)
    assert rates[-1] == pytest.approx(last, rel=1e-12)  # 1 + cos cancels near the end. Seen: 9e-15
    assert (rates > 0).all() and (np.diff(rates[9:]) <= 0).all()


@pytest.mark.parametrize(("schedule", "half"), [("cosine", 0.25), ("linear", 0.25), ("constant", 0.5)])
def test_rate_is_half_at_half_of_the_way(schedule: str, half: float) -> None:
    train = make_trial(train={"schedule": schedule}).train
    assert learning_rates(train, 25, 1)[0] == pytest.approx(half, rel=1e-12)


def test_rate_without_a_warm_up_begins_at_its_highest() -> None:
    assert learning_rates(make_trial(train={"warmup_steps": 0}).train, 0, 1)[0] == 0.5


def test_rate_of_a_run_that_is_all_warm_up_ends_at_its_highest() -> None:
    assert learning_rates(make_trial(train={"warmup_steps": 40}).train, 39, 1)[0] == 0.5


# Data order


def test_an_epoch_visits_each_example_at_most_once() -> None:
    drawn = plan(make_trial(), 0, 3 * PER_EPOCH).examples.reshape(3, -1)
    for epoch in drawn:
        assert len(set(epoch)) == len(epoch) == PER_EPOCH * 8
        assert set(epoch) <= set(EXAMPLES)
    assert not np.array_equal(drawn[0], drawn[1])


def test_every_example_is_visited_in_the_long_run() -> None:
    """What fills no batch is left out anew in each epoch."""
    drawn = plan(make_trial(), 0, 10 * PER_EPOCH).examples
    assert set(drawn.ravel()) == set(EXAMPLES)


# Augmentation and masks


def within(frequency: float, rate: float, num: int) -> bool:
    return abs(frequency - rate) < MAX_DEVIATIONS * (rate * (1 - rate) / num) ** 0.5


def test_mixup_partners_permute_the_batch() -> None:
    partners = plan(make_trial(), 0, 20).mixup_partners
    assert partners is not None
    np.testing.assert_array_equal(np.sort(partners, axis=1), np.tile(np.arange(8), (20, 1)))


def test_mixup_weights_lie_in_the_unit_interval_and_differ() -> None:
    weights = plan(make_trial(), 0, 20).mixup_weights
    assert weights is not None
    assert ((weights >= 0) & (weights <= 1)).all() and len(set(weights)) == 20


def test_crops_take_every_shift_and_flips_half_of_the_images() -> None:
    arrays = plan(make_trial(), 0, NUM).arrays()
    assert set(np.unique(arrays["crops"])) == {-2, -1, 0, 1, 2}
    rows, columns = arrays["crops"].reshape(-1, 2).T
    assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == 25
    assert within(arrays["flips"].mean(), 0.5, arrays["flips"].size)


def test_stochastic_depth_rises_linearly_over_the_blocks() -> None:
    scales = plan(make_trial(), 0, NUM).branch_scales
    assert scales is not None and set(np.unique(scales)) == {0.0, 1.0}
    for block, rate in enumerate((0.0, 0.1, 0.2, 0.3)):
        for mixing in range(2):
            dropped = (scales[:, 2 * block + mixing] == 0).mean()
            assert dropped == 0 if rate == 0 else within(dropped, rate, NUM * 8), (block, mixing)


def test_branches_of_a_block_are_dropped_apart() -> None:
    scales = plan(make_trial(), 0, NUM).branch_scales
    assert scales is not None
    token, channel = scales[:, 6:8].swapaxes(0, 1).reshape(2, -1)
    assert abs(np.corrcoef(token, channel)[0, 1]) < MAX_DEVIATIONS / (NUM * 8) ** 0.5


def test_stochastic_depth_draws_nothing_for_a_block_that_is_alone() -> None:
    assert plan(make_trial({"num_blocks": 1}), 0, NUM).branch_scales is None
    assert plan(make_trial({"num_blocks": 1, "rescale": True}), 0, NUM).branch_scales is not None


def test_rescaling_has_one_rate_for_all_blocks_and_divides_by_the_keep_rate() -> None:
    scales = plan(make_trial({"rescale": True}), 0, NUM).branch_scales
    assert scales is not None
    assert set(np.unique(scales)) == {0.0, 1 / (1 - 0.3)}
    for branch in range(scales.shape[1]):
        assert within((scales[:, branch] == 0).mean(), 0.3, scales[:, branch].size)


def test_dropout_keys_are_of_32_bits_and_differ() -> None:
    drawn = plan(make_trial(), 0, NUM)
    assert drawn.dropout_keys is not None and drawn.dropout_rate == 0.1
    assert len(np.unique(drawn.dropout_keys)) > NUM - 3
    assert within((drawn.dropout_keys >= 2**31).mean(), 0.5, NUM)


def test_moment_corrections_are_exact_to_float64() -> None:
    """Step t is counted from 1; the last of a long run is 1, the first of a late chunk what it is in the whole."""
    corrections = plan(make_trial(), 999, 2).moment_corrections
    assert corrections.dtype == np.float64
    for row, t in zip(corrections, (1000, 1001), strict=True):
        np.testing.assert_allclose(row, [1 / (1 - 0.9**t), 1 / (1 - 0.999**t)], rtol=1e-15)
    np.testing.assert_allclose(plan(make_trial(), 0, 1).moment_corrections[0], [10, 1000], rtol=1e-12)
