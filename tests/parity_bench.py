"""Sides of the parity ladder in this process: small trials, and faults that are planted in a framework's code."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from jax import Array
from torch import Tensor

from backends.contract import Backend
from backends.jax import ahead
from backends.jax import optimizer as jax_optimizer
from backends.jax import traced as jax_train
from backends.torch import optimizer as torch_optimizer
from backends.torch import program as torch_train
from backends.torch import state as torch_state
from experiments import data
from experiments.parity import side, trials
from experiments.parity.job import WIDE_CLASSES, Job
from experiments.parity.ladder import Ladder
from experiments.parity.rungs import Rung
from experiments.spec.config import AugmentConfig, DataConfig, ModelConfig, TrainConfig, TrialConfig
from experiments.spec.resolve import resolve
from experiments.spec.trial import DataInfo, Trial

Plant = Callable[[pytest.MonkeyPatch], None]
LONG = os.environ.get("MIXLAB_PARITY") == "long"  # every fault in each framework and precision

STEPS = 12
SOURCE = DataConfig("synthetic", num_examples=80, image_size=12, image_channels=3, num_classes=5)
MODEL = ModelConfig(patch_size=4, hidden_dim=16, num_blocks=2, tokens_mlp_dim=10, channels_mlp_dim=24)
TRAIN = TrainConfig(batch_size=16, learning_rate=3e-3, precision="float64", label_smoothing=0.1)
# Trials to plant a fault in: the least that shows it.
TRIALS: dict[str, dict[str, dict[str, Any]]] = {
    "adamw": {},
    "sgd": {"train": {"optimizer": "sgd", "nesterov": True, "learning_rate": 0.05}},
    "sigmoid": {"train": {"loss": "sigmoid"}},
    "square": {"model": {"channels_mlp_dim": 16, "tokens_mlp_dim": 9}},
}


def job(
    changes: dict[str, dict[str, Any]], folder: Path, cache: Path, precision: str, checks: Sequence[str] = ()
) -> Job:
    """A trial with everything on, as the ladder takes it."""
    config = TrialConfig(
        dataclasses.replace(MODEL, **changes.get("model", {})),
        dataclasses.replace(SOURCE, augment=AugmentConfig(**changes.get("augment", {"crop": 2}))),
        dataclasses.replace(TRAIN, precision=precision, **changes.get("train", {})),
        seed=3,
    )
    whole = trials.whole(config, 2 * trials.WARMUP_STEPS)
    info = data.describe(whole.data, cache, "test") if cache.name else DataInfo("", 12, 3, 5, 58, 6, 16)
    trial: Trial = resolve(whole, info, "test")
    batch = trials.wide_batch(trial.model, config.train.batch_size)
    return Job(trial, STEPS, cache, folder, batch, tuple(checks))


@contextlib.contextmanager
def fresh_code() -> Iterator[None]:
    """What was planted in code is compiled anew, and what was compiled with it is forgotten."""
    forget()
    yield
    forget()


def forget(*functions: str, wide_only: bool = False) -> None:
    """Modules of torch, and what JAX has compiled of these functions of `Traced`, or of all, or at the wide sizes."""
    torch_train._forward.cache_clear()
    for key in [key for key in ahead._compiled if not functions or key[0] in functions]:
        if not wide_only or key[1].model.num_classes == WIDE_CLASSES:
            del ahead._compiled[key]


def climbed(backend: Backend, sound: Job, folder: Path) -> list[Rung]:
    """Both sides of a trial from the first rung to the last; the sound side's files are kept for the next fault."""
    folder.mkdir()
    for path in sound.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    other = dataclasses.replace(sound, folder=folder.with_name("faulty"))
    other.folder.mkdir()
    side.climb(backend, other)
    return list(Ladder((dataclasses.replace(sound, folder=folder), other), lambda _: None).climb())


def on_torch_optimizer(change: Callable[..., Tensor]) -> Plant:
    """change(apply, spec, state, gradient, rate, corrections, num_decayed) in place of apply_gradient."""
    apply = torch_optimizer.apply_gradient
    return lambda patch: patch.setattr(torch_state, "apply_gradient", lambda *given: change(apply, *given[:6]))


def on_jax_optimizer(change: Callable[..., tuple[Any, Array]]) -> Plant:
    """change(apply, spec, scalars, state, gradient, rate, corrections, decayed) in place of apply_gradient."""
    apply = jax_optimizer.apply_gradient
    return lambda patch: patch.setattr(jax_train, "apply_gradient", lambda *given: change(apply, *given[:7]))
