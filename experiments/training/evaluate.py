"""The metrics of a trained model on examples."""

from collections.abc import Callable

import numpy as np

from backends.arrays import Array
from backends.contract import PREDICT_BATCH, Program
from experiments.data import Splits
from experiments.results.metrics import ACCURACY, LOSS, METRICS


def evaluate(program: Program, splits: Splits, indices: Array, loss: str) -> dict[str, float]:
    """Each of METRICS by name, in float64, over the examples at `indices`; each example counts once.

    Args: indices: int32 (n,), into splits.images.    loss: softmax or sigmoid.
    """
    return evaluate_each(program, splits, indices, loss)[0]


def evaluate_each(program: Program, splits: Splits, indices: Array, loss: str) -> list[dict[str, float]]:
    """Evaluate each replica of a program, as `evaluate` does one trial."""
    batches, labels = [_predict(program, splits.images, part) for part in _batches(indices)], splits.labels[indices]
    of_replicas = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
    return [{name: MEASURES[name](logits, labels, loss) for name in METRICS} for logits in of_replicas]


def accuracy(logits: Array, labels: Array, loss: str) -> float:
    """The share of examples whose largest logit is that of their label."""
    return float(np.mean(logits.argmax(1) == labels))


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
