"""Which trials stood in a report with test numbers: `ablations/<name>/unsealed/<set of trials>.json`.

Somebody who has seen test numbers may add trials to the grid because of them. So the first report with test numbers
notes the trials of its grid, and later reports count under their tables the trials that were not among them. A file is
of one set of trials and is never replaced: the first report of a set counts, and any number of processes may write at
once.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments import clock
from experiments.files import write_json
from experiments.results.store import Store

FOLDER = "unsealed"
Contents = Mapping[str, str]  # id of a trial -> content of its data


@dataclass(frozen=True)
class Unsealed:
    """A report with test numbers: when it was written, in seconds since 1970, and the trials of its grid."""

    at: float
    contents: Contents


def note(store: Store, name: str, contents: Contents) -> None:
    """Note that a report of an ablation has shown test numbers; nothing changes if one of the same trials has before.

    Args:   contents: of all trials of the grid, also of those that are not done, and, where a tuned value is not chosen
            yet, of those at each value.
    Raises: StoreError.
    """
    path = store.ablation(name) / FOLDER / f"{_key(contents)}.json"
    if not path.exists():
        write_json(path, {"at": clock.now(store.root), "contents": dict(sorted(contents.items()))})


def added(store: Store, name: str, contents: Contents) -> dict[str, str]:
    """The trials that joined their grid after a report with test numbers of the same data: id -> day of that report.

    A trial of data that no report has shown is not among them. Of several reports on the same data the first counts.
    """
    first: dict[str, Unsealed] = {}
    for report in sorted(_known(store.ablation(name) / FOLDER), key=lambda one: one.at):
        for content in report.contents.values():
            first.setdefault(content, report)
    return {
        key: day(first[content].at)
        for key, content in contents.items()
        if content in first and key not in first[content].contents
    }


def has_shown(store: Store, name: str, contents: Iterable[str]) -> bool:
    """Whether reports of an ablation have shown test numbers of all this data."""
    shown = {content for report in _known(store.ablation(name) / FOLDER) for content in report.contents.values()}
    return shown >= set(contents)


def day(at: float) -> str:
    """`2026-11-27`, in Greenwich."""
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def _known(folder: Path) -> list[Unsealed]:
    """The reports that were noted; a file that is damaged says nothing."""
    known = []
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            tree = json.loads(path.read_text("utf-8"))
            known.append(Unsealed(float(tree["at"]), {str(key): str(one) for key, one in tree["contents"].items()}))
    return known


def _key(contents: Contents) -> str:
    return hashlib.sha256("\n".join(sorted(contents)).encode()).hexdigest()[:16]
