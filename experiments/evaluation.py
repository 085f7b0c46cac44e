"""Given weights on the test examples of a data set, through the data pipeline of the trials."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import backends
from backends.contract import ArrayDataset, ModelSpec, OptimizerSpec, Program, RunSpec
from backends.errors import MixlabError
from experiments import data, fields
from experiments.data import Splits
from experiments.overrides import read_override
from experiments.resolve import check_ranges
from experiments.spec import DataConfig, DataInfo, TrialConfig
from experiments.trial import evaluate as evaluate_program
from experiments.values import shown
from experiments.weight_files import Weights

COMMAND_LINE = "command line"
OPTIMIZER = OptimizerSpec(optimizer="sgd")  # no step is taken; this one keeps the fewest arrays


@dataclass(frozen=True)
class Evaluation:
    """Accuracy, mean softmax loss, and over how many test examples."""

    accuracy: float
    loss: float
    num_examples: int


def read_data(words: Sequence[str], model: ModelSpec) -> DataConfig:
    """The data that the words of a command line ask for; images are of the model's size.

    Args:   words: `data.<field>=value`, or the source alone, which may hold a `=` behind a `/` or a space.
    Raises: MixlabError: names the word, and what is allowed.
    """
    values: dict[str, Any] = {}
    for word in words:
        is_field = re.match(r"[\w.]+=", word)
        name, value = read_override(word, COMMAND_LINE, axes=False) if is_field else ("data.source", word)
        if not name.startswith("data."):
            raise MixlabError(f"{COMMAND_LINE}: {name} is no field of the data; allowed: data.source, data.subset, ...")
        if name in values:
            raise MixlabError(
                f"{COMMAND_LINE}: {name}: {shown(values[name])} and {shown(value)} came; give one of them"
            )
        values[name] = value
    if "data.source" not in values:
        raise MixlabError(f"{COMMAND_LINE}: no data came; name a source, such as digits or a folder of images")
    config: DataConfig = fields.set_fields(TrialConfig(), fields.typed(values, COMMAND_LINE)).data
    check_ranges(config, COMMAND_LINE, "data.")
    return config if config.image_size else replace(config, image_size=model.image_size)


def evaluate(weights: Weights, config: DataConfig, cache: Path, backend: str, run: RunSpec) -> Evaluation:
    """Accuracy and loss of the weights on the test examples.

    Args:   cache: folder of decoded images.
    Raises: MixlabError: the backend is not there, or the data does not fit the model.
    """
    engine = backends.load(backend)
    info = data.describe(config, cache, COMMAND_LINE)
    _check_fit(weights.model, config.source, info)
    splits = data.load(config, info, cache)
    model = weights.model
    order = data.pixel_order(config.permutation, model.image_size, model.patch_size, config.split_seed)
    # the images to predict are handed over batch by batch; a program wants to hold some of its own
    few = ArrayDataset(np.asarray(splits.images[:1]), np.asarray(splits.labels[:1]), order)
    program = engine.open(model, OPTIMIZER, few, run)
    program.load([_state(weights)])
    return _evaluate(program, splits, run.precision)


def _state(weights: Weights) -> dict[str, np.ndarray]:
    wide = {name: x.astype(np.float64) for name, x in weights.params.items()}
    moments = {f"momentum/{name}": np.zeros_like(x) for name, x in wide.items()}
    return {f"params/{name}": x for name, x in wide.items()} | moments


def _evaluate(program: Program, splits: Splits, precision: str) -> Evaluation:
    found = evaluate_program(program, splits, splits.test, "softmax")
    if not math.isfinite(found["loss"]):
        raise MixlabError(f"{COMMAND_LINE}: the loss is not finite in {precision}; are these the weights of this data?")
    return Evaluation(found["accuracy"], found["loss"], len(splits.test))


def _check_fit(model: ModelSpec, source: str, info: DataInfo) -> None:
    """Raises: MixlabError: the data has other classes, channels or sizes than the model."""
    where = f"{COMMAND_LINE}: data"
    if info.image_size != model.image_size:
        raise MixlabError(
            f"{where}.image_size: {info.image_size} came, and the weights take images of {model.image_size} pixels a "
            f"side; leave it out"
        )
    if info.image_channels != model.image_channels:
        raise MixlabError(
            f"{where}.image_channels: the images have {info.image_channels}, and the weights take "
            f"{model.image_channels}; convert the images with data.image_channels={model.image_channels}"
        )
    if info.num_classes != model.num_classes:
        raise MixlabError(
            f"{where}.source: {source!r} has {info.num_classes} classes, and the weights tell {model.num_classes} "
            f"apart; allowed: data of the {model.num_classes} classes that they were trained on"
        )
