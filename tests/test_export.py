"""What JAX compiles can be lowered for a CPU, a GPU and a TPU, whatever is set; no device is needed for that.

The programs are made from the lists of what may be set, so a new operator, precision or optimizer is in one of them.
"""

from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.export
import pytest

from backends.contract import DataSize
from backends.jax import ahead
from backends.jax.traced import DTYPES, Traced
from backends.models.mixer_spec import CHANNEL_MIXING, POSITION_EMBEDDING, TOKEN_MIXING
from backends.models.shared_config import ACTIVATION
from backends.specs import DECAY, LOSS, OPTIMIZER, PRECISION, RunSpec
from experiments import data
from experiments.spec.config import AugmentConfig, DataConfig, ModelConfig, TrainConfig, TrialConfig
from experiments.spec.resolve import resolve
from experiments.spec.trial import Trial
from experiments.training.plan import step_plan

PLATFORMS = ("cpu", "cuda", "tpu")
CHOICES: dict[str, tuple[Any, ...]] = {
    "model.token_mixing": TOKEN_MIXING,
    "model.channel_mixing": CHANNEL_MIXING,
    "model.activation": ACTIVATION,
    "model.position_embedding": POSITION_EMBEDDING,
    "model.share_blocks": (False, True),
    "model.dropout": (0.1, 0.0),
    "model.stochastic_depth": (0.2, 0.2, 0.0),
    "train.precision": PRECISION,
    "train.optimizer": OPTIMIZER,
    "train.loss": LOSS,
    "train.decay": DECAY,
    "train.ema_decay": (0.9, 0.0),
    "train.clip_norm": (0.0, 1.0),
    "data.permutation": next(f.metadata["allowed"] for f in fields(DataConfig) if f.name == "permutation"),
    "augment.flip": (True, False, True),
    "augment.crop": (2, 2, 0),
    "augment.mixup": (0.4, 0.0, 0.4),
    "run.remat": (False, True, True),
    "run.replicas": (1, 2),
}
NUM_PROGRAMS = max(len(values) for values in CHOICES.values())


@dataclass(frozen=True)
class Program:
    """A trial whose settings are the i-th of their lists, which begin again where they end."""

    number: int

    def settings(self, section: str) -> dict[str, Any]:
        names = [name for name in CHOICES if name.startswith(f"{section}.")]
        return {name.partition(".")[2]: CHOICES[name][self.number % len(CHOICES[name])] for name in names}

    def __str__(self) -> str:
        return f"{self.settings('model')['token_mixing']} {self.settings('train')['precision']}"

    def trial(self, cache: Path) -> Trial:
        model = {"patch_size": 4, "hidden_dim": 8, "num_blocks": 2, **self.settings("model")}
        if model["token_mixing"].startswith("grouped"):
            model["token_groups"] = 2
        source = DataConfig(
            source="synthetic",
            num_examples=60,
            image_size=8,
            num_classes=4,
            augment=AugmentConfig(**self.settings("augment")),
            **self.settings("data"),
        )
        train = TrainConfig(batch_size=8, steps=3, weight_decay=0.1, **self.settings("train"))
        config = TrialConfig(ModelConfig(**model), source, train)
        return resolve(config, data.describe(source, cache, "test"), "test")


PROGRAMS = [Program(number) for number in range(NUM_PROGRAMS)]


def exported(program: Program, what: str, cache: Path) -> jax.export.Exported:
    """A function of `Traced`, lowered for all platforms."""
    trial, run = program.trial(cache), program.settings("run")
    splits = data.load(trial.data, trial.info, cache)
    size = DataSize(len(splits.images), str(splits.images.dtype), trial.data.permutation != "none")
    plan, precision = step_plan(trial, splits.train, 0, 1), trial.train.precision
    sizes = ahead.Sizes(trial.model, trial.optimizer, size, plan, DTYPES[precision][0], RunSpec(), run["replicas"])
    traced = Traced(trial.model.structure(), trial.optimizer.structure(), precision, run["remat"])
    arguments = getattr(sizes, what)(jax.devices("cpu")[0])
    return jax.export.export(jax.jit(getattr(traced, what)), platforms=PLATFORMS)(*arguments)


def test_every_choice_is_in_a_program() -> None:
    for name, values in CHOICES.items():
        section, _, setting = name.partition(".")
        assert {program.settings(section)[setting] for program in PROGRAMS} == set(values), name


@pytest.mark.parametrize("what", ["train", "predict"])
@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_a_program_is_lowered_for_every_platform_and_is_as_wide_as_its_precision(
    program: Program, what: str, cache: Path
) -> None:
    found = exported(program, what, cache)
    assert found.platforms == PLATFORMS
    text = found.mlir_module()
    has_float64 = "f64" in text
    assert has_float64 == (program.settings("train")["precision"] == "float64"), [
        line.strip() for line in islice((line for line in text.splitlines() if "f64" in line), 5)
    ]
