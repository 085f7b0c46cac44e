"""Mistakes that their reader can mend: one sentence, raised once, at the border."""

from collections.abc import Iterable
from difflib import get_close_matches


class MixlabError(Exception):
    """A mistake of the user's or of the surroundings; its text is the whole message and no traceback is shown."""


class BackendMissing(MixlabError):
    """The framework of a backend is not installed, or does not load."""


class Diverged(Exception):
    """The loss of a step is NaN or infinite. `step` counts from 1."""

    def __init__(self, step: int):
        super().__init__(f"diverged at step {step}")
        self.step = step


def choices(given: object, allowed: Iterable[str]) -> str:
    """The end of an error sentence: what is allowed, and the nearest to what came."""
    names = [str(name) for name in allowed]
    near = get_close_matches(str(given), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"allowed: {', '.join(names) or 'none'}{hint}"
