"""What JAX compiles for shapes alone is what a run then calls, and needs nothing on any device."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
from backends.contract import PREDICT_BATCH, ArrayDataset, DataSize
from backends.jax import ahead, memory
from backends.jax.program import DTYPES, JaxProgram
from backends.microbatches import ALONE, Group
from backends.models import folds
from backends.specs import RunSpec
from experiments import data
from experiments.data.permutation import pixel_order
from experiments.spec.config import AugmentConfig, DataConfig, ModelConfig, TrainConfig, TrialConfig
from experiments.spec.resolve import resolve
from experiments.spec.trial import Trial
from experiments.training.plan import step_plan
from experiments.training.start import initial_state

MODEL = {"patch_size": 4, "hidden_dim": 8, "num_blocks": 2}
TRAIN = {"batch_size": 8, "steps": 3}
DATA = {"source": "synthetic", "num_examples": 60, "image_size": 8, "num_classes": 4}
EVERYTHING: dict[str, dict[str, Any]] = {
    "model": {"dropout": 0.1, "stochastic_depth": 0.2},
    "train": {"ema_decay": 0.9, "label_smoothing": 0.1, "clip_norm": 1.0},
    "data": {"permutation": "pixels"},
    "augment": {"flip": True, "crop": 2, "mixup": 0.4},
}


def resolved(cache: Path, **changes: dict[str, Any]) -> Trial:
    parts = {name: changes.get(name, {}) for name in ("model", "data", "train", "augment")}
    source = DataConfig(**DATA | parts["data"], augment=AugmentConfig(**parts["augment"]))
    config = TrialConfig(ModelConfig(**MODEL | parts["model"]), source, TrainConfig(**TRAIN | parts["train"]))
    return resolve(config, data.describe(source, cache, "test"), "test")


def run_spec(trial: Trial) -> RunSpec:
    return RunSpec(precision=trial.train.precision, microbatches=trial.train.microbatches)


@pytest.mark.parametrize("num_replicas", [1, 2])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        EVERYTHING,
        {"train": {"optimizer": "sgd", "precision": "bfloat16"}},
        {"train": {"precision": "float64"}},
        EVERYTHING | {"train": {"ema_decay": 0.9, "microbatches": 2}},
    ],
    ids=["plain", "everything", "sgd in bfloat16", "float64", "microbatches"],
)
def test_a_run_calls_what_was_compiled_for_its_shapes(
    changes: dict[str, Any], num_replicas: int, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "_compiled", {})
    trial = resolved(cache, **changes)
    splits = data.load(trial.data, trial.info, cache)
    model, config, run = trial.model, trial.data, run_spec(trial)
    order = pixel_order(config.permutation, model.image_size, model.patch_size, config.split_seed)
    dataset = ArrayDataset(np.asarray(splits.images), np.asarray(splits.labels), order)
    program = backends.load("jax").open(model, trial.optimizer, dataset, run)
    assert isinstance(program, JaxProgram)
    size = DataSize(len(dataset.images), str(dataset.images.dtype), order is not None)
    plans = [step_plan(trial, splits.train, 0, 3)] * num_replicas
    one = step_plan(trial, splits.train, 0, 1)
    sizes = ahead.Sizes(model, trial.optimizer, size, one, DTYPES[run.precision][0], run, num_replicas)
    for name in sizes.functions:
        function, arguments = getattr(program.traced, name), getattr(sizes, name)(program.device)
        _, seconds = ahead.compiled_form(function, arguments, program.device, run.remat)
        assert seconds > 0
    program.load([initial_state(trial)] * num_replicas)
    program.train(plans)
    program.predict(np.resize(splits.images, (PREDICT_BATCH, *splits.images.shape[1:])))
    assert program.compile_s == 0 and len(ahead._compiled) == len(sizes.functions)


def needed(
    trial: Trial, num_examples: int = 60, num_replicas: int = 1, backend: str = "jax", group: Group = ALONE
) -> int | None:
    size = DataSize(num_examples, "uint8", False)
    plan = step_plan(trial, np.arange(trial.train.batch_size, dtype=np.int32), 0, 1)
    own = backends.load(backend)
    run = dataclasses.replace(run_spec(trial), group=group)
    return own.memory_bytes(trial.model, trial.optimizer, size, plan, run, num_replicas)


def test_memory_is_that_of_the_compiled_programs(cache: Path) -> None:
    trial = resolved(cache)
    least = needed(trial)
    assert least is not None
    # Beyond an evaluation, which is most of it here: the data set, byte by byte, and a step of a large batch.
    growth = memory.HOLES * (10**6 - 60) * (8 * 8 * 3 + 4)
    assert needed(trial, 10**6) == pytest.approx(least + growth, abs=1)
    wide = resolved(cache, data={"num_examples": 3000}, train={"batch_size": 2048})
    assert (needed(wide) or 0) > 2 * least


def test_a_wide_model_needs_its_state_and_copies_of_it(cache: Path) -> None:
    """Parameters and two moments: on the device, on the host, and as the bytes of a checkpoint."""
    wide = resolved(cache, model={"hidden_dim": 1024, "num_blocks": 1, "channels_mlp_dim": 8192})
    state = 3 * folds.count(wide.model)
    bytes_ = needed(wide)
    assert bytes_ is not None and bytes_ >= 12 * state


def test_a_group_needs_a_step_and_a_checkpoint_at_once(cache: Path) -> None:
    """Its first process saves while all train on: two more copies of the state, beside a step that is mostly state."""
    wide = {"hidden_dim": 1024, "num_blocks": 1, "channels_mlp_dim": 8192, "tokens_mlp_dim": 8}
    trial = resolved(cache, model=wide, train={"microbatches": 2})
    alone, group = needed(trial), needed(trial, group=Group(0, 2))
    state = 4 * 3 * folds.count(trial.model)
    assert alone is not None and group is not None and group > max(alone + state, 4 * state)


def test_replicas_need_the_data_once_and_all_else_each(cache: Path) -> None:
    trial, data_bytes = resolved(cache), memory.HOLES * 10**6 * (8 * 8 * 3 + 4)
    one, four = (needed(trial, 10**6, number) for number in (1, 4))
    assert one is not None and four is not None
    assert 2 < (four - data_bytes) / (one - data_bytes) < 10


def test_what_memory_has_compiled_the_program_counts_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_compiled", {})
    trial = resolved(cache)
    needed(trial)
    empty = ArrayDataset(np.zeros((60, 8, 8, 3), np.uint8), np.zeros(60, np.int32))
    opened = [backends.load("jax").open(trial.model, trial.optimizer, empty, run_spec(trial)) for _ in range(2)]
    assert opened[0].compile_s > 0 and opened[1].compile_s == 0
    needed(trial)
    assert backends.load("jax").open(trial.model, trial.optimizer, empty, run_spec(trial)).compile_s == 0


def test_torch_leaves_memory_to_the_layers(cache: Path) -> None:
    assert needed(resolved(cache), backend="torch") is None
