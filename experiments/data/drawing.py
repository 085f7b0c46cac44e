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
    """`num` of the ascending indices, by class, and those that are left; both ascending."""
    if num == 0:
        return indices[:0], indices
    order = _nested(indices, labels, seed, purpose)
    return np.sort(order[:num]), np.sort(order[num:])


def _nested(indices: Array, labels: Array, seed: int, purpose: str) -> Array:
    """The indices in an order of which each prefix holds the classes in about the shares of the whole.

    The example of rank r among the n of its class, in random order, stands at (r + 1/2) / n; ties are drawn.
    """
    classes, num = labels[indices], len(indices)
    by_class = _sorted_by(classes, words(seed, purpose, 0, 1, num)[0])
    ranks = _ranks(np.bincount(classes))
    order: Array = indices[by_class[_sorted_by(ranks, words(seed, purpose, 1, 1, num)[0])]]
    return order


def _ranks(nums: Array) -> Array:
    """The rank of each example's position among the distinct positions of all, class by class: int32 (sum of nums,).

    Classes of the same number of examples have the same positions: they are computed once for each such number.
    """
    sizes, size_of_class = np.unique(nums, return_inverse=True)
    first = np.cumsum(sizes) - sizes
    positions = (np.arange(sizes.sum()) - np.repeat(first, sizes) + 0.5) / np.repeat(sizes, sizes)
    ranks = np.unique(positions, return_inverse=True)[1].astype(np.int32)
    of_size = np.split(ranks, first[1:])
    return np.concatenate([of_size[size] for size in size_of_class])


def _sorted_by(groups: Array, keys: Array) -> Array:
    """What np.lexsort((keys, groups)) returns, many times as fast where the keys are random; int64 (n,).

    A group, the upper bits of its key, and the index are one word, as words sort much faster than indices by words.
    Where the bits of two keys do not tell them apart, the whole keys do.

    Args:   groups: int (n,), 0 or more; n > 0.    keys: uint64 (n,).
    """
    group_bits = np.uint64(max(1, int(groups.max()).bit_length()))
    index_bits = np.uint64(len(keys).bit_length())
    word = groups.astype(np.uint64)
    word <<= np.uint64(64) - group_bits - index_bits
    word |= keys >> group_bits + index_bits
    word <<= index_bits
    word |= np.arange(len(keys), dtype=np.uint64)
    word.sort()
    order = (word & (np.uint64(1) << index_bits) - np.uint64(1)).view(np.int64)
    word >>= index_bits
    same = word[1:] == word[:-1]
    if same.any():
        is_one_of = np.append(same, False) | np.append(False, same)
        some = order[is_one_of]
        order[is_one_of] = some[np.lexsort((keys[some], groups[some]))]
    return order
