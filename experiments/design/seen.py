"""A look at test numbers, which counts for each ablation that has one of the trials; see results/unsealed.py."""

import contextlib
from collections.abc import Iterable

from backends.errors import MixlabError
from experiments.design import archive
from experiments.design.ablation import GridTrial
from experiments.results import unsealed
from experiments.results.store import Store


def note(store: Store, trial_ids: Iterable[str]) -> None:
    """Note that test numbers of trials have been shown, as a report of their ablations does.

    Raises: StoreError.
    """
    shown = set(trial_ids)
    for name in store.ablations():
        contents = {one.trial.id: one.trial.info.content for one in _trials(store, name) if not one.tunes}
        if shown & contents.keys():
            unsealed.note(store, name, contents)


def _trials(store: Store, name: str) -> list[GridTrial]:
    """The trials of an ablation; none where its file is damaged."""
    with contextlib.suppress(MixlabError):
        return archive.recall(store, name)[1]
    return []
