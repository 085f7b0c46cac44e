"""Weights of trials, by what stands where the path of a file is expected: `trial:ID`, or the trial's folder."""

import json
from pathlib import Path

from backends.errors import MixlabError
from experiments.results import kept
from experiments.results.store import Store
from experiments.spec.trial import Trial, trial_from_json

TRIAL = "trial:"  # in front of the first digits of a trial's id
SPEC = "spec.json"


def find(word: str, store: Store) -> Path:
    """The file of weights that a word means: a path, a trial's folder, or `trial:` and the beginning of its id.

    Raises: MixlabError: there is no such trial, or it kept no weights.
    """
    folder = Path(word)
    if word.startswith(TRIAL):
        store.check_folder()
        folder = store.folder(store.find(word.removeprefix(TRIAL)))
    elif not (folder / SPEC).is_file():
        return folder
    if (folder / kept.FILE).is_file():
        return folder / kept.FILE
    raise MixlabError(
        f"{folder}: the trial has no {kept.FILE}: it is not done, or run.keep was none; run.keep=last keeps its weights"
    )


def trial_of(path: Path) -> Trial | None:
    """The trial whose folder a file of weights lies in; None: it lies elsewhere.

    Raises: MixlabError: a file of that name lies beside it, and is of no trial.
    """
    spec = path.with_name(SPEC)
    if not spec.is_file():
        return None
    try:
        return trial_from_json(json.loads(spec.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MixlabError(
            f"{spec}: it cannot be read as a trial's spec ({error}), and lies beside {path.name}; move one of them"
        ) from error
