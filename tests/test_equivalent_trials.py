"""Settings that train the same are one trial; those that only look alike stay two."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
from backends.contract import ArrayDataset
from backends.specs import RunSpec
from experiments import data
from experiments.spec.config import DataConfig, ModelConfig, TrainConfig, TrialConfig
from experiments.spec.resolve import resolve
from experiments.spec.trial import Trial, trial_from_json
from experiments.training.plan import learning_rates, step_plan
from experiments.training.start import initial_state

STEPS = 5
SOURCE = DataConfig(source="synthetic", num_examples=60, image_size=8, num_classes=4)
NUM_TRAIN = 43  # of the 60 examples
MODEL = {"patch_size": 4, "hidden_dim": 16, "num_blocks": 1}
TRAIN: dict[str, Any] = {"batch_size": 8, "steps": STEPS, "weight_decay": 0.1, "ema_decay": 0.9, "clip_norm": 0.1}

# Sums of float64 in another order over 5 steps of AdamW. The gradient of a bias that the next norm takes out again is
# all rounding, and Adam makes 1e-6 of a step of it. Seen: 1e-13.
ROUNDING = 1e-10

Resolve = Callable[..., Trial]


@pytest.fixture
def resolved(cache: Path) -> Resolve:
    """resolved({"num_blocks": 2}, {"steps": 3}): the trial with these fields of the model and of the training."""
    info = data.describe(SOURCE, cache, "test")

    def resolved(model: dict[str, Any], train: dict[str, Any]) -> Trial:
        config = TrialConfig(ModelConfig(**{**MODEL, **model}), SOURCE, TrainConfig(**{**TRAIN, **train}))
        return resolve(config, info, "test")

    return resolved


Pair = tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]

# What is set, of the model and of the training, and what is then the same. These would be compiled to other programs.
COMPILED: list[Pair] = [
    ({"share_blocks": True}, {}, {}, {}),
    ({"stochastic_depth": 0.5}, {}, {}, {}),
    ({"stochastic_depth": 0.5, "share_blocks": True, "dropout": 0.1}, {}, {"dropout": 0.1}, {}),
    ({"token_mixing": "grouped", "token_groups": 1, "num_blocks": 2}, {}, {"num_blocks": 2}, {}),
    ({"token_mixing": "pooling", "tokens_mlp_dim": 3}, {}, {"token_mixing": "pooling"}, {}),
    ({}, {"optimizer": "sgd", "momentum": 0.0, "nesterov": True}, {}, {"optimizer": "sgd", "momentum": 0.0}),
]
IDLE = {"activation": "relu", "dropout": 0.1, "tokens_mlp_dim": 3, "channels_mlp_dim": 6, "init": "vit"}
SAME: list[Pair] = [
    *COMPILED,
    ({}, {"schedule": "constant", "warmup_steps": 1}, {}, {"schedule": "constant"}),
    ({}, {"schedule": "linear", "warmup_steps": STEPS - 1}, {}, {"warmup_steps": STEPS - 1}),
    ({}, {"schedule": "constant", "warmup_steps": STEPS}, {}, {"warmup_steps": STEPS}),
    ({}, {"schedule": "linear", "warmup_steps": 1, "steps": 1}, {}, {"steps": 1}),
    ({}, {"schedule": "linear", "warmup_steps": 1, "steps": 2}, {}, {"schedule": "constant", "steps": 2}),
    ({}, {"evaluate_train_examples": NUM_TRAIN}, {}, {}),
    ({"share_token_mixing": True, "share_channel_mixing": True}, {}, {}, {}),
    (
        {"share_blocks": True, "share_token_mixing": True, "num_blocks": 2},
        {},
        {"share_blocks": True, "num_blocks": 2},
        {},
    ),
    (
        {"token_mixing": "shift", "share_token_mixing": True, "num_blocks": 2},
        {},
        {"token_mixing": "shift", "num_blocks": 2},
        {},
    ),
    ({"norm": "affine", "norm_epsilon": 1e-5}, {}, {"norm": "affine"}, {}),
    ({"num_heads": 2, "kernel_size": 5, "cls_position": False}, {}, {}, {}),
    ({"token_mixing": ("tied", "tied"), "num_blocks": 2}, {}, {"num_blocks": 2}, {}),
    ({"token_mixing": "gating", "tokens_mlp_dim": 3, "channel_mixing": "untied"}, {}, {"token_mixing": "gating"}, {}),
    (
        {"token_mixing": "shift", "channel_mixing": "none", **IDLE},
        {},
        {"token_mixing": "shift", "channel_mixing": "none"},
        {},
    ),
    ({"patch_size": 1, "stem": "overlap"}, {}, {"patch_size": 1}, {}),
    ({}, {"evaluate_train_examples": NUM_TRAIN + 1}, {}, {}),
]
# Each is another training, though it is near one that is not.
OTHER: list[Pair] = [
    ({"share_blocks": True, "num_blocks": 2}, {}, {"num_blocks": 2}, {}),
    ({"share_token_mixing": True, "num_blocks": 2}, {}, {"num_blocks": 2}, {}),
    ({"share_channel_mixing": True, "num_blocks": 2}, {}, {"num_blocks": 2}, {}),
    ({"norm": "rms", "norm_epsilon": 1e-5}, {}, {"norm": "rms"}, {}),
    ({"token_mixing": "attention", "num_heads": 2}, {}, {"token_mixing": "attention"}, {}),
    ({"token_mixing": "depthwise", "kernel_size": 5}, {}, {"token_mixing": "depthwise"}, {}),
    (
        {"token_mixing": ("tied", "gating"), "num_blocks": 2, "channel_mixing": "none"},
        {},
        {"token_mixing": ("tied", "gating"), "num_blocks": 2},
        {},
    ),
    ({"token_mixing": "gating", "channels_mlp_dim": 6}, {}, {"token_mixing": "gating"}, {}),
    ({"token_mixing": "gating", "dropout": 0.1}, {}, {"token_mixing": "gating"}, {}),
    ({"stem": "overlap"}, {}, {}, {}),
    ({"init": "vit"}, {}, {}, {}),
    ({"stochastic_depth": 0.5, "num_blocks": 2}, {}, {"num_blocks": 2}, {}),
    ({"stochastic_depth": 0.5, "rescale": True}, {}, {}, {}),
    ({"token_mixing": "grouped", "token_groups": 2}, {}, {}, {}),
    ({"token_mixing": "grouped_views", "token_groups": 1}, {}, {}, {}),
    ({"token_mixing": "untied"}, {}, {}, {}),
    ({"token_mixing": "pooling"}, {}, {"token_mixing": "identity"}, {}),
    ({"tokens_mlp_dim": 3}, {}, {}, {}),
    ({}, {"optimizer": "sgd", "nesterov": True}, {}, {"optimizer": "sgd"}),
    ({}, {"schedule": "cosine", "warmup_steps": 1}, {}, {"schedule": "cosine"}),
    ({}, {"schedule": "constant", "warmup_steps": 2}, {}, {"schedule": "constant"}),
    ({}, {"schedule": "linear", "warmup_steps": STEPS - 3}, {}, {"warmup_steps": STEPS - 3}),
    ({}, {"evaluate_train_examples": NUM_TRAIN - 1}, {}, {}),
]


@pytest.mark.parametrize(("model", "train", "like_model", "like_train"), SAME, ids=str)
def test_settings_that_train_the_same_are_one_trial(
    resolved: Resolve, model: Any, train: Any, like_model: Any, like_train: Any
) -> None:
    assert resolved(model, train).id == resolved(like_model, like_train).id


@pytest.mark.parametrize(("model", "train", "like_model", "like_train"), OTHER, ids=str)
def test_settings_that_only_look_alike_are_two(
    resolved: Resolve, model: Any, train: Any, like_model: Any, like_train: Any
) -> None:
    assert resolved(model, train).id != resolved(like_model, like_train).id


def trained(trial: Trial, cache: Path, run: RunSpec) -> tuple[dict[str, Any], Any]:
    """What all steps leave: the arrays of the state, and logits. The trial is taken as it is, not resolved again."""
    splits = data.load(trial.data, trial.info, cache)
    dataset = ArrayDataset(np.asarray(splits.images), np.asarray(splits.labels))
    program = backends.load(trial.backend).open(trial.model, trial.optimizer, dataset, run)
    state = initial_state(trial)
    kernel = np.random.default_rng(0).normal(size=state["params/head/kernel"].shape)  # so that every gradient is seen
    program.load([state | {"params/head/kernel": kernel}])
    program.train([step_plan(trial, splits.train, 0, trial.num_steps)])
    return program.states()[0], program.predict(np.asarray(splits.images[:8]))[0].logits


def as_written(trial: Trial, model: dict[str, Any], train: dict[str, Any]) -> Trial:
    """The trial with the fields that resolve() would set back."""
    return dataclasses.replace(
        trial, model=dataclasses.replace(trial.model, **model), train=dataclasses.replace(trial.train, **train)
    )


@pytest.mark.parametrize(("model", "train", "like_model", "like_train"), COMPILED, ids=str)
@pytest.mark.parametrize("backend", backends.names())
def test_they_do_train_the_same(
    resolved: Resolve,
    cache: Path,
    backend: str,
    model: Any,
    train: Any,
    like_model: Any,
    like_train: Any,
) -> None:
    # factors that are all 1 are still multiplied by, and XLA adds in another order then
    is_rounded = backend == "jax" and "stochastic_depth" in model
    run = RunSpec(precision="float64" if is_rounded else "float32")
    one = dataclasses.replace(resolved(like_model, like_train), backend=backend)
    (state, logits), (other, other_logits) = (
        trained(trial, cache, run) for trial in (one, as_written(one, model, train))
    )
    assert set(state) == set(other)
    tolerance = ROUNDING if is_rounded else 0.0
    for name, array in {**state, "logits": logits}.items():
        found = {**other, "logits": other_logits}[name]
        np.testing.assert_allclose(found, array, rtol=0, atol=tolerance, err_msg=name)


def test_the_only_block_is_never_dropped(resolved: Resolve, cache: Path) -> None:
    one = as_written(resolved({}, {}), {"stochastic_depth": 0.9}, {})
    splits = data.load(one.data, one.info, cache)
    assert np.all(step_plan(one, splits.train, 0, STEPS).branch_scales == 1)
    rescaled = as_written(one, {"rescale": True}, {})
    assert not np.all(step_plan(rescaled, splits.train, 0, STEPS).branch_scales == 1)


def test_schedules_are_one_trial_exactly_where_their_rates_are_the_same(resolved: Resolve) -> None:
    rates: dict[bytes, set[str]] = {}
    for steps, schedule in itertools.product(range(1, 7), ("cosine", "linear", "constant")):
        for warmup in range(steps + 1):
            asked = {"schedule": schedule, "warmup_steps": warmup}
            one = resolved({}, {**asked, "steps": steps, "evaluate_every": 1})
            as_asked = learning_rates(as_written(one, {}, asked).train, 0, steps)
            np.testing.assert_array_equal(learning_rates(one.train, 0, steps), as_asked)
            rates.setdefault(as_asked.tobytes(), set()).add(one.id)
    assert all(len(ids) == 1 for ids in rates.values())
    assert len(rates) == len({one for ids in rates.values() for one in ids}) > 30


def test_a_record_of_before_keeps_the_id_that_it_has(resolved: Resolve) -> None:
    """What a store holds is read as it was written, though a plan would now ask for the plainer trial."""
    before = as_written(resolved({}, {}), {"share_blocks": True, "stochastic_depth": 0.5}, {"warmup_steps": 0})
    again = trial_from_json(json.loads(json.dumps(dataclasses.asdict(before))))
    assert again == before and again.id == before.id != resolved({}, {}).id
