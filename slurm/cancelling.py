"""Cancellation of what was submitted. The store notes it first, so that it holds whether Slurm answers or not."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from backends.errors import MixlabError, show_chain
from experiments.results.claims import retract
from experiments.results.store import Store
from slurm import client, ledger
from slurm.ledger import Place
from slurm.status import overview, queued


@dataclass(frozen=True)
class Cancelled:
    """The outcome of a cancellation."""

    trials: tuple[str, ...]  # those that were not before
    jobs: tuple[str, ...]
    silence: str | None  # why Slurm could not be told


def cancel(store: Store, trial_ids: Iterable[str]) -> Cancelled:
    """Cancel trials that are on their way: no job begins them, running ones stop, and jobs without other trials end."""
    places = ledger.places(list(ledger.all_arrays(store)))
    chosen = {key: places[key] for key in trial_ids if key in places and not _has_ended(store, key)}
    live = overview(store, chosen).live
    new = [key for key, place in chosen.items() if key in live and not ledger.is_cancelled(place.array.folder, key)]
    for trial_id, place in chosen.items():
        ledger.cancel(place.array.folder, trial_id)
    jobs: list[str] = []
    try:
        jobs, silence = _end_jobs(store, chosen), None
    except MixlabError as error:
        show_chain(error)
        silence = str(error)
    for trial_id, place in chosen.items():
        if place.task not in jobs and (store.owner(trial_id) or {}).get("job") == place.task:
            retract(store.folder(trial_id))  # its job goes on with the others
    return Cancelled(tuple(new), tuple(jobs), silence)


def _end_jobs(store: Store, chosen: Mapping[str, Place]) -> list[str]:
    """End the jobs whose trials are all over, and the report jobs of submissions whose trials are all over."""
    queue = queued(list(dict.fromkeys(place.array for place in chosen.values())))
    jobs = [
        str(place.task)
        for place in dict.fromkeys(chosen.values())
        if place.task in queue
        and all(_is_over(store, key, place.array.folder) for key in place.array.packs[place.pack])
    ]
    for part in (jobs[i : i + client.NAMES_A_CALL] for i in range(0, len(jobs), client.NAMES_A_CALL)):
        client.cancel(*part)
    for folder in dict.fromkeys(place.array.folder for place in chosen.values()):
        arrays = ledger.arrays(folder)
        if all(_is_over(store, key, folder) for array in arrays for pack in array.packs for key in pack):
            client.cancel(f"--name={ledger.report_name(folder)}")
            for array in arrays:
                if array.job is None:  # sbatch may have taken it before its caller was killed
                    client.cancel(f"--name={array.name}")
    return jobs


def _is_over(store: Store, trial_id: str, folder: Path) -> bool:
    return _has_ended(store, trial_id) or ledger.is_cancelled(folder, trial_id)


def _has_ended(store: Store, trial_id: str) -> bool:
    return store.recorded_status(trial_id) == "done"
