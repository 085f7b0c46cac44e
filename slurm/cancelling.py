"""Ending what was submitted. It is noted in the store first, so that it holds whether Slurm answers or not."""

from collections.abc import Iterable
from dataclasses import dataclass

from backends.errors import MixlabError
from experiments.claims import retract
from experiments.store import Store
from slurm import client, ledger
from slurm.status import queued


@dataclass(frozen=True)
class Cancelled:
    """What was cancelled."""

    trials: tuple[str, ...]
    jobs: tuple[str, ...]
    silence: str | None  # why Slurm could not be told; jobs end by themselves when they begin


def cancel(store: Store, trial_ids: Iterable[str]) -> Cancelled:
    """Cancel trials that are on their way: none of them is begun any more, and jobs that hold no other end."""
    places = ledger.places(list(ledger.all_arrays(store)))
    live = {key: places[key] for key in trial_ids if key in places and places[key].array.state in ledger.OPEN}
    live = {key: place for key, place in live.items() if not _is_over(store, key, place)}
    for trial_id, place in live.items():
        ledger.cancel(place.array.folder, trial_id)
    jobs, silence = [], None
    try:
        waiting = queued(list(dict.fromkeys(place.array for place in live.values())))
        for place in dict.fromkeys(live.values()):
            others = [key for key in place.array.packs[place.pack] if key not in live]
            others = [key for key in others if not _is_over(store, key, place)]
            if place.task in waiting and not others:
                jobs.append(str(place.task))
        _cancel_jobs(jobs)
        for folder in dict.fromkeys(place.array.folder for place in live.values()):
            packs = [pack for array in ledger.arrays(folder) for pack in array.packs]
            if all(
                _is_over(store, key, places[key])
                for pack in packs
                for key in pack
                if places[key].array.folder == folder
            ):
                client.cancel(f"--name={ledger.report_name(folder)}")  # there is nothing to report
    except MixlabError as error:
        silence = str(error)
    for trial_id, place in live.items():
        if place.task not in jobs and (store.owner(trial_id) or {}).get("job") == place.task:
            retract(store.folder(trial_id))  # its job goes on with the others
    return Cancelled(tuple(live), tuple(jobs), silence)


def _cancel_jobs(jobs: list[str]) -> None:
    for part in (jobs[i : i + client.NAMES_A_CALL] for i in range(0, len(jobs), client.NAMES_A_CALL)):
        client.cancel(*part)


def _is_over(store: Store, trial_id: str, place: ledger.Place) -> bool:
    return _has_ended(store, trial_id) or ledger.is_cancelled(place.array.folder, trial_id)


def _has_ended(store: Store, trial_id: str) -> bool:
    try:
        return store.record(trial_id) is not None
    except MixlabError:
        return False
