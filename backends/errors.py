"""Mistakes that their reader can mend: one sentence, raised once, at the border."""

import itertools
import os
import traceback
from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class MixlabError(Exception):
    """A mistake of the user's or of the surroundings; its text is the whole message and no traceback is shown."""


DEBUG = "MIXLAB_DEBUG"  # a variable of the environment; any value but 0 asks for what a sentence leaves out


class BackendMissing(MixlabError):
    """The framework of a backend is not installed, or does not load."""


class Diverged(Exception):
    """The loss of a step is NaN or infinite. `step` counts from 1."""

    def __init__(self, step: int):
        super().__init__(f"diverged at step {step}")
        self.step = step


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or the name of its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def show_chain(error: BaseException) -> None:
    """Print an error, its causes and their tracebacks to standard error, where MIXLAB_DEBUG=1 asks for it.

    Whatever turns an error into a sentence calls this first: in a command, a worker or a job, whose log gets it.
    """
    if os.environ.get(DEBUG, "0") not in ("", "0"):
        traceback.print_exception(error)


LISTED = 150  # letters that a list may have in a sentence; names beyond them are counted


def choices(value: object, allowed: Iterable[str]) -> str:
    """The end of an error sentence: the allowed names, and the one that is nearest to the value that came."""
    names = [str(name) for name in allowed]
    return f"allowed: {listed(names) or 'none'}{nearest(value, names)}"


def nearest(value: object, names: Sequence[str]) -> str:
    """The end of an error sentence: the name that is nearest to the value that came; empty where none is near."""
    near = get_close_matches(str(value), names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def listed(names: Sequence[str]) -> str:
    """Names in a row, as many as a sentence holds, and how many there are besides."""
    ends = list(itertools.accumulate(len(name) + len(", ") for name in names))
    num = len(names) if not ends or ends[-1] <= LISTED else max(1, sum(end <= LISTED for end in ends))
    rest = f" and {len(names) - num} more" if num < len(names) else ""
    return ", ".join(names[:num]) + rest


def counted(number: int, word: str) -> str:
    """`1 pair`, `3 pairs`, `1,024 pairs`."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"
