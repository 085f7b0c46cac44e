"""Trials of a grid that differ in numbers only share what JAX compiled; a trial of another shape does not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
from backends.contract import ArrayDataset, Program
from backends.specs import RunSpec
from experiments import data
from experiments.spec.config import AugmentConfig, DataConfig, ModelConfig, TrainConfig, TrialConfig
from experiments.spec.resolve import resolve
from experiments.training.plan import step_plan
from experiments.training.start import initial_state
from tests.conftest import Ended, base, write_yaml

Run = Callable[..., Ended]

MODEL = {"patch_size": 4, "hidden_dim": 8, "num_blocks": 2, "dropout": 0.1, "stochastic_depth": 0.2}
TRAIN = {
    "batch_size": 8,
    "steps": 3,
    "weight_decay": 0.1,
    "clip_norm": 1.0,
    "ema_decay": 0.9,
    "label_smoothing": 0.1,
}
DATA = {"source": "synthetic", "num_examples": 60, "image_size": 8, "num_classes": 4}
AUGMENT = {"flip": True, "crop": 2, "mixup": 0.4}

# One number each; none of them may compile anything.
NUMBERS: dict[str, dict[str, Any]] = {
    "seed": {"seed": 5},
    "learning_rate": {"train": {"learning_rate": 0.1}},
    "schedule": {"train": {"schedule": "linear", "warmup_steps": 2}},
    "steps": {"train": {"steps": 5}},
    "weight_decay": {"train": {"weight_decay": 0.3}},
    "clip_norm": {"train": {"clip_norm": 0.2}},
    "ema_decay": {"train": {"ema_decay": 0.5}},
    "label_smoothing": {"train": {"label_smoothing": 0.3}},
    "b1": {"train": {"b1": 0.5, "b2": 0.9, "epsilon": 1e-4}},
    "dropout": {"model": {"dropout": 0.4}},
    "stochastic_depth": {"model": {"stochastic_depth": 0.7}},
    "rescale": {"model": {"rescale": True}},
    "fraction": {"data": {"fraction": 0.5}},
    "augmentation": {"augment": {"crop": 1, "mixup": 0.2}},
}
# Each is another program.
SHAPES: dict[str, dict[str, Any]] = {
    "hidden_dim": {"model": {"hidden_dim": 12}},
    "batch_size": {"train": {"batch_size": 4}},
    "no dropout": {"model": {"dropout": 0.0}},
}


def test_a_later_run_takes_what_an_earlier_one_has_compiled(run: Run, tmp_path: Path) -> None:
    """Another seed, in another process: it finds every program in the store."""
    path = write_yaml(tmp_path / "a.yaml", base=base(backend="jax"), grid={"seed": [0]})
    assert run("run", str(path)).code == 0
    compiled = {file.name for file in (tmp_path / "runs" / "compiled").rglob("*-cache")}
    assert compiled
    assert run("run", str(path), "seed=1").code == 0
    assert {file.name for file in (tmp_path / "runs" / "compiled").rglob("*-cache")} == compiled


def trained(cache: Path, backend: str = "jax", **changes: Any) -> Program:
    """A program that has trained and predicted for a trial."""
    parts = {name: changes.get(name, {}) for name in ("model", "data", "train", "augment")}
    source = DataConfig(**DATA | parts["data"], augment=AugmentConfig(**AUGMENT | parts["augment"]))
    model, train = ModelConfig(**MODEL | parts["model"]), TrainConfig(**TRAIN | parts["train"])
    config = TrialConfig(model, source, train, seed=changes.get("seed", 0))
    trial = resolve(config, data.describe(source, cache, "test"), "test")
    splits = data.load(trial.data, trial.info, cache)
    dataset = ArrayDataset(np.asarray(splits.images), np.asarray(splits.labels))
    program = backends.load(backend).open(trial.model, trial.optimizer, dataset, RunSpec())
    program.load([initial_state(trial)])
    program.train([step_plan(trial, splits.train, 0, trial.num_steps)])
    program.predict(np.array(splits.images[:16]))
    return program


def test_trials_that_differ_in_numbers_compile_once(cache: Path) -> None:
    first = trained(cache)
    states = {"as it is": first.states()[0]}
    from backends.jax import ahead

    compiled = len(ahead._compiled)
    assert trained(cache).compile_s == 0  # the first itself, again
    for name, changes in NUMBERS.items():
        program = trained(cache, **changes)
        assert program.compile_s == 0, name
        assert len(ahead._compiled) == compiled, name
        states[name] = program.states()[0]
    # Nothing was compiled in as a constant: every number moved the parameters.
    kernels = {name: state["params/head/kernel"] for name, state in states.items()}
    for name, kernel in kernels.items():
        assert name == "as it is" or name == "ema_decay" or not np.array_equal(kernel, kernels["as it is"]), name
    averages = [states[name]["average/head/kernel"] for name in ("as it is", "ema_decay")]
    assert not np.array_equal(*averages)


def test_chunks_of_any_length_compile_once(cache: Path) -> None:
    program = trained(cache)
    seconds = program.compile_s
    trial_steps = [trained(cache, train={"steps": steps, "evaluate_every": 1}).compile_s for steps in (1, 2, 31, 33)]
    assert trial_steps == [0, 0, 0, 0] and program.compile_s == seconds


@pytest.mark.parametrize("name", SHAPES)
def test_a_trial_of_another_shape_compiles_anew(name: str, cache: Path) -> None:
    trained(cache)
    assert trained(cache, **SHAPES[name]).compile_s > 0


def test_shared_program_computes_what_a_fresh_one_does(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that was left at that of the trial which compiled first would show here."""
    changes = {"train": {"weight_decay": 0.3, "clip_norm": 0.2, "ema_decay": 0.5, "b1": 0.5}, "model": {"dropout": 0.4}}
    trained(cache)
    shared = trained(cache, **changes)
    from backends.jax import ahead

    monkeypatch.setattr(ahead, "_compiled", {})
    fresh = trained(cache, **changes)
    assert shared.compile_s == 0 and fresh.compile_s > 0
    one, two = shared.states()[0], fresh.states()[0]
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
