"""Origins of a cell's numbers: the commits and the environments of its trials."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis.records import THEN

# What makes an environment, beside the commit: column of the frame -> its name in a sentence.
SAME = {
    "ran_on": "device and threads", "processor": "processor", "packages": "packages", "python": "Python",
    "replicas": "trials in a program",  # the last: a tidy.csv of before lacks it
}  # fmt: skip
NAMED = (SAME["ran_on"], SAME["replicas"])  # whose values a sentence names
MAX_PLACES = 4  # named in a sentence
Environment = tuple[str, ...]  # a value of each of SAME that is known
Columns = Mapping[str, Iterable[Any]]  # of the frame, of some trials


def commits(done: Columns) -> tuple[str, ...]:
    """The commits of the project that the trials ran under, a trial's own being possibly several."""
    told = [several for several in set(done.get("commit", ())) if isinstance(several, str)]
    return tuple(sorted({commit for several in told for commit in several.split()}))


def environments(done: Columns) -> tuple[Environment, ...]:
    """The environments of the trials; a trial that went on with other threads or another device has several."""
    names = [name for name in SAME if name in done]
    if not names:
        return ()
    rows = (map(_text, row) for row in set(zip(*(done[name] for name in names), strict=True)))
    return tuple(sorted({(place, *rest) for first, *rest in rows for place in first.split(THEN)}))


def apart_text(origins: Sequence[Environment]) -> str:
    """The differences between environments: `device and threads (cpu with 1 thread; cpu with 2 threads), packages`."""
    several = [sorted(set(values)) for values in zip(*origins, strict=True)]
    apart = [(name, values) for name, values in zip(SAME.values(), several, strict=False) if len(values) > 1]
    return ", ".join(f"{name} ({_listed(values)})" if name in NAMED else name for name, values in apart)


def _listed(values: Sequence[str]) -> str:
    more = f" and {len(values) - MAX_PLACES} more" if len(values) > MAX_PLACES else ""
    return f"{'; '.join(values[:MAX_PLACES])}{more}"


def _text(value: Any) -> str:
    """A value as text; whole numbers are floats in a column that lacks one of them."""
    return f"{value:g}" if isinstance(value, float) else str(value)
