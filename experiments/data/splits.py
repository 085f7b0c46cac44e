"""The data of a trial: what a source holds, its splits and subsets, and the permutation of its pixels.

Every choice is drawn from `split_seed`, so all seeds of a trial see the same examples.
"""

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError
from experiments.data import checks, decoded, drawing, framing, known, limits, memo, prepared, real, stored_form
from experiments.data.builtin import BUILT_IN
from experiments.data.fingerprints import fingerprint, hub_bytes, is_there, noted_fingerprint, source_tree
from experiments.data.known import About, Facts
from experiments.data.limits import NotPrepared, Purpose
from experiments.data.pictures import background
from experiments.data.pixels import InMemory, OnDisk, Pixels
from experiments.data.tree import Tree
from experiments.spec.config import DataConfig
from experiments.spec.trial import DataInfo


@dataclass(frozen=True, eq=False)
class Splits:
    """Examples as arrays, and which of them are for what.

    images: uint8 (n, h, w, c): every example of the source, the training split first, framed as the trial asks; an
            array, or a pixels.Framed, which reads what is indexed.
    stored: the same images as they are stored, of any size; None: as `images` holds them.
    labels: int32 (n,).   train, validation, test: int32 indices into both.
    train is in nested order: with a smaller `fraction` it is a prefix of this one.
    classes: names in the order of their numbers; empty where they are not known.
    right: all right classes of each test example, bool (n, classes); None: only its label is known.
    """

    about: About
    images: Any
    labels: Array
    train: Array
    validation: Array
    test: Array
    classes: tuple[str, ...] = ()
    stored: Pixels | None = None
    right: Array | None = None

    @property
    def pixels(self) -> Pixels:
        """The images as they are stored, one by one."""
        return InMemory(self.images) if self.stored is None else self.stored

    def right_of(self, indices: Array) -> Array | None:
        """All right classes of each example, bool (b, classes); None: they are not the test examples, or not known."""
        return self.right if self.right is not None and np.array_equal(indices, self.test) else None


def describe(config: DataConfig, cache: Path, where: str, purpose: Purpose = Purpose.TRAINING) -> DataInfo:
    """What the source holds. The first time it is decoded into the cache; afterwards small files are read.

    A folder that is gone holds what it held when it was last read, and so does one that is damaged for a report, so
    that it needs no images.

    Args:   cache: folder of decoded images.   where: what an error begins with, such as a file name.
            purpose: decides how much may be decoded.
    Raises: NotPrepared: planning would have to decode more than it may.    MixlabError: names the field at fault.
    """
    framing.check(config, where)
    background(config, where)  # raises where it is no colour
    try:
        about = _find_out(config, cache, where, purpose)
    except OSError as error:
        raise _cache_error(cache, error, where) from error
    counts = drawing.counts(config, about, where)
    info = DataInfo(about.content, about.image_size, about.image_channels, about.num_classes, *counts)
    if purpose is not Purpose.REPORTING:  # a report shows what was trained, whatever has become of the images
        right_classes(config, info, where)  # raises where they are not those of the test examples
        stored_form.check(config, about.content, where)
    return info


def load(config: DataConfig, info: DataInfo, cache: Path) -> Splits:
    """The examples that `describe` told of. The source itself is needed only where the cache has lost them.

    Raises: MixlabError: the source is needed and is gone or has changed, or the cache cannot be read.
    """
    where = "this trial"
    config = _as_told(config, info)
    if held := _held(config, info, where):
        pixels, labels, about = held.pixels(), held.labels, held.about(config)
        images, classes = held.images(config, pixels), held.facts.classes
    else:
        entry = _entry(config, info, cache, where)
        images, labels, about = entry.images, entry.labels, entry.about
        pixels, classes = OnDisk(cache / info.content / decoded.IMAGES), facts(config, info, cache).classes
    train, validation, test = drawing.split(config, about, labels, where)
    assert (len(train), len(validation), len(test)) == (info.num_train, info.num_validation, info.num_test)
    right = right_classes(config, info, where)
    return Splits(about, images, labels, train, validation, test, classes, pixels, right)


def right_classes(config: DataConfig, info: DataInfo, where: str) -> Array | None:
    """All right classes of each test example, bool (n, classes); None: `data.labels_real` is not given.

    Raises: MixlabError: the file cannot be read, or names of examples are not known.
    """
    if config.labels_real is None:
        return None
    names = ("source", "labels_real", "test_fraction", "split_seed", "validation_fraction", *prepared.FRAMING)
    asked = DataConfig(**{name: getattr(config, name) for name in names})  # what else a grid varies decides nothing
    try:
        return _right_classes(dataclasses.replace(asked, image_size=info.image_size))
    except MixlabError as error:
        raise MixlabError(f"{where}: {error}") from error


