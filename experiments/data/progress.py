"""How far the reading of a source is."""

from collections.abc import Iterable
from typing import TypeVar

Part = TypeVar("Part")


def tracked(parts: Iterable[Part], total: int, what: str) -> Iterable[Part]:
    """The parts as they come, with a bar while they do if this is a terminal; nothing is said elsewhere."""
    from rich.console import Console  # a tenth of a second that known data does without
    from rich.progress import track

    console = Console(stderr=True)
    return track(parts, what, total, console=console, transient=True) if console.is_terminal else parts
