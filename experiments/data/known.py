"""What is known of sources, from small files in the data cache: the arrays that they decode to, and sentences on them.

A source is looked up by the fingerprint of its files, and by its place.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.data import memo
from experiments.data.tree import place
from experiments.spec.config import DataConfig

LAYOUT = 3  # part of each question: raise it when the same fields would decode to other arrays
PLACE_LAYOUT = 2  # the same in questions on what a place held when it was last read, which stays true
COMMON_FIELDS = (
    "subset",
    "image_size",
    "image_channels",
    "train_split",
    "test_split",
    "image_column",
    "label_column",
)
# A question holds those alone that are set, so that questions from before these fields were there stay the same.
LATER_FIELDS = ("layout", "background", "bits", "shorter_side", "interpolation")
SYNTHETIC_FIELDS = ("num_classes", "num_examples", "split_seed")


@dataclass(frozen=True)
class About:
    """What a source decodes to.

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
    """What is known of a source beside its arrays; another source of the same arrays may have other facts.

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
    """The answer to a question; None: it was never answered, or the answer cannot be read."""
    answer = memo.recall(cache, question)
    try:
        return About(**answer["about"]), _facts(answer["facts"])
    except (TypeError, KeyError):
        return None


def remember(cache: Path, question: dict[str, Any], about: About, facts: Facts) -> None:
    """Keep the answer to a question.  Raises: OSError: the cache cannot be written."""
    memo.remember(cache, question, {"about": dataclasses.asdict(about), "facts": dataclasses.asdict(facts)})


def last_at(cache: Path, config: DataConfig) -> About | None:
    """What the place of a source held when it was last read; None: it was never read."""
    return memo.recall_as(About, cache, _place(config))


def facts_at(cache: Path, config: DataConfig, content: str) -> Facts:
    """The facts of the place of a source when it held this content; empty where they are not known."""
    try:
        return _facts(memo.recall(cache, _facts_question(config, content)) or {})
    except TypeError:
        return Facts()


def remember_place(cache: Path, config: DataConfig, about: About, facts: Facts) -> None:
    """Keep what the place of a source holds now.  Raises: OSError: the cache cannot be written."""
    if last_at(cache, config) != about:
        memo.remember(cache, _place(config), dataclasses.asdict(about))
    if facts_at(cache, config, about.content) != facts:
        memo.remember(cache, _facts_question(config, about.content), dataclasses.asdict(facts))


def _place(config: DataConfig) -> dict[str, Any]:
    """The question of what a place holds."""
    return question(config, str(place(config.source)), PLACE_LAYOUT)


def _facts_question(config: DataConfig, content: str) -> dict[str, Any]:
    # Without size and channels: a trial has those that were left out when its data was described.
    return {**_place(config), "image_size": None, "image_channels": None, "facts of": content}


def _facts(answer: Any) -> Facts:
    """Facts from their JSON.  Raises: TypeError: it has other fields."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in answer.items()
    }
    return Facts(**values)
