"""The data of a trial: what a source holds, its splits and subsets, and the permutation of its pixels.

Every choice is drawn from `split_seed`, so all seeds of a trial see the same examples.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError
from experiments.data import checks, decoded, framing, known, limits, memo
from experiments.data.builtin import BUILT_IN
from experiments.data.fingerprints import fingerprint, hub_bytes, is_there, noted_fingerprint, source_tree
from experiments.data.known import About, Facts
from experiments.data.limits import NotPrepared, Purpose
from experiments.data.pictures import background
from experiments.data.tree import Tree
from experiments.spec.config import DataConfig
from experiments.spec.trial import DataInfo
from experiments.streams import words


@dataclass(frozen=True, eq=False)
class Splits:
    """Examples as arrays, and which of them are for what.

    images: uint8 (n, h, w, c), memory-mapped: every example of the source, the training split first.
    labels: int32 (n,).   train, validation, test: int32 indices into both.
    train is in nested order: with a smaller `fraction` it is a prefix of this one.
    classes: names in the order of their numbers; empty where they are not known.
    """

    about: About
    images: Array
    labels: Array
    train: Array
    validation: Array
    test: Array
    classes: tuple[str, ...] = ()


def describe(config: DataConfig, cache: Path, where: str, purpose: Purpose = Purpose.TRAINING) -> DataInfo:
    """What the source holds. The first time it is decoded into the cache; afterwards small files are read.

    A folder that is gone holds what it held when it was last read, so that a report needs no images.

    Args:   cache: folder of decoded images.   where: what an error begins with, such as a file name.
            purpose: decides how much may be decoded.
    Raises: NotPrepared: planning would have to decode more than it may.    MixlabError: names the field at fault.
    """
    if config.image_channels == 2:
        raise MixlabError(f"{where}: data.image_channels: expected 1 (grey) or 3 (colour), got 2")
    framing.check(config, where)
    background(config, where)  # raises where it is no colour
    try:
        about = _find_out(config, cache, where, purpose)
    except OSError as error:
        raise _cache_error(cache, error, where) from error
    counts = _counts(config, about, where)
    return DataInfo(about.content, about.image_size, about.image_channels, about.num_classes, *counts)


def load(config: DataConfig, info: DataInfo, cache: Path) -> Splits:
    """The examples that `describe` told of. The source itself is needed only where the cache has lost them.

    Raises: MixlabError: the source is needed and is gone or has changed, or the cache cannot be read.
    """
    where = "this trial"
    config = dataclasses.replace(config, image_size=info.image_size, image_channels=info.image_channels)
    try:
        entry = decoded.find(cache, info.content)
        if entry is None:
            _read_anew(config, source_tree(config.source, where), cache, where, Purpose.TRAINING)
            entry = decoded.find(cache, info.content)
            if entry is None:
                raise MixlabError(
                    f"{where}: data.source: the content of {config.source!r} is not what it was when the trial was "
                    f"planned; bring it back, or plan the trial anew"
                )
    except OSError as error:
        raise _cache_error(cache, error, where) from error
    train, validation, test = _split(config, entry.about, entry.labels, where)
    assert (len(train), len(validation), len(test)) == (info.num_train, info.num_validation, info.num_test)
    classes = facts(config, info, cache).classes
    return Splits(entry.about, entry.images, entry.labels, train, validation, test, classes)


def prepare(config: DataConfig, cache: Path, where: str) -> About:
    """Decode the source, however large it is, unless its decoded images are there; returns what they are.

    Raises: MixlabError: names the field at fault.
    """
    info = describe(config, cache, where, Purpose.PREPARING)
    try:
        entry = decoded.find(cache, info.content)
        if entry is None:
            return _read_anew(config, source_tree(config.source, where), cache, where, Purpose.PREPARING)
        return entry.about
    except OSError as error:
        raise _cache_error(cache, error, where) from error


def check_memory(config: DataConfig, info: DataInfo, cache: Path, where: str) -> None:
    """Check that the examples which `describe` told of fit into the memory.  Raises: MixlabError: they do not."""
    try:
        entry = decoded.find(cache, info.content)
    except OSError as error:
        raise _cache_error(cache, error, where) from error
    if entry:  # else they are decoded anew, which looks at the memory first
        limits.check_memory(entry.about, config.source, where)


def _find_out(config: DataConfig, cache: Path, where: str, purpose: Purpose) -> About:
    """What a source holds, from the notes of the cache where it is there, else by decoding the source."""
    last = known.last_at(cache, config)
    if last and not is_there(config.source):
        return last
    tree = source_tree(config.source, where)
    # First by what a listing tells, as reading all files of a large source for its fingerprint takes minutes.
    noted = noted_fingerprint(config, tree, cache)
    answer = known.recall(cache, known.question(config, noted)) if noted else None
    if answer is None and tree:
        limits.check_files(config, tree, purpose, where)
    if noted is None:
        answer = known.recall(cache, known.question(config, fingerprint(config, tree, cache, where)))
    return _read_anew(config, tree, cache, where, purpose) if answer is None else _keep(config, tree, cache, *answer)


def _read_anew(config: DataConfig, tree: Tree | None, cache: Path, where: str, purpose: Purpose) -> About:
    """Decode a source and note what it holds.  Raises: NotPrepared; MixlabError; OSError: see `describe` and memo."""
    question = known.question(config, fingerprint(config, tree, cache, where))
    if tree is None and config.source not in BUILT_IN:
        limits.check_download(config, hub_bytes(config, cache), purpose, where)
    if (about := memo.recall_as(About, cache, ["size", question])) and purpose is Purpose.PLANNING:
        limits.check_decoded(about, config, purpose, where)
    try:
        answer = decoded.build(config, tree, cache, purpose, where)
    except NotPrepared as error:
        if error.about:  # the next plan need not open the source to learn it
            memo.remember(cache, ["size", question], dataclasses.asdict(error.about))
        raise
    known.remember(cache, question, *answer)
    return _keep(config, tree, cache, *answer)


def _keep(config: DataConfig, tree: Tree | None, cache: Path, about: About, facts: Facts) -> About:
    """Note what the place of the source holds, and the sentences on it."""
    if tree:
        facts = dataclasses.replace(facts, notes=(*tree.notes(), *facts.notes))
    known.remember_place(cache, config, about, facts)
    return about


def facts(config: DataConfig, info: DataInfo, cache: Path) -> Facts:
    """The names of the classes in order, and the sentences on the source."""
    return known.facts_at(cache, config, info.content)


def repeats(config: DataConfig, info: DataInfo, cache: Path) -> checks.Repeats | None:
    """How many examples of a trial equal one that it trains on; None where the decoded images are gone.

    Raises: MixlabError: the cache cannot be read.
    """
    where = "this trial"
    fields = {
        name: getattr(config, name) for name in ("fraction", "validation_fraction", "test_fraction", "split_seed")
    }
    question = ["repeats", info.content, fields]
    if (counted := memo.recall_as(checks.Repeats, cache, question)) is not None:
        return counted
    try:
        entry = decoded.find(cache, info.content)
        if entry is None:
            return None
        parts = _split(config, entry.about, entry.labels, where)
        counted = checks.repeats(decoded.hashes(cache, entry), *parts)
        memo.remember(cache, question, dataclasses.asdict(counted))
        return counted
    except OSError as error:
        raise _cache_error(cache, error, where) from error


def _counts(config: DataConfig, about: About, where: str) -> tuple[int, int, int]:
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


def _split(config: DataConfig, about: About, labels: Array, where: str) -> tuple[Array, Array, Array]:
    """Indices, int32, to train on, to validate on and to test on."""
    num_train, num_validation, num_test = _counts(config, about, where)
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


def _cache_error(cache: Path, error: OSError, where: str) -> MixlabError:
    return MixlabError(
        f"{where}: data cache {cache}: it cannot be used ({error.strerror or error}); free space there, or choose "
        f"another folder with --store or run.data_cache"
    )
