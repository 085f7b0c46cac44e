"""What a reader of a source gives: splits, with the class of each example and its raw image."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from backends.contract import Array
from backends.errors import MixlabError, choices
from experiments.spec import DataConfig

Raw = bytes | str | Array | None  # an encoded image, the path of its file, its pixels (uint8), or nothing


@dataclass(frozen=True, eq=False)
class RawSplit:
    """One split. `images()` gives the raw images in the order of `labels`, anew at each call."""

    name: str
    labels: Array  # int32 (n,)
    images: Callable[[], Iterator[Raw]]


@dataclass(frozen=True, eq=False)
class RawSource:
    num_classes: int
    train: RawSplit
    test: RawSplit | None  # none: test examples are to be cut from the training split

    @property
    def splits(self) -> list[RawSplit]:
        return [self.train, self.test] if self.test else [self.train]


def choose_splits(config: DataConfig, names: Iterable[str], where: str) -> tuple[str, str | None]:
    """Names of the training and the test split; None where test examples are to be cut from the training split.

    Raises: MixlabError: a split that was asked for does not exist, or one is to be both.
    """
    names = list(names)
    for field, name in (("train_split", config.train_split), ("test_split", config.test_split)):
        if name is not None and name not in names:
            raise MixlabError(f"{where}: data.{field}: {config.source!r} has no split {name!r}; {choices(name, names)}")
    if config.test_split == config.train_split:
        others = [name for name in names if name != config.train_split]
        raise MixlabError(
            f"{where}: data.test_split: {config.test_split!r} is the training split; leave it out or take another, "
            f"{choices(config.test_split, others)}"
        )
    usual = [name for name in ("test", "validation") if name in names and name != config.train_split]
    return config.train_split, config.test_split or next(iter(usual), None)
