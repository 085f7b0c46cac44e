"""The few-shot linear probe of the Mixer's authors: how well a few labelled examples of each class are told apart by
the features of a model that stays as it is. In NumPy and float64, so it is the same for every backend.

Features of the chosen examples are standardised, a constant is added to them, and a ridge regression fits targets of
1 for the class and -1 for the others. The largest output is the predicted class.

Source: google-research/big_vision, evaluators/fewshot_lsr.py: seeds, shots, l2, the constant and the order of draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError, counted

if TYPE_CHECKING:
    from experiments.data import Splits

SEEDS = (0, 1, 2)
L2 = 2.0**10
CONSTANT = 100.0  # the feature for the bias: large, so that its weight is hardly held back
EPSILON = 1e-5  # added to the deviation


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A fitted probe.  mean, std: (1, d), of the chosen features.  weights: (d + 1, k), those of the constant last."""

    mean: Array
    std: Array
    weights: Array

    def scores(self, features: Array) -> Array:
        """The outputs (n, k) for features (n, d)."""
        return _with_constant((features - self.mean) / self.std) @ self.weights

    def predicted(self, features: Array) -> Array:
        """The class (n,) of the largest output; the first of equal ones."""
        classes: Array = self.scores(features).argmax(1)
        return classes


def chosen(labels: Array, num_classes: int, shots: int, seed: int) -> Array:
    """Indices (num_classes * shots,) into labels (n,), class by class; fewer shots are the first of more."""
    random = np.random.default_rng(seed)  # theirs; a trial's own streams have nothing to do with it
    orders = [random.permutation(np.flatnonzero(labels == number)) for number in range(num_classes)]
    return np.concatenate([order[:shots] for order in orders])


def fit(features: Array, labels: Array, num_classes: int, l2: float = L2) -> LinearProbe:
    """The probe that the chosen examples give.  Args: features: (n, d).    labels: (n,)."""
    wide = features.astype(np.float64)
    if not np.isfinite(wide).all():  # of a model that has diverged, which its loss will say
        nothing = np.full((wide.shape[1] + 1, num_classes), np.nan)
        return LinearProbe(nothing[None, :-1, 0], nothing[None, :-1, 0], nothing)
    mean, std = wide.mean(0, keepdims=True), wide.std(0, keepdims=True) + EPSILON
    x, y = _with_constant((wide - mean) / std), 2.0 * np.eye(num_classes)[labels] - 1.0
    num, dim = x.shape
    # The same weights in exact arithmetic; the smaller of both systems is solved.
    if num >= dim:
        weights = np.linalg.solve(x.T @ x + l2 * np.eye(dim), x.T @ y)
    else:
        weights = x.T @ np.linalg.solve(x @ x.T + l2 * np.eye(num), y)
    return LinearProbe(mean, std, weights)


Probes = dict[tuple[int, int], LinearProbe]  # by shots and seed


@dataclass(frozen=True, eq=False)
class Shots:
    """The training examples of several probes.

    examples: int32 (m,), each once, as indices into the images.   labels: int32 (m,), of these.
    places: by shots and seed, where those of a probe stand among them.
    """

    examples: Array
    labels: Array
    places: Mapping[tuple[int, int], Array]
    num_classes: int

    def probes(self, features: Array) -> Probes:
        """Fit each probe.  Args: features: (m, d), of `examples`."""
        return {
            key: fit(features[places], self.labels[places], self.num_classes) for key, places in self.places.items()
        }


def about(shots: Sequence[int]) -> dict[str, Any]:
    """What a record says of the probes that were asked for."""
    return {"shots": list(shots), "seeds": list(SEEDS), "l2": L2}


def draw(splits: "Splits", shots: Sequence[int], where: str) -> Shots | None:
    """Choose the examples among those to train on, in the order of the source; None: no shots are asked for.

    Raises: MixlabError: a class has fewer examples than shots; `where` is what the sentence begins with.
    """
    if not shots:
        return None
    train = np.sort(splits.train)
    labels, num_classes = splits.labels[train], splits.about.num_classes
    numbers = np.bincount(labels, minlength=num_classes)
    if (fewest := int(numbers.min())) < max(shots):
        number = int(numbers.argmin())
        name = splits.classes[number] if splits.classes else number
        raise MixlabError(
            f"{where}: a probe of {counted(max(shots), 'shot')} needs as many training examples of each class, and "
            f"class {name!r} has {fewest}; take fewer shots, or more of the data"
        )
    rows = {(one, seed): chosen(labels, num_classes, one, seed) for one in shots for seed in SEEDS}
    used = np.unique(np.concatenate([*rows.values()]))
    places = {key: np.searchsorted(used, row) for key, row in rows.items()}
    return Shots(train[used], labels[used], places, num_classes)


def _with_constant(x: Array) -> Array:
    return np.pad(x, ((0, 0), (0, 1)), constant_values=CONSTANT)
