"""Origins of a cell's numbers: the commits and the environments of its trials."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.records import THEN

# What makes an environment, beside the commit: column of the frame -> its name in a sentence.
SAME = {"ran_on": "device and threads", "processor": "processor", "packages": "packages", "python": "Python"}
MAX_PLACES = 4  # named in a sentence
Environment = tuple[str, ...]  # a value of each of SAME that is known


def commits(done: pd.DataFrame) -> tuple[str, ...]:
    """The commits of the project that the trials ran under, a trial's own being possibly several."""
    column: Any = done.get("commit", [])
    return tuple(sorted({commit for several in column if isinstance(several, str) for commit in several.split()}))


def environments(done: pd.DataFrame) -> tuple[Environment, ...]:
    """The environments of the trials; a trial that went on with other threads or another device has several."""
    names = [name for name in SAME if name in done]
    if not names:
        return ()
    rows = zip(*(done[name].astype(str) for name in names), strict=True)
    return tuple(sorted({(place, *rest) for first, *rest in rows for place in first.split(THEN)}))


def apart_text(origins: Sequence[Environment]) -> str:
    """The differences between environments: `device and threads (cpu with 1 thread; cpu with 2 threads), packages`."""
    several = [sorted(set(values)) for values in zip(*origins, strict=True)]
    parts = [name for name, values in zip(SAME.values(), several, strict=False) if len(values) > 1]
    if parts and parts[0] == SAME["ran_on"]:
        more = f" and {len(several[0]) - MAX_PLACES} more" if len(several[0]) > MAX_PLACES else ""
        parts[0] += f" ({'; '.join(several[0][:MAX_PLACES])}{more})"
    return ", ".join(parts)
