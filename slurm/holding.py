"""Parts of a store that jobs, running trials and ablations hold, which cleaning.py therefore does not remove."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from backends.errors import MixlabError, choices, show_chain
from experiments.results import claims
from experiments.results.cleaning import Held
from experiments.results.store import Store
from slurm import client, following, ledger
from slurm.status import GOING_ON, overview
from slurm.submission import LOCK

RUNS, WAITS, UNKNOWN = "runs now", "waits in the queue", "may be on its way: Slurm does not answer"


def held(store: Store) -> tuple[Held, str | None]:
    """The parts that are held now; if Slurm does not answer, a sentence, and all that its jobs may need is held."""
    arrays = list(ledger.all_arrays(store))
    sent = dict.fromkeys(key for array in arrays for pack in array.packs for key in pack)
    view = overview(store, sent)
    trials = {key: RUNS for key in store.trial_ids() if store.owner(key) is not None}
    words = {"running": RUNS, "queued": WAITS, "unknown": UNKNOWN}
    trials |= {key: words[now.status] for key, now in view.states.items() if now.status in GOING_ON}
    next_ones = [folder for folder in ledger.submissions(store) if following.is_sent(folder, is_over=True)]
    folders, silence = _live_submissions(arrays, next_ones, view.silence)
    snapshots = {Path(str(about["snapshot"])).name: why for about, why in _abouts(folders) if "snapshot" in about}
    if claims.owner(store.root / LOCK) is not None:
        snapshots[""] = "somebody is submitting now"
    ablations = {folder.parent.parent.name: why for folder, why in folders.items()}
    return Held(trials, frozenset(_contents(store, trials, arrays)), snapshots, ablations), silence


def trials_by_ablation(store: Store) -> tuple[dict[str, set[str]], dict[str, MixlabError]]:
    """Ids of the trials of each ablation, those that were only submitted in an earlier form too.

    An ablation whose file is damaged may have any trial; the second mapping has the error of each.
    """
    ids, damaged = dict[str, set[str]](), dict[str, MixlabError]()
    for name in store.ablations():
        try:
            ids[name] = set(store.ablation_labels(name))
        except MixlabError as error:
            ids[name], damaged[name] = set(store.trial_ids()), error
    for folder in ledger.submissions(store):
        sent = {key for array in ledger.arrays(folder) for pack in array.packs for key in pack}
        ids.setdefault(folder.parent.parent.name, set()).update(sent)
    return ids, damaged


def trials_of_these_alone(
    names: list[str], trials: dict[str, set[str]], damaged: dict[str, MixlabError]
) -> dict[str, set[str]]:
    """The trials that the named ablations have, and no other one that stays.

    Args:   trials, damaged: of `trials_by_ablation`.
    Raises: MixlabError: there is no such ablation, or its file is damaged.
    """
    for name in names:
        if name in damaged:
            raise damaged[name]
        if name not in trials:
            raise MixlabError(f"command line: --trials-of: there is no ablation {name!r}; {choices(name, trials)}")
    staying = set().union(*(trials[name] for name in trials if name not in names))
    return {name: trials[name] - staying for name in names}


def _live_submissions(
    arrays: Collection[ledger.Array], next_ones: Collection[Path], silence: str | None
) -> tuple[dict[Path, str], str | None]:
    """Folders of submissions of which a job may still begin or runs, and why.

    Args: next_ones: those that have sent the job of following.NextJob.
    """
    asked = [array for array in arrays if array.is_asked]
    names = {array.name: array.folder for array in asked}
    names |= {ledger.report_name(array.folder): array.folder for array in asked}
    names |= {ledger.next_name(folder): folder for folder in next_ones}
    live = {array.folder: "is being submitted" for array in asked if array.state == "intended"}
    try:
        jobs = client.queue(names) if names and silence is None else []
    except MixlabError as error:
        show_chain(error)
        silence = str(error)
    if silence is not None:
        return live | dict.fromkeys((*(array.folder for array in asked), *next_ones), UNKNOWN), silence
    return live | {names[job.name]: "has jobs in the queue" for job in jobs if job.name in names}, None


def _abouts(folders: Mapping[Path, str]) -> Iterator[tuple[dict[str, Any], str]]:
    for folder, why in folders.items():
        yield ledger.read(folder / "report.json") or {}, f"a submission {why}"


def _contents(store: Store, trials: Collection[str], arrays: Collection[ledger.Array]) -> Iterator[str]:
    """Names of the decoded data that trials need: all, while one is claimed and has not yet written what it is."""
    packs = {(array, index) for array in arrays for index, pack in enumerate(array.packs) if set(pack) & set(trials)}
    begun = {key: ledger.read(store.folder(key) / "spec.json") for key in trials}
    specs = [spec for spec in begun.values() if spec]
    for array, index in packs:
        work = ledger.read(array.pack_file(index)) or {}
        specs += [one["spec"] for one in work.get("trials", ())]
    for spec in specs:
        yield str(spec.get("info", {}).get("content"))
    sent = {key for array, index in packs for key in array.packs[index]}
    if any(spec is None and key not in sent for key, spec in begun.items()):
        yield from (path.parent.name for path in store.data.glob("*/about.json"))
