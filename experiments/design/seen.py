"""A look at test numbers, which counts for each ablation that has one of the trials; see results/unsealed.py."""

import contextlib
from collections.abc import Iterable, Set

from backends.errors import MixlabError
from experiments.design import archive
from experiments.design.possible import contents
from experiments.results import unsealed
from experiments.results.store import Store
from experiments.results.unsealed import Contents


def note(store: Store, trial_ids: Iterable[str]) -> None:
    """Note that test numbers of trials have been shown, as a report of their ablations does.

    Raises: StoreError.
    """
    shown = set(trial_ids)
    for name in store.ablations():
        if grid := _grid(store, name, shown):
            unsealed.note(store, name, grid)


def _grid(store: Store, name: str, shown: Set[str]) -> Contents:
    """The trials of an ablation; none where its table has none of those that are shown, or its file is damaged."""
    with contextlib.suppress(MixlabError):
        ablation, trials = archive.recall(store, name)
        if any(one.trial.id in shown for one in trials if one.in_table):
            return contents(ablation, trials)
    return {}
