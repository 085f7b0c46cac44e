"""Kept weights of trials that others begin from: `trial:<id>/last` or `trial:<id>/best`."""

import json

from backends.errors import MixlabError
from experiments.results import checkpoint, kept
from experiments.results.store import Store
from experiments.spec.trial import Start, Trial, trial_from_json

TRIAL = "trial"


def name_of(trial_id: str, which: str) -> str:
    """The name of a trial's kept weights. Args: which: of WHICH."""
    return f"{TRIAL}:{trial_id}/{which}"


def will_keep(trial: Trial) -> str | None:
    """Which weights a trial keeps when it is done, last or best; None: it keeps none. See trial_run.py."""
    if trial.run.keep == "none":
        return None
    return "best" if trial.run.keep == "best" and trial.info.num_validation else "last"


def stored(store: Store, trial_id: str) -> Trial:
    """The trial of an id, by the store. Raises: MixlabError: its spec cannot be read."""
    path = store.folder(trial_id) / "spec.json"
    try:
        return trial_from_json(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MixlabError(
            f"store: {path} cannot be read as a trial's spec ({error}); run trial {trial_id} again"
        ) from error


def of_trial(store: Store, trial_id: str, which: str | None = None) -> Start:
    """The kept weights of a trial that is done.

    Args:   which: last or best; None: those that it has kept.
    Raises: MixlabError: it is not done, or keeps none, or the other ones.
    """
    if why := why_not(store, trial_id, which):
        raise MixlabError(why)
    about = checkpoint.read_progress(store.folder(trial_id) / kept.FILE)
    return Start(name_of(trial_id, str(about["kept"])), stored(store, trial_id).model)


def why_never(trial: Trial, store: Store) -> str:
    """A sentence on why a trial cannot begin, although its start is done; empty: it can, or is done."""
    start_id, which = trial.start_id, (trial.train.init_from or "").partition("/")[2]
    if start_id is None or store.recorded_status(start_id) != "done" or store.recorded_status(trial.id) == "done":
        return ""
    return why_not(store, start_id, which)


def why_not(store: Store, trial_id: str, which: str | None = None) -> str:
    """A sentence on why nothing can begin from a trial's weights now; empty: something can. Args: of of_trial."""
    record = store.sound_record(trial_id)
    if record is None:
        return f"trial {trial_id} is not done; run it first"
    if record["status"] != "done":
        return f"trial {trial_id} has failed: {record['reason']}"
    folder = store.folder(trial_id)
    try:
        found = checkpoint.read_progress(folder / kept.FILE).get("kept")
    except FileNotFoundError:
        asked = record["spec"]["run"].get("keep")
        why = {"none": "run.keep was none", None: "an earlier version of Mixlab kept none"}
        gone = why.get(asked, "they were removed, or could not be kept")
        return f"trial {trial_id} has no weights: {gone}; remove {folder} and run it again, with run.keep last or best"
    except checkpoint.CorruptCheckpoint as error:
        return f"trial {trial_id}: {folder / kept.FILE} is damaged: {error}; remove {folder} and run it again"
    if which and found != which:
        return (
            f"trial {trial_id} has kept its {found} weights, expected {which}; set run.keep of what begins from it to "
            f"{found}, or remove {folder} and run it again"
        )
    return ""
