"""The metrics of a trained model on examples, and what it says of each."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backends.arrays import Array
from backends.contract import PREDICT_BATCH, Program
from experiments.data import Splits
from experiments.results.metrics import ACCURACY, LOSS, METRICS


@dataclass(frozen=True, eq=False)
class Evaluation:
    """scores: each of METRICS by name.   classes: the smallest unsigned type (n,), what `predicted` gives."""

    scores: dict[str, float]
    classes: Array


def evaluate(program: Program, splits: Splits, indices: Array, loss: str) -> dict[str, float]:
    """Each of METRICS by name, in float64, over the examples at `indices`; each example counts once.

    Args: indices: int32 (n,), into splits.images.    loss: softmax or sigmoid.
    """
    return evaluate_each(program, splits, indices, loss)[0].scores


def evaluate_each(program: Program, splits: Splits, indices: Array, loss: str) -> list[Evaluation]:
    """Evaluate each replica of a program, as `evaluate` does one trial."""
    batches, labels = [_predict(program, splits.images, part) for part in _batches(indices)], splits.labels[indices]
    of_replicas = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
    return [
        Evaluation({name: MEASURES[name](logits, labels, loss) for name in METRICS}, predicted(logits))
        for logits in of_replicas
    ]


def predicted(logits: Array) -> Array:
    """The class (n,) of the largest logit of each example, in the smallest type; the first of equal ones."""
    classes: Array = logits.argmax(1).astype(np.min_scalar_type(logits.shape[1] - 1))
    return classes


def accuracy(logits: Array, labels: Array, loss: str) -> float:
    """The share of examples whose predicted class is their label."""
    return float(np.mean(predicted(logits) == labels))


def mean_loss(logits: Array, labels: Array, loss: str) -> float:
    """The mean over examples of the softmax or sigmoid loss, without label smoothing."""
    if loss == "softmax":
        losses = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(labels)), labels]
    else:
        signs = np.where(np.arange(logits.shape[1]) == labels[:, None], 1, -1)
        losses = np.logaddexp(0, -signs * logits).sum(1)
    return float(losses.mean())


# How each of METRICS is made of logits (n, k), labels (n,) and the name of the loss.
MEASURES: dict[str, Callable[[Array, Array, str], float]] = {ACCURACY.name: accuracy, LOSS.name: mean_loss}


def _batches(indices: Array) -> list[Array]:
    """The indices in parts of PREDICT_BATCH, the last one as short as it is."""
    return [indices[i : i + PREDICT_BATCH] for i in range(0, len(indices), PREDICT_BATCH)]


def _predict(program: Program, images: Array, indices: Array) -> list[Array]:
    """Logits (n, k) of each replica, in float64; a short batch is filled up to the one size that is compiled."""
    filled = np.resize(indices, PREDICT_BATCH)
    return [one.logits[: len(indices)].astype(np.float64) for one in program.predict(images[filled])]
