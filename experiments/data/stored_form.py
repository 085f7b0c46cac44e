"""How a prepared set stores the images of a trial, as far as a plan asks: each set is looked at once."""

from functools import lru_cache

from backends.errors import MixlabError
from experiments.data import prepared
from experiments.data.fingerprints import is_there
from experiments.spec.config import DataConfig


def check(config: DataConfig, content: str, where: str) -> None:
    """Check that `data.storage` can have the images of a source, where it is there.

    Args:   content: that a trial has of it.
    Raises: MixlabError: it cannot.
    """
    if config.storage not in ("encoded", "disk") or not is_there(config.source):
        return
    held = prepared.find(config.source, where)
    is_encoded = held is not None and held.description.form == "encoded"
    is_framed = held is not None and held.description.content != content
    if why := fault(config, is_encoded, is_framed):
        raise MixlabError(f"{where}: {why}")


def fault(config: DataConfig, is_encoded: bool, is_framed: bool) -> str | None:
    """A sentence on why `data.storage` cannot have the images; None: it can.

    Args: is_encoded: they are stored so.    is_framed: they are stored otherwise than a trial takes them.
    """
    if config.storage == "encoded" and not is_encoded:
        return (
            f"data.storage: encoded needs images that are encoded, and {config.source!r} holds arrays; set it to disk, "
            f"or prepare the source with --keep or --encode"
        )
    if config.storage == "disk" and is_encoded and is_framed and config.augment.inception:
        return (
            f"data.storage: disk has the images of {config.source!r} decoded in the size of the trial, and "
            f"data.augment.inception crops them as they are stored; set it to encoded or memory, or prepare the source "
            f"with --resize, to the size to crop from"
        )
    return None


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
