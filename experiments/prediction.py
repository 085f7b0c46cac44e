"""Logits and features of images, from weights of any known format or of a trial."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import backends
from backends.arrays import Array
from backends.errors import MixlabError, choices
from backends.specs import RunSpec
from experiments import data, files
from experiments.design.ablation import COMMAND_LINE
from experiments.evaluation import check_images, check_permutation, opened
from experiments.spec.config import DataConfig
from experiments.spec.trial import Trial
from experiments.weights import class_order
from experiments.weights.image_files import LABELS, Images
from experiments.weights.weight_files import Weights


def of_source(weights: Weights, config: DataConfig, cache: Path) -> Images:
    """The test examples of a data source, and their labels as the weights number them, where they name their classes.

    Raises: MixlabError: there are none, or the model does not take them.
    """
    info = data.describe(config, cache, COMMAND_LINE)
    check_images(weights, info)
    splits = data.load(config, info, cache)
    if weights.classes:
        splits = class_order.renumbered(splits, weights.classes, weights.model.num_classes)
    if not len(splits.test):
        raise MixlabError(f"{COMMAND_LINE}: data.source: {config.source!r} has no test examples to predict")
    return Images(np.asarray(splits.images[splits.test]), splits.labels[splits.test])


def order(weights: Weights, trial: Trial | None, config: DataConfig | None) -> Array | None:
    """The permutation of pixels that the weights were trained with, of a trial; else the one that the data asks for.

    Raises: MixlabError: the data asks for another than the trial's.
    """
    if trial and config:
        check_permutation(trial, config)
    chosen, model = trial.data if trial else config, weights.model
    if chosen is None:
        return None
    return data.pixel_order(chosen.permutation, model.image_size, model.patch_size, chosen.split_seed)


def predict(
    weights: Weights, images: Images, pixel_order: Array | None, backend: str, run: RunSpec, batch: int
) -> dict[str, Array]:
    """The arrays `logits` (n, k) and `features` (n, c) of all images, and `labels` where there are any.

    Args:   batch: images at a time; the last ones are filled up to as many, so that one size is compiled.
    Raises: MixlabError: the backend or the device is not there, or a number is not finite.
    """
    pixels, num = images.pixels, len(images.pixels)
    size = min(batch, num)
    program = opened(backends.load(backend), weights, np.asarray(pixels[:1]), pixel_order, run)
    parts = []
    for first in range(0, num, size):
        rows = np.arange(first, min(first + size, num))
        outputs = program.predict(pixels[np.resize(rows, size)])[0]
        parts.append([x[: len(rows)] for x in (outputs.logits, outputs.features)])
    logits, features = (np.concatenate(one) for one in zip(*parts, strict=True))
    if not (np.isfinite(logits).all() and np.isfinite(features).all()):
        raise MixlabError(f"{COMMAND_LINE}: the logits are not finite in {run.precision}; try --precision float64")
    labels = {} if images.labels is None else {LABELS: images.labels}
    return {"logits": logits, "features": features, **labels}


def check_out(path: Path) -> None:
    """Check that predictions can go there, before they are computed. Raises: MixlabError."""
    if path.suffix != ".npz":
        raise MixlabError(f"{COMMAND_LINE}: --out: expected an .npz file, got {str(path)!r}; {choices('', ['.npz'])}")
    if path.is_dir() or not path.parent.is_dir():
        what = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}; make it first"
        raise MixlabError(f"{COMMAND_LINE}: --out: {path}: {what}")


def write(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write the arrays as an .npz, whole or not at all. Raises: MixlabError."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    try:
        files.replace(path, buffer.getvalue())
    except OSError as error:
        raise MixlabError(f"{path}: it cannot be written ({error.strerror}); nothing was changed") from error
