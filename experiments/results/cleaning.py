"""Cleaning: what a store takes, by kind, and removal. A file counts for the first kind that it is of.

Whatever is held stays: a trial that runs or waits in a queue, the data and the code that it needs. A trial's files
are removed under its claim, so that nobody begins it meanwhile.
"""

import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from experiments import clock
from experiments.data.sources import HUB_FOLDER
from experiments.files import store_errors
from experiments.results import kept
from experiments.results.claims import Claim, ClaimLost
from experiments.results.store import CHECKPOINT, Store

# Kinds that can be removed, and what that costs.
REMOVABLE = {
    "data": "decoded images; decoded again from their source when they are needed",
    "hub": "what came from the Hugging Face hub; fetched again",
    "compiled": "compiled programs; compiled again",
    "checkpoints": "states of trials that are not done, which then begin at step 0",
    "weights": "weights of done trials; to have them again, the trials must be trained again",
    "orphans": "trials of no ablation as it was last run or submitted: whole, done ones and their records too",
    "failed": "trials that failed, whole; a run trains them anew",
    "corrupt": "damaged files that were set aside",
    "temporary": "what killed processes have left half-written",
    "snapshots": "code of jobs that have ended",
}
# Kinds that stay, unless their ablation is named.
STAYING = {
    "results": "records, curves, specs, predictions and first layers",
    "ablations": "what was asked, jobs and their logs, reports",
    "other": "what is none of these",
}
NAMED = "trials-of"  # trials that only a named ablation has, and its folder
YOUNG_S = 3600.0  # what is half-written and younger may still be written
TEMPORARY = re.compile(r"\..*\.tmp|\.heartbeat\..*|\.(new|damaged)-.*|\.[0-9a-f]{16}\.[0-9a-f]{8}|\.writable")
CORRUPT = re.compile(r".*\.corrupt-\d+")
STATES = re.compile(r"(previous-)?" + re.escape(CHECKPOINT) + "|" + kept.SAVED.pattern)


@dataclass(frozen=True)
class Held:
    """The parts of a store that may not be removed, and why."""

    trials: Mapping[str, str] = field(default_factory=dict)  # id -> why
    contents: frozenset[str] = frozenset()  # of decoded images
    snapshots: Mapping[str, str] = field(default_factory=dict)  # name -> why; "" stands for all of them
    ablations: Mapping[str, str] = field(default_factory=dict)  # name -> why


@dataclass(frozen=True)
class Item:
    """A file or a folder that is removed as a whole, or stays."""

    kind: str
    path: Path
    num_bytes: int
    trial: str | None = None  # whose claim its removal needs
    held: str = ""  # why it stays


def items(store: Store, held: Held, listed: Collection[str], named: Mapping[str, Collection[str]]) -> Iterator[Item]:
    """The items of a store, all that it holds.

    Args: known: ids of the trials that an ablation or a submission has.    named: ablation -> trials that it alone has.
    """
    now = clock.now(store.root)
    chosen = {trial_id for trials in named.values() for trial_id in trials}
    for entry in _entries(store.root):
        if entry.name == "trials":
            for trial_id in store.trial_ids():
                whole = NAMED if trial_id in chosen else _whole_kind(store, trial_id, listed)
                yield from _of_trial(store, trial_id, whole, held.trials.get(trial_id, ""), now)
            yield from (_item(one, "other", now) for one in _entries(entry) if not one.is_dir())
        elif entry.name == "data":
            yield from (_of_data(one, held, now) for one in _entries(entry))
        elif entry.name == "compiled":
            yield Item("compiled", entry, size(entry), held=_any(held.trials))
        elif entry.name == "snapshots":
            yield from (_of_snapshots(one, held, now) for one in _entries(entry))
        elif entry.name == "ablations":
            for one in _entries(entry):
                yield from _of_ablation(one, named.get(one.name), held, now)
        else:
            yield _item(entry, "other", now)


