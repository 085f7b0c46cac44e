"""`mixlab status`."""

import argparse
from pathlib import Path

from backends.errors import MixlabError
from mixlab.common import add_overrides, add_store, load

HELP = "Say what is done, running, failed (and why) and missing."
EXAMPLE = "mixlab status tying"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument(
        "ablation",
        nargs="?",
        help="its name, as it was last run with this store, or its YAML file (default: all)",
    )
    add_overrides(parser)


def command(arguments: argparse.Namespace) -> int:
    from analysis.listing import overview_lines, status_lines
    from experiments.store import Store

    store = Store(arguments.store)
    if arguments.ablation is None:
        print("\n".join(overview_lines(store)))
        return 0
    if arguments.ablation.endswith((".yaml", ".yml")):
        arguments.ablation = Path(arguments.ablation)
        _, _, trials = load(arguments)
        labels = {planned.trial.id: planned.label for planned in trials}
    elif arguments.overrides:
        raise MixlabError(f"command line: {arguments.overrides[0]!r}: overrides go with a YAML file, not with a name")
    else:
        labels = store.ablation_labels(arguments.ablation)
    print("\n".join(status_lines(labels, store)))
    return 0
