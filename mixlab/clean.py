"""The command `mixlab clean`."""

import argparse
from collections import Counter
from typing import TYPE_CHECKING

from backends.errors import MixlabError, choices
from mixlab.common import add_store

if TYPE_CHECKING:
    from experiments.results.cleaning import Item
    from experiments.results.store import Store

HELP = "Print what a store takes, by kind; remove what is named, and nothing that a trial or a job holds."
EXAMPLE = "mixlab clean --remove data compiled"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument(
        "--remove",
        nargs="+",
        default=[],
        metavar="KIND",
        help="kinds to remove, of those that are listed without this option; without a question",
    )
    parser.add_argument(
        "--trials-of",
        nargs="+",
        default=[],
        metavar="NAME",
        help="ablations to remove, with the trials and records that no other ablation has",
    )


def command(arguments: argparse.Namespace) -> int:
    from analysis.terminal.listing import kinds_lines
    from experiments.results import cleaning
    from experiments.results.store import Store
    from slurm.holding import held, trials_by_ablation, trials_of_these_alone

    store = Store(arguments.store)
    store.check_folder()
    if not store.root.is_dir():
        raise MixlabError(f"command line: --store: there is no folder {store.root}")
    for kind in arguments.remove:
        if kind not in cleaning.REMOVABLE:
            raise MixlabError(
                f"command line: --remove: expected a kind that can be removed, got {kind!r}; "
                f"{choices(kind, cleaning.REMOVABLE)}"
            )
    trials, damaged = trials_by_ablation(store)
    named = trials_of_these_alone(arguments.trials_of, trials, damaged)
    kept, silence = held(store)
    items = list(cleaning.items(store, kept, set().union(*trials.values()), named))
    for why in damaged.values():
        print(f"mixlab: {why}; until then every trial counts as one of an ablation, and stays")
    if silence:
        print(f"mixlab: {silence}; everything that its jobs may need stays")
    if not (arguments.remove or named):
        print("\n".join(kinds_lines(items)))
        return 0
    kinds = {*arguments.remove, *([cleaning.NAMED] if named else [])}
    _remove(store, [item for item in items if item.kind in kinds])
    return 0


def _remove(store: "Store", chosen: "list[Item]") -> None:
    """Remove items; print each that went, and the number of those that stay, by reason."""
    from analysis.terminal.listing import mib
    from experiments.results import cleaning

    gone: list[Item] = []
    stayed = Counter[str]()
    for item in chosen:
        if why := cleaning.remove(store, item):
            stayed[f"{item.kind}: {why}"] += 1
        else:
            gone.append(item)
            print(f"removed {item.kind}: {item.path} ({mib([item])} MiB)")
    for why, number in stayed.items():
        print(f"kept {number} of {why}")
    print(f"{len(gone):,} removed, {mib(gone)} MiB" if gone else "nothing was removed")
