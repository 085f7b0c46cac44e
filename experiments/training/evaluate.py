"""The metrics of a trained model on examples, and what it says of each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from backends.arrays import Array
from backends.contract import PREDICT_BATCH, Predictions, Trainer
from experiments.data import Splits
from experiments.results.metrics import ACCURACY, LOSS, METRICS, PROBES, REAL, TOP5
from experiments.training.feed import batches
from experiments.training.probe import SEEDS, LinearProbe, Probes, Shots

TOP = 5
# Of examples, by their indices, what each replica says of each batch of PREDICT_BATCH, the last one filled up.
Predict = Callable[[Array], Iterator[Sequence[Predictions]]]


def predictor(program: Trainer, images: Any, num_threads: int = 1, idle: Callable[[], None] = lambda: None) -> Predict:
    """What a program of this process says of some of the images.  Args: see feed.batches."""
    read = partial(batches, size=PREDICT_BATCH, num_threads=num_threads, idle=idle)
    return lambda indices: (program.predict(pixels) for pixels in read(images, indices))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The numbers of one evaluation, and what it said.

    scores: each of METRICS by name, of SOME those that the data allows, and of PROBES those that are asked for.
    classes: the smallest unsigned type (n,), what `predicted` gives.
    each_seed: of the probes by name, the accuracy of each of SEEDS; the score is their mean.
    """

    scores: dict[str, float]
    classes: Array
    each_seed: dict[str, list[float]] = field(default_factory=dict)


def evaluate(program: Trainer, splits: Splits, indices: Array, loss: str) -> dict[str, float]:
    """Each of METRICS, and of SOME, by name, in float64, over the examples at `indices`; each example counts once.

    Args: indices: int32 (n,), into splits.images.    loss: softmax or sigmoid.
    """
    return evaluate_each(predictor(program, splits.images), splits, indices, loss)[0].scores


def evaluate_each(
    predict: Predict, splits: Splits, indices: Array, loss: str, probes: Sequence[Probes] = ()
) -> list[Evaluation]:
    """Evaluate each replica, as `evaluate` does one trial.  Args: probes: of `fit_probes`."""
    labels = splits.labels[indices]
    said = _predicted(predict, indices, probes)
    right = splits.right_of(indices)
    return [_evaluation(logits, by_probe, labels, loss, right) for logits, by_probe in said]


def fit_probes(predict: Predict, shots: Shots | None) -> list[Probes]:
    """The probes on the features that each replica has now; none where no shots are asked for."""
    if shots is None:
        return []
    parts = list(_predicted_parts(predict, shots.examples))
    return [shots.probes(np.concatenate([features for _, features in one])) for one in zip(*parts, strict=True)]


def probed(program: Trainer, splits: Splits, indices: Array, shots: Shots) -> dict[int, list[float]]:
    """The accuracy of a model's probes with each of SEEDS, by shots, over the examples at `indices`."""
    predict = predictor(program, splits.images)
    ((_, said),) = _predicted(predict, indices, fit_probes(predict, shots))
    return probe_scores(said, splits.labels[indices])


def probe_scores(said: Mapping[tuple[int, int], Array], labels: Array) -> dict[int, list[float]]:
    """The accuracy of the probes with each of SEEDS, by shots.  Args: said: classes (n,) by shots and seed."""
    every = dict.fromkeys(shots for shots, _ in said)
    return {shots: [float(np.mean(said[shots, seed] == labels)) for seed in SEEDS] for shots in every}


def _evaluation(
    logits: Array, by_probe: Mapping[tuple[int, int], Array], labels: Array, loss: str, right: Array | None
) -> Evaluation:
    scores = {name: MEASURES[name](logits, labels, loss) for name in METRICS}
    if logits.shape[1] > TOP:
        scores[TOP5.name] = among_top(logits, labels)
    if right is not None and right.any():
        scores[REAL.name] = among_right(logits, right)
    each_seed = {PROBES[shots].name: each for shots, each in probe_scores(by_probe, labels).items()}
    means = {name: float(np.mean(each)) for name, each in each_seed.items()}
    return Evaluation({**scores, **means}, predicted(logits), each_seed)


def predicted(logits: Array) -> Array:
    """The class (n,) of the largest logit of each example, in the smallest type; the first of equal ones."""
    classes: Array = logits.argmax(1).astype(np.min_scalar_type(logits.shape[1] - 1))
    return classes


def accuracy(logits: Array, labels: Array, loss: str) -> float:
    """The share of examples whose predicted class is their label."""
    return float(np.mean(predicted(logits) == labels))


def among_top(logits: Array, labels: Array) -> float:
    """The share of examples whose label is among the TOP largest logits; of equal ones, the first classes count."""
    own = np.take_along_axis(logits, labels[:, None], 1)
    before = (logits == own) & (np.arange(logits.shape[1]) < labels[:, None])
    return float(np.mean((((logits > own) | before).sum(1) < TOP) & ~np.isnan(own[:, 0])))


def among_right(logits: Array, right: Array) -> float:
    """The share of examples whose predicted class is one of their right ones, of those that have any.

    Args: right: bool (n, classes).  Source: arXiv 2006.07159, section 3.
    """
    classes = predicted(logits)
    hit = (classes < right.shape[1]) & right[np.arange(len(right)), np.minimum(classes, right.shape[1] - 1)]
    return float(np.mean(hit[right.any(1)]))


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


def _predicted(
    predict: Predict, indices: Array, probes: Sequence[Probes]
) -> list[tuple[Array, dict[tuple[int, int], Array]]]:
    """Of each replica the logits (n, k), and the classes (n,) that each probe says; features are not kept."""
    parts = [
        [(logits, _said(features, probes[i] if probes else {})) for i, (logits, features) in enumerate(outputs)]
        for outputs in _predicted_parts(predict, indices)
    ]
    found = []
    for one in zip(*parts, strict=True):
        said = {key: np.concatenate([classes[key] for _, classes in one]) for key in one[0][1]}
        found.append((np.concatenate([logits for logits, _ in one]), said))
    return found


def _said(features: Array, probes: Mapping[tuple[int, int], LinearProbe]) -> dict[tuple[int, int], Array]:
    return {key: probe.predicted(features) for key, probe in probes.items()}


def _predicted_parts(predict: Predict, indices: Array) -> Iterator[list[tuple[Array, Array]]]:
    """Of each batch, logits (n, k) and features (n, d) of each replica, in float64, without what fills it up.

    Raises: ValueError: `predict` gives more or fewer batches than there are: an example would not count once.
    """
    sizes = (min(PREDICT_BATCH, len(indices) - first) for first in range(0, len(indices), PREDICT_BATCH))
    for size, outputs in zip(sizes, predict(indices), strict=True):
        yield [(one.logits[:size].astype(np.float64), one.features[:size].astype(np.float64)) for one in outputs]
