"""Which examples a trial trains on, validates on and tests on, by class.

Every choice is drawn from `split_seed`, so all seeds of a trial see the same examples.
"""

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError
from experiments.data.known import About
from experiments.spec.config import DataConfig
from experiments.streams import words


def counts(config: DataConfig, about: About, where: str) -> tuple[int, int, int]:
    """Numbers of examples to train on, to validate on and to test on.

    Raises: MixlabError: a fraction leaves nothing to train or to test on.
    """
    num_test = about.num_test or round(config.test_fraction * about.num_train)
    rest = about.num_train if about.num_test else about.num_train - num_test
    num_validation = round(config.validation_fraction * rest)
    what = f"of {about.num_train} examples in the training split"
    if num_test == 0:
        raise MixlabError(
            f"{where}: data.test_fraction: {config.test_fraction} {what} leaves none to test on; raise it"
        )
    if rest == 0:
        raise MixlabError(
            f"{where}: data.test_fraction: {config.test_fraction} {what} leaves none to train on; lower it"
        )
    if rest == num_validation:
        raise MixlabError(
            f"{where}: data.validation_fraction: {config.validation_fraction} {what} leaves none to train on; lower it"
        )
    num_train = max(1, round(config.fraction * (rest - num_validation)))
    return num_train, num_validation, num_test


def split(config: DataConfig, about: About, labels: Array, where: str) -> tuple[Array, Array, Array]:
    """Indices, int32, to train on, to validate on and to test on."""
    num_train, num_validation, num_test = counts(config, about, where)
    rest, total = np.arange(about.num_train, dtype=np.int32), about.num_train + about.num_test
    if about.num_test:
        test = np.arange(about.num_train, total, dtype=np.int32)
    else:
        test, rest = _cut(rest, labels, num_test, config.split_seed, "data/test")
    validation, rest = _cut(rest, labels, num_validation, config.split_seed, "data/validation")
    train = _nested(rest, labels, config.split_seed, "data/train")[:num_train]
    return train, validation, test


def _cut(indices: Array, labels: Array, num: int, seed: int, purpose: str) -> tuple[Array, Array]:
    """`num` of the indices, by class, and those that are left; both ascending."""
    order = _nested(indices, labels, seed, purpose)
    return np.sort(order[:num]), np.sort(order[num:])


def _nested(indices: Array, labels: Array, seed: int, purpose: str) -> Array:
    """The indices in an order of which each prefix holds the classes in about the shares of the whole.

    The example of rank r among the n of its class, in random order, stands at (r + 1/2) / n; ties are drawn.
    """
    keys, ties = words(seed, purpose, 0, 2, len(indices))
    classes = labels[indices]
    by_class = np.lexsort((keys, classes))
    _, first, nums = np.unique(classes[by_class], return_index=True, return_counts=True)
    rank = np.arange(len(indices)) - np.repeat(first, nums)
    position = (rank + 0.5) / np.repeat(nums, nums)
    order: Array = indices[by_class[np.lexsort((ties, position))]]
    return order
