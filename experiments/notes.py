"""Answers that are dear to find, kept as small files in the data cache. A file that cannot be read counts as absent."""

import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any


def digest(question: Any) -> str:
    """24 hexadecimal digits of the SHA-256 of canonical JSON."""
    text = json.dumps(question, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def recall(cache: Path, question: Any) -> Any:
    """The answer, or None."""
    try:
        return read(cache / "seen" / f"{digest(question)}.json")
    except (OSError, ValueError):
        return None


def remember(cache: Path, question: Any, answer: Any) -> None:
    """Keep an answer; a reader finds it whole or not at all."""
    folder = cache / "seen"
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{digest(question)}.json", answer)


def read(path: Path) -> Any:
    """Raises: ValueError: the file holds no JSON."""
    return json.loads(path.read_text("utf-8"))


def write_whole(path: Path, value: Any) -> None:
    """Write JSON so that the file exists whole or not at all.

    Raises: OSError: nothing is left behind.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with part.open("w", encoding="utf-8") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
