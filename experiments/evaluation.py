"""Evaluation of weights on the test examples of a data set, through the data pipeline of the trials."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import backends
from backends.arrays import Array
from backends.contract import ArrayDataset, Backend, Program
from backends.errors import MixlabError
from backends.models import family_of
from backends.models.config import ModelConfig
from backends.models.patches import default_patch_size
from backends.specs import ModelSpec, OptimizerSpec, RunSpec
from experiments import data
from experiments.data import Splits
from experiments.design.ablation import COMMAND_LINE
from experiments.results.metrics import FINITE
from experiments.spec import fields
from experiments.spec.config import DataConfig, TrialConfig
from experiments.spec.overrides import read_override
from experiments.spec.trial import DataInfo, Trial
from experiments.spec.values import shown
from experiments.training.evaluate import evaluate as evaluate_program
from experiments.training.evaluate import probed
from experiments.training.probe import draw
from experiments.weights import class_order
from experiments.weights.recipes import Recipe
from experiments.weights.weight_files import Weights

TEST_LOSS = "softmax"  # files of weights do not say what they were trained with
OPTIMIZER = OptimizerSpec(optimizer="sgd")  # no step is taken; this one keeps the fewest arrays


@dataclass(frozen=True)
class Evaluation:
    """The METRICS over a number of test examples; the order of classes that was taken, notes on the data."""

    metrics: Mapping[str, float]
    num_examples: int
    classes: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Probed:
    """The accuracy of probes by shots, with each of their seeds; a number of test examples, notes on the data."""

    each_seed: Mapping[int, Sequence[float]]
    num_examples: int
    notes: tuple[str, ...] = ()


def read_shots(text: str) -> tuple[int, ...]:
    """The whole numbers of a text such as `5` or `1,5,10`, in order.  Raises: MixlabError: it has another form."""
    if not re.fullmatch(r"[1-9]\d{0,5}(,[1-9]\d{0,5})*", text):
        raise MixlabError(f"{COMMAND_LINE}: --shots: expected whole numbers such as 5 or 1,5,10, got {shown(text)}")
    return tuple(sorted(set(map(int, text.split(",")))))


def read_data(words: Sequence[str], model: ModelSpec | None = None) -> DataConfig:
    """The data that the words of a command line ask for; images are of the model's size, if there is a model.

    Args:   words: `data.<field>=value`, or the source alone, which may hold a `=` behind a `/` or a space.
    Raises: MixlabError: names the word, and what is allowed.
    """
    values: dict[str, Any] = {}
    for word in words:
        is_field = re.match(r"[\w.]+=", word)
        name, value = read_override(word, COMMAND_LINE, axes=False) if is_field else ("data.source", word)
        if not name.startswith("data."):
            raise MixlabError(
                f"{COMMAND_LINE}: expected a field of the data (data.source, data.subset, ...), got {name}"
            )
        if name in values:
            raise MixlabError(
                f"{COMMAND_LINE}: {name}: expected one value, got {shown(values[name])} and {shown(value)}; leave one "
                f"out"
            )
        values[name] = value
    if "data.source" not in values:
        raise MixlabError(f"{COMMAND_LINE}: expected a source of data, such as digits or a folder of images, got none")
    config: DataConfig = fields.set_fields(TrialConfig(), fields.typed(values, COMMAND_LINE)).data
    return config if config.image_size or model is None else replace(config, image_size=model.image_size)


def fitted(weights: Weights, words: Sequence[str]) -> tuple[Weights, DataConfig]:
    """The weights and the data for each other: images are of the model's size, or it is of theirs, where it has none.

    Args:   words: see read_data.
    Raises: MixlabError: the words have a mistake, or the model cannot take such images.
    """
    config = read_data(words)
    weights = sized(weights, config.image_size) if config.image_size else weights
    return weights, replace(config, image_size=config.image_size or weights.model.image_size)


def sized(weights: Weights, side: int) -> Weights:
    """The weights for images of this side, where no array tells the side; else the weights as they are.

    Raises: MixlabError: the model cannot take them.
    """
    if "image_size" not in weights.assumed or side == weights.model.image_size:
        return weights
    patch = default_patch_size(side) if "patch_size" in weights.assumed else weights.model.patch_size
    model = replace(weights.model, image_size=side, patch_size=patch)
    for fault in family_of(model).faults(model, ModelConfig()):
        raise MixlabError(f"{COMMAND_LINE}: {fault}")
    why = "as the images are; no array tells it"
    return replace(weights, model=model, assumed={**weights.assumed, "image_size": why})


def evaluate(
    weights: Weights, config: DataConfig, recipe: Recipe, cache: Path, backend: str, run: RunSpec
) -> Evaluation:
    """The metrics of the weights on the test examples, with the loss TEST_LOSS.

    Args:   config: framed by the recipe.   recipe: mean and deviation.   cache: folder of decoded images.
    Raises: MixlabError: the backend is not there, or the data does not fit the model.
    """
    engine = backends.load(backend)
    info = data.describe(config, cache, COMMAND_LINE)
    _check_fit(weights, config.source, info)
    splits = data.load(config, info, cache)
    if weights.classes:
        splits = class_order.renumbered(splits, weights.classes, weights.model.num_classes)
    model = weights.model
    order = data.pixel_order(config.permutation, model.image_size, model.patch_size, config.split_seed)
    program = opened(engine, weights, np.asarray(splits.images[:1]), order, run)
    images: Any = recipe.images(splits.images)
    result = _evaluate(program, replace(splits, images=images), run.precision)
    whose = class_order.line(splits.classes, weights.classes)
    return replace(result, classes=whose, notes=tuple(data.notes(config, info, cache)))


def probe(
    weights: Weights, config: DataConfig, recipe: Recipe, cache: Path, backend: str, run: RunSpec, shots: Sequence[int]
) -> Probed:
    """The accuracy of few-shot probes on the test examples; the head of the weights has no part in it.

    Args:   shots: examples of each class, one or several. Others: as of `evaluate`.
    Raises: MixlabError: the backend is not there, the images do not fit the model, or a class has too few examples.
    """
    engine = backends.load(backend)
    info = data.describe(config, cache, COMMAND_LINE)
    check_images(weights, info)
    splits = data.load(config, info, cache)
    drawn = draw(splits, shots, f"{COMMAND_LINE}: --shots")
    assert drawn is not None
    model, images = weights.model, np.asarray(splits.images[:1])
    order = data.pixel_order(config.permutation, model.image_size, model.patch_size, config.split_seed)
    program = opened(engine, weights, images, order, run)
    prepared: Any = recipe.images(splits.images)
    each_seed = probed(program, replace(splits, images=prepared), splits.test, drawn)
    return Probed(each_seed, len(splits.test), tuple(data.notes(config, info, cache)))


def opened(engine: Backend, weights: Weights, images: Array, pixel_order: Array | None, run: RunSpec) -> Program:
    """A program that holds the weights, to predict images that are handed over batch by batch.

    Args:   images: a few, since a program wants to hold some of its own.
    Raises: MixlabError: the device is not there, or does not have the precision.
    """
    few = ArrayDataset(images, np.zeros(len(images), np.int32), pixel_order)
    program = engine.open(weights.model, OPTIMIZER, few, run)
    program.load([_state(weights)])
    return program


def _state(weights: Weights) -> dict[str, np.ndarray]:
    wide = {name: x.astype(np.float64) for name, x in weights.params.items()}
    moments = {f"momentum/{name}": np.zeros_like(x) for name, x in wide.items()}
    return {f"params/{name}": x for name, x in wide.items()} | moments


def _evaluate(program: Program, splits: Splits, precision: str) -> Evaluation:
    metrics = evaluate_program(program, splits, splits.test, TEST_LOSS, splits.right)
    if not math.isfinite(metrics[FINITE.name]):
        raise MixlabError(f"{COMMAND_LINE}: the loss is not finite in {precision}; are these the weights of this data?")
    return Evaluation(metrics, len(splits.test))


def _check_fit(weights: Weights, source: str, info: DataInfo) -> None:
    """Check that data and model fit. Raises: MixlabError: they have other classes, channels or sizes."""
    check_images(weights, info)
    model = weights.model
    if info.num_classes != model.num_classes and not weights.classes:
        raise MixlabError(
            f"{COMMAND_LINE}: data.source: expected {model.num_classes} classes, as the weights have outputs, but "
            f"{source!r} has {info.num_classes}; name the classes of the weights with --classes, take data of all "
            f"{model.num_classes}, or measure features alone with --probe"
        )


def check_images(weights: Weights, info: DataInfo) -> None:
    """Check that the model takes images of the data. Raises: MixlabError: they have other channels or sizes."""
    where, model = f"{COMMAND_LINE}: data", weights.model
    if info.image_size != model.image_size:
        raise MixlabError(
            f"{where}.image_size: expected {model.image_size}, as the weights take images of this side, got "
            f"{info.image_size}; leave it out"
        )
    if info.image_channels != model.image_channels:
        raise MixlabError(
            f"{where}.image_channels: expected {model.image_channels}, as the weights take, got images of "
            f"{info.image_channels}; convert the images with data.image_channels={model.image_channels}"
        )


def check_permutation(trial: Trial, config: DataConfig) -> None:
    """Check that the data permutes pixels as the trial of the weights did. Raises: MixlabError: it does not."""
    trained, given = ((one.permutation, one.split_seed * (one.permutation != "none")) for one in (trial.data, config))
    if trained != given:
        raise MixlabError(
            f"{COMMAND_LINE}: data.permutation: expected {trained[0]} with data.split_seed={trained[1]}, as the trial "
            f"of these weights has it, got {given[0]} with {given[1]}"
        )
