"""Weights by the name of the trial that kept them: `trial:ID` where the path of a file is expected."""

from pathlib import Path

from backends.errors import MixlabError
from experiments.results import kept
from experiments.results.store import Store

TRIAL = "trial:"


def path_of(text: str, store: Store) -> Path:
    """The file that a text means: that which a trial has kept, or the path itself.

    Raises: MixlabError: there is no such trial, or it has no weights.
    """
    if not text.startswith(TRIAL):
        return Path(text)
    trial_id = store.find(text.removeprefix(TRIAL))
    path = store.folder(trial_id) / kept.FILE
    if not path.exists():
        raise MixlabError(
            f"store: trial {trial_id} has no weights: it is not done, its run.keep was none, or they were removed"
        )
    return path
