"""How a prepared set stores the images of a trial, as far as a plan asks: each set is looked at once."""

from functools import lru_cache

from experiments.data import prepared


@lru_cache(maxsize=64)
def stored_bytes(source: str, content: str) -> int | None:
    """Bytes of the images of a prepared set as they are stored, decoded; None: it is none, or is gone.

    Args: content: that the trial has of it. A set of another content may stand in the same place later.
    """
    held = prepared.find(source, "this trial")
    return None if held is None else held.stored_bytes


@lru_cache(maxsize=64)
def form(source: str, content: str) -> str:
    """The form in which images are stored.  Args: as of `stored_bytes`."""
    held = prepared.find(source, "this trial")
    return "array" if held is None else held.description.form
