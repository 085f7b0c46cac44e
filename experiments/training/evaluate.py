"""What a trained model makes of examples: accuracy and mean loss."""

import numpy as np

from backends.arrays import Array
from backends.contract import Program
from experiments.data import Splits
from experiments.spec.trial import PREDICT_BATCH


def evaluate(program: Program, splits: Splits, indices: Array, loss: str) -> dict[str, float]:
    """Accuracy and mean loss, in float64, over the examples at `indices`; each counts once."""
    return evaluate_each(program, splits, indices, loss)[0]


def evaluate_each(program: Program, splits: Splits, indices: Array, loss: str) -> list[dict[str, float]]:
    """The same of each replica of a program."""
    batches = [_predict(program, splits.images, part) for part in _batches(indices)]
    labels = splits.labels[indices]
    return [_scores(np.concatenate(parts), labels, loss) for parts in zip(*batches, strict=True)]


def _scores(logits: Array, labels: Array, loss: str) -> dict[str, float]:
    if loss == "softmax":
        losses = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(labels)), labels]
    else:
        signs = np.where(np.arange(logits.shape[1]) == labels[:, None], 1, -1)
        losses = np.logaddexp(0, -signs * logits).sum(1)
    return {"accuracy": float(np.mean(logits.argmax(1) == labels)), "loss": float(losses.mean())}


def _batches(indices: Array) -> list[Array]:
    return [indices[i : i + PREDICT_BATCH] for i in range(0, len(indices), PREDICT_BATCH)]


def _predict(program: Program, images: Array, indices: Array) -> list[Array]:
    """Logits of each replica, in float64; a short batch is filled up to the size that is compiled, and cut again."""
    filled = np.resize(indices, PREDICT_BATCH)
    return [one.logits[: len(indices)].astype(np.float64) for one in program.predict(images[filled])]
