"""`mixlab clean`."""

import argparse
from collections import Counter
from typing import TYPE_CHECKING

from backends.errors import MixlabError, choices
from mixlab.common import add_store

if TYPE_CHECKING:
    from experiments.cleaning import Item
    from experiments.store import Store

HELP = "Say what a store takes, by kind; remove what is named, and nothing that a trial or a job holds."
EXAMPLE = "mixlab clean --remove data compiled"
MIB = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument(
        "--remove",
        nargs="+",
        default=[],
        metavar="KIND",
        help="kinds to remove, of those that are listed without this option; it asks nothing",
    )
    parser.add_argument(
        "--trials-of",
        nargs="+",
        default=[],
        metavar="NAME",
        help="ablations to remove, with the trials, records too, that they alone have",
    )


def command(arguments: argparse.Namespace) -> int:
    from experiments import cleaning
    from experiments.store import Store
    from slurm.holding import held

    store = Store(arguments.store)
    store.check_folder()
    if not store.root.is_dir():
        raise MixlabError(f"command line: --store: there is no folder {store.root}")
    for kind in arguments.remove:
        if kind not in cleaning.REMOVABLE:
            raise MixlabError(
                f"command line: --remove: {kind!r} is no kind that can be removed; {choices(kind, cleaning.REMOVABLE)}"
            )
    trials, damaged = _trials(store)
    named = _named(arguments.trials_of, trials, damaged)
    kept, silence = held(store)
    found = list(cleaning.items(store, kept, set().union(*trials.values()), named))
    for why in damaged.values():
        print(f"mixlab: {why}; until then no trial counts as one of no ablation")
    if silence:
        print(f"mixlab: {silence}; what its jobs may need stays")
    if not (arguments.remove or named):
        print("\n".join(_lines(found)))
        return 0
    kinds = {*arguments.remove, *([cleaning.NAMED] if named else [])}
    _remove(store, [item for item in found if item.kind in kinds])
    return 0


def _trials(store: "Store") -> tuple[dict[str, set[str]], dict[str, MixlabError]]:
    """Ids of the trials of each ablation, those that were only submitted in an earlier form too.

    An ablation whose file is damaged may have any trial; the second mapping says so of it.
    """
    from slurm import ledger

    found, damaged = dict[str, set[str]](), dict[str, MixlabError]()
    for name in store.ablations():
        try:
            found[name] = set(store.ablation_labels(name))
        except MixlabError as error:
            found[name], damaged[name] = set(store.trial_ids()), error
    for folder in ledger.submissions(store):
        sent = {key for array in ledger.arrays(folder) for pack in array.packs for key in pack}
        found.setdefault(folder.parent.parent.name, set()).update(sent)
    return found, damaged


def _named(names: list[str], trials: dict[str, set[str]], damaged: dict[str, MixlabError]) -> dict[str, set[str]]:
    """The trials that the named ablations have, and no other one that stays."""
    for name in names:
        if name in damaged:
            raise damaged[name]
        if name not in trials:
            raise MixlabError(f"command line: --trials-of: there is no ablation {name!r}; {choices(name, trials)}")
    staying = set().union(*(trials[name] for name in trials if name not in names))
    return {name: trials[name] - staying for name in names}


def _lines(found: "list[Item]") -> list[str]:
    """A line a kind, and the sum."""
    from analysis.layout import aligned
    from experiments import cleaning

    rows = [["kind", "items", "MiB", "held MiB", "what it is"]]
    for kind, what in {**cleaning.REMOVABLE, **cleaning.STAYING}.items():
        own = [item for item in found if item.kind == kind]
        held = sum(item.num_bytes for item in own if item.held)
        staying = "" if kind in cleaning.REMOVABLE else " (stays)"
        rows.append([kind, f"{len(own):,}", _mib(own), f"{held / MIB:,.2f}" if held else "", f"{what}{staying}"])
    rows.append(["all", f"{len(found):,}", _mib(found), "", ""])
    return [*aligned(rows), "", "mixlab clean --remove KIND ... removes; nothing was removed"]


def _mib(items: "list[Item]") -> str:
    return f"{sum(item.num_bytes for item in items) / MIB:,.2f}"


def _remove(store: "Store", chosen: "list[Item]") -> None:
    """Remove, and print each item that went, and how many stay, by why."""
    from experiments import cleaning

    gone: list[Item] = []
    stayed = Counter[str]()
    for item in chosen:
        if why := cleaning.remove(store, item):
            stayed[f"{item.kind}: {why}"] += 1
        else:
            gone.append(item)
            print(f"removed {item.kind}: {item.path} ({item.num_bytes / MIB:,.2f} MiB)")
    for why, number in stayed.items():
        print(f"kept {number} of {why}")
    print(f"{len(gone):,} removed, {_mib(gone)} MiB" if gone else "nothing was removed")
