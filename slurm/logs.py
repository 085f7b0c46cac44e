"""Logs of jobs and tracebacks of failed trials, read from the store, whether Slurm is there or not."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.results.store import Store
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
        yield "no job was submitted for these trials; a local run writes to its own terminal"


def follow(store: Store, trial_ids: Sequence[str]) -> Iterator[str]:
    """Lines as they are written, until none of the trials is on its way."""
    seen: dict[Path, int] = {}
    while True:
        live = overview(store, trial_ids).live
        places = ledger.places(list(ledger.all_arrays(store)))
        for place in dict.fromkeys(places[key] for key in trial_ids if key in places):
            yield from _new_lines(place, seen)
        if not live:
            return
        time.sleep(FOLLOW_S)


def _new_lines(place: Place, seen: dict[Path, int]) -> Iterator[str]:
    """Whole lines that a job's logs gained since the last look. Args: seen: bytes read of each file."""
    for path in place.array.log_files(place.pack):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            file.seek(seen.get(path, 0))
            whole = file.read().rpartition(b"\n")
            seen[path] = seen.get(path, 0) + len(whole[0] + whole[1])
            for line in whole[0].decode(errors="replace").splitlines():
                yield f"{place.task}: {line}"


def _record_lines(store: Store, trial_id: str) -> Iterator[str]:
    record = store.sound_record(trial_id)
    if record is not None and record["status"] == "failed":
        yield f"== trial {trial_id} failed: {record['reason']}"
        yield from str(record.get("traceback", "")).splitlines()


def _read(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
