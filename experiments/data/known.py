"""Knowledge of sources in small files of the data cache: the arrays that a question led to, and the notes on them.

A question is put by the fingerprint of a source's files, and by its place.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.data import memo
from experiments.data.tree import place
from experiments.spec.config import DataConfig

LAYOUT = 3  # raise it when the same fields would decode to other arrays
PLACE_LAYOUT = 2  # of what a place held when it was last read, which stays true
COMMON_FIELDS = (
    "subset",
    "image_size",
    "image_channels",
    "train_split",
    "test_split",
    "image_column",
    "label_column",
)
# Where they are left out, a question has none of them, and is what it was before there were any.
LATER_FIELDS = ("layout", "background", "bits", "shorter_side", "interpolation")
SYNTHETIC_FIELDS = ("num_classes", "num_examples", "split_seed")


@dataclass(frozen=True)
class About:
    """The arrays of a source in numbers.

    num_train and num_test: examples of the source's splits; num_test 0: the source has no test split.
    """

    content: str  # first 24 hexadecimal digits of the SHA-256 of the arrays and of the numbers below
    num_train: int
    num_test: int
    num_classes: int
    image_size: int
    image_channels: int


@dataclass(frozen=True)
class Facts:
    """Facts on a source beside its arrays; another source of the same arrays may have other facts.

    classes: names in the order of their numbers.   notes: sentences on what was ignored, renumbered or seen in pixels.
    """

    kind: str = ""
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def question(config: DataConfig, source: str, layout: int = LAYOUT) -> dict[str, Any]:
    """The question that decides the decoded arrays: the fields, and the source's fingerprint or place."""
    names = COMMON_FIELDS + (SYNTHETIC_FIELDS if config.source == "synthetic" else ())
    later = {name: value for name in LATER_FIELDS if (value := getattr(config, name)) != getattr(DataConfig, name)}
    return {"layout": layout, "source": source, **{name: getattr(config, name) for name in names}, **later}


def recall(cache: Path, question: dict[str, Any]) -> tuple[About, Facts] | None:
    """The answer that was found when the question was last asked; None: there is none that can be read."""
    answer = memo.recall(cache, question)
    try:
        return About(**answer["about"]), _facts(answer["facts"])
    except (TypeError, KeyError):
        return None


def remember(cache: Path, question: dict[str, Any], about: About, facts: Facts) -> None:
    """Keep the answer to a question. Raises: OSError: the cache cannot be written."""
    memo.remember(cache, question, {"about": dataclasses.asdict(about), "facts": dataclasses.asdict(facts)})


def last_at(cache: Path, config: DataConfig) -> About | None:
    """The arrays that the place of a source held when it was last read."""
    return memo.recall_as(About, cache, _place(config))


def facts_at(cache: Path, config: DataConfig, content: str) -> Facts:
    """The facts on the place of a source when it held this content; empty if they are not known."""
    try:
        return _facts(memo.recall(cache, _facts_question(config, content)) or {})
    except TypeError:
        return Facts()


def remember_place(cache: Path, config: DataConfig, about: About, facts: Facts) -> None:
    """Keep what the place of a source holds now. Raises: OSError: the cache cannot be written."""
    if last_at(cache, config) != about:
        memo.remember(cache, _place(config), dataclasses.asdict(about))
    if facts_at(cache, config, about.content) != facts:
        memo.remember(cache, _facts_question(config, about.content), dataclasses.asdict(facts))


def _place(config: DataConfig) -> dict[str, Any]:
    return question(config, str(place(config.source)), PLACE_LAYOUT)


def _facts_question(config: DataConfig, content: str) -> dict[str, Any]:
    # a trial knows the size and channels that were left out when its data was described
    return {**_place(config), "image_size": None, "image_channels": None, "facts of": content}


def _facts(answer: Any) -> Facts:
    """Read facts as they were kept. Raises: TypeError: the answer has another form."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in answer.items()
    }
    return Facts(**values)
