"""Answers that take long to find, kept as small files in the data cache. An unreadable file counts as absent."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from experiments.files import replace

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Hashed:
    """A question too long to be held as one text: the SHA-256, hexadecimal, of the text that it would be."""

    digest: str


def recall(cache: Path, question: Any) -> Any:
    """The answer that was kept for a question; None: there is none, or it cannot be read."""
    try:
        return json.loads(_path(cache, question).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def recall_as(kind: type[Answer], cache: Path, question: Any) -> Answer | None:
    """The answer as a value of this dataclass; None: there is none, or it has other fields."""
    answer = recall(cache, question)
    try:
        return None if answer is None else kind(**answer)
    except TypeError:
        return None


def remember(cache: Path, question: Any, answer: Any) -> None:
    """Keep an answer; a reader finds it whole or not at all.

    Raises: OSError: the cache cannot be written.
    """
    replace(_path(cache, question), json.dumps(answer).encode())


def _path(cache: Path, question: Any) -> Path:
    """The file of a question: equal questions, whatever the order of their keys, have the same."""
    return cache / "seen" / f"{hashed(question)[:24]}.json"


def hashed(question: Any) -> str:
    if isinstance(question, Hashed):
        return question.digest
    text = json.dumps(question, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