@lru_cache(maxsize=4)
def _right_classes(config: DataConfig) -> Array:
    assert config.labels_real is not None
    held = prepared.find(config.source, "this trial")
    names = held.names if held else None
    if held is None or names is None:
        return real.right_classes(config.labels_real, None, ())
    about = held.about(config)
    test = range(about.num_train, about.num_train + about.num_test)
    if not about.num_test:
        test = drawing.split(config, about, held.labels, "this trial")[2].tolist()
    return real.right_classes(config.labels_real, [names[i] for i in test], held.facts.classes)


def _entry(config: DataConfig, info: DataInfo, cache: Path, where: str) -> decoded.Entry:
    """The decoded images of the cache; a source that can be read is decoded anew where they are lost."""
    try:
        entry = decoded.find(cache, info.content)
        if entry is None and not prepared.find(config.source, where):
            _read_anew(config, source_tree(config.source, where), cache, where, Purpose.TRAINING)
            entry = decoded.find(cache, info.content)
    except OSError as error:
        raise _cache_error(cache, error, where) from error
    if entry is None:
        raise MixlabError(
            f"{where}: data.source: the content of {config.source!r} is not what it was when the trial was "
            f"planned; bring it back, or plan the trial anew"
        )
    return entry


def prepare(config: DataConfig, cache: Path, where: str) -> About:
    """Decode the source, however large it is, unless its decoded images are there; returns what they are.

    Raises: MixlabError: names the field at fault.
    """
    info = describe(config, cache, where, Purpose.PREPARING)
    if held := prepared.find(config.source, where):
        return held.about(config)
    try:
        entry = decoded.find(cache, info.content)
        if entry is None:
            return _read_anew(config, source_tree(config.source, where), cache, where, Purpose.PREPARING)
        return entry.about
    except OSError as error:
        raise _cache_error(cache, error, where) from error


def check_memory(config: DataConfig, info: DataInfo, cache: Path, where: str) -> None:
    """Check that the examples which `describe` told of fit into the memory, where `data.storage` has them there.

    Raises: MixlabError: they do not.
    """
    if config.storage != "memory":
        return
    try:
        about = _about_here(config, info, cache, where)
    except OSError as error:
        raise _cache_error(cache, error, where) from error
    if about:  # else they are decoded anew, which looks at the memory first
        limits.check_memory(about, config.source, where)


def _about_here(config: DataConfig, info: DataInfo, cache: Path, where: str) -> About | None:
    """What the examples are, where they are prepared or decoded; None: neither."""
    if held := _held(config, info, where):
        return held.about(_as_told(config, info))
    entry = decoded.find(cache, info.content)
    return entry.about if entry else None


def first_images(config: DataConfig, info: DataInfo, cache: Path, number: int) -> Array | None:
    """The first images (number, h, w, c) of the training split; None where they are neither prepared nor decoded."""
    if held := _held(config, info, "this trial"):
        return np.asarray(held.images(_as_told(config, info), held.pixels())[:number])
    entry = decoded.find(cache, info.content)
    return np.asarray(entry.images[:number]) if entry else None


def _as_told(config: DataConfig, info: DataInfo) -> DataConfig:
    """The data with size and channels as `describe` told them."""
    return dataclasses.replace(config, image_size=info.image_size, image_channels=info.image_channels)


def _held(config: DataConfig, info: DataInfo, where: str) -> prepared.Prepared | None:
    """The prepared folder that is the source, if it still holds what `describe` told of."""
    held = prepared.find(config.source, where)
    return held if held and held.about(_as_told(config, info)).content == info.content else None


def _find_out(config: DataConfig, cache: Path, where: str, purpose: Purpose) -> About:
    """What a source holds, from the notes of the cache where it is there, else by decoding the source."""
    last = known.last_at(cache, config)
    if last and not is_there(config.source):
        return last
    try:
        if held := prepared.find(config.source, where):
            about = held.about(config)
            known.remember_place(cache, config, about, held.facts)
            return about
    except MixlabError:  # it is damaged
        if last is None or purpose is not Purpose.REPORTING:
            raise
        return last
    purpose = Purpose.PLANNING if purpose is Purpose.REPORTING else purpose
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
        held = _hashed(config, info, cache, where)
        if held is None:
            return None
        about, labels, hashes = held
        counted = checks.repeats(hashes, *drawing.split(config, about, labels, where))
        memo.remember(cache, question, dataclasses.asdict(counted))
        return counted
    except OSError as error:
        raise _cache_error(cache, error, where) from error


def _hashed(config: DataConfig, info: DataInfo, cache: Path, where: str) -> tuple[About, Array, Array] | None:
    """What the examples are, their labels, and their hashes; None where the images are gone."""
    if held := _held(config, info, where):
        return held.about(_as_told(config, info)), held.labels, held.hashes
    entry = decoded.find(cache, info.content)
    return None if entry is None else (entry.about, entry.labels, decoded.hashes(cache, entry))


def _cache_error(cache: Path, error: OSError, where: str) -> MixlabError:
    return MixlabError(
        f"{where}: data cache {cache}: it cannot be used ({error.strerror or error}); free space there, or choose "
        f"another folder with --store or run.data_cache"
    )
