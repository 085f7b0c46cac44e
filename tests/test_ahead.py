"""What JAX compiles for shapes alone is what a run then calls, and needs nothing on any device."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
from backends.contract import PREDICT_BATCH, ArrayDataset, DataSize
from backends.jax import ahead
from backends.jax.program import DTYPES, JaxProgram
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
    "data": {"permutation": "global"},
    "augment": {"flip": True, "crop": 2, "mixup": 0.4},
}


def resolved(cache: Path, **changes: dict[str, Any]) -> Trial:
    parts = {name: changes.get(name, {}) for name in ("model", "data", "train", "augment")}
    source = DataConfig(**DATA | parts["data"], augment=AugmentConfig(**parts["augment"]))
    config = TrialConfig(ModelConfig(**MODEL | parts["model"]), source, TrainConfig(**TRAIN | parts["train"]))
    return resolve(config, data.describe(source, cache, "test"), "test")


def run_spec(trial: Trial) -> RunSpec:
    return RunSpec(precision=trial.train.precision)


@pytest.mark.parametrize("num_replicas", [1, 2])
@pytest.mark.parametrize(
    "changes",
    [{}, EVERYTHING, {"train": {"optimizer": "sgd", "precision": "bfloat16"}}, {"train": {"precision": "float64"}}],
    ids=["plain", "everything", "sgd in bfloat16", "float64"],
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
    sizes = ahead.Sizes(model, trial.optimizer, size, one, DTYPES[run.precision][0], num_replicas)
    for function, arguments in (
        (program.traced.train, sizes.train(program.device)),
        (program.traced.predict, sizes.predict(program.device)),
    ):
        _, seconds = ahead.compiled_form(function, arguments, program.device, run.remat)
        assert seconds > 0
    program.load([initial_state(trial)] * num_replicas)
    program.train(plans)
    program.predict(np.resize(splits.images, (PREDICT_BATCH, *splits.images.shape[1:])))
    assert program.compile_s == 0 and len(ahead._compiled) == 2