def remove(store: Store, item: Item) -> str:
    """Remove an item, under the claim of its trial if it is one's; returns why it stays, or empty text.

    Raises: StoreError: it cannot be removed.
    """
    if item.held:
        return item.held
    with store_errors(item.path):
        if item.trial is None:
            _remove(item.path)
            return ""
        try:
            claim = Claim(store.folder(item.trial))
        except ClaimLost:
            return f"trial {item.trial} runs now"
        try:
            if item.path != store.folder(item.trial):
                _remove(item.path)
            elif item.kind == "failed" and store.recorded_status(item.trial) != "failed":
                return f"trial {item.trial} was begun again meanwhile"
            else:
                for path in _entries(item.path):
                    if path != claim.path:
                        _remove(path)
        finally:
            claim.release()
    return ""


def size(path: Path) -> int:
    """The bytes of a file, or of all files below a folder; a link counts for itself."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size if path.is_symlink() or path.exists() else 0
    return sum(
        os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118 - of a hundred thousand, in a third of the time
        for folder, _, names in os.walk(path)
        for name in names
        if os.path.lexists(os.path.join(folder, name))  # noqa: PTH118
    )


def _whole_kind(store: Store, trial_id: str, listed: Collection[str]) -> str:
    """The kind of a trial that is removed as a whole; empty of one that is not."""
    if trial_id not in listed:
        return "orphans"
    return "failed" if store.recorded_status(trial_id) == "failed" else ""


def _of_trial(store: Store, trial_id: str, whole: str, held: str, now: float) -> Iterator[Item]:
    folder = store.folder(trial_id)
    if whole:
        yield Item(whole, folder, size(folder), trial_id, held)
        return
    for path in _entries(folder):
        kind = "weights" if path.name == kept.FILE else "checkpoints" if STATES.fullmatch(path.name) else "results"
        item = _item(path, kind, now)
        yield Item(item.kind, path, item.num_bytes, trial_id, held or item.held)


def _of_data(path: Path, held: Held, now: float) -> Item:
    if path.name == HUB_FOLDER:
        return Item("hub", path, size(path), held=_any(held.trials))
    if not (path / "about.json").exists():
        return _item(path, "other", now)  # such as answers that are dear to find, and which commit of the hub was read
    return Item("data", path, size(path), held="a trial that runs or waits needs it" * (path.name in held.contents))


def _of_snapshots(path: Path, held: Held, now: float) -> Item:
    item = _item(path, "snapshots", now)
    if item.kind != "snapshots":
        return item
    return Item("snapshots", path, item.num_bytes, held=held.snapshots.get(path.name, held.snapshots.get("", "")))


def _of_ablation(folder: Path, own: Collection[str] | None, held: Held, now: float) -> Iterator[Item]:
    """The folder of an ablation, without what is half-written or was set aside in it.

    Args: own: the trials that it alone has, where it is named; while one of them runs or waits, it stays.
    """
    if own is not None:
        going_on = _any({key: why for key, why in held.trials.items() if key in own})
        yield Item(NAMED, folder, size(folder), held=held.ablations.get(folder.name, going_on))
        return
    kind = "ablations"
    inner = [Path(place) / name for place, _, names in os.walk(folder) for name in names]
    inside = [_item(path, kind, now) for path in inner]
    yield from (item for item in inside if item.kind != kind)
    yield Item(kind, folder, sum(item.num_bytes for item in inside if item.kind == kind))


def _item(path: Path, kind: str, now: float) -> Item:
    if CORRUPT.fullmatch(path.name):
        return Item("corrupt", path, size(path))
    if TEMPORARY.fullmatch(path.name):
        return Item("temporary", path, size(path), held="" if now - _newest(path) > YOUNG_S else "it is being written")
    return Item(kind, path, size(path))


def _newest(path: Path) -> float:
    paths = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    return max((one.lstat().st_mtime for one in paths if os.path.lexists(one)), default=0.0)


def _any(trials: Mapping[str, str]) -> str:
    return next((f"trial {trial_id} {why}" for trial_id, why in trials.items()), "")


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
