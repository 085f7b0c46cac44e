"""What jobs have written, and what ended trials: read from the store, whether Slurm is there or not."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.store import Store
from slurm import ledger
from slurm.ledger import Place
from slurm.status import overview

TAIL = 20  # lines of each job, where there are several
FOLLOW_S = 1.0


def lines(store: Store, trial_ids: Sequence[str], whole: bool) -> Iterator[str]:
    """The logs of the jobs that trials were last given to, and the tracebacks of those that failed."""
    places = ledger.places(list(ledger.all_arrays(store)))
    for trial_id in trial_ids:
        yield from _record_lines(store, trial_id)
    for place in dict.fromkeys(places[key] for key in trial_ids if key in places):
        for path in place.array.log_files(place.pack):
            text = _read(path)
            if not text:
                continue
            yield f"== job {place.task}: {path}"
            yield from text if whole else text[-TAIL:]
    if not any(key in places for key in trial_ids):
        yield "no job was submitted for this; a local run writes to its own terminal"


def follow(store: Store, trial_ids: Sequence[str]) -> Iterator[str]:
    """Lines as they are written, until none of the trials is on its way."""
    seen: dict[Path, int] = {}
    while True:
        states = overview(store, trial_ids).states
        places = ledger.places(list(ledger.all_arrays(store)))
        for place in dict.fromkeys(places[key] for key in trial_ids if key in places):
            yield from _new_lines(place, seen)
        if not any(now.status in ("running", "queued", "unknown") for now in states.values()):
            return
        time.sleep(FOLLOW_S)


def _new_lines(place: Place, seen: dict[Path, int]) -> Iterator[str]:
    for path in place.array.log_files(place.pack):
        text = _read(path)
        for line in text[seen.get(path, 0) :]:
            yield f"{place.task}: {line}"
        seen[path] = len(text)


def _record_lines(store: Store, trial_id: str) -> Iterator[str]:
    record = store.record(trial_id)
    if record is not None and record["status"] == "failed":
        yield f"== trial {trial_id} failed: {record['reason']}"
        yield from str(record.get("traceback", "")).splitlines()


def _read(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
