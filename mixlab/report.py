"""`mixlab report`."""

import argparse
from pathlib import Path

from backends.errors import MixlabError
from mixlab.common import add_overrides, add_store, load, table

HELP = "Print an ablation's table: mean, standard deviation and n over seeds."
FORMATS = {"text": "txt", "csv": "csv", "markdown": "md", "json": "json"}  # and the ending of a file of it
EXAMPLE = "mixlab report experiments/ablations/tying.yaml --format markdown"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("ablation", help="its YAML file, or its name, as it was last run or submitted")
    add_overrides(parser)
    parser.add_argument("--format", choices=tuple(FORMATS), default="text", help="(default: text)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write the table there in every format")


def command(arguments: argparse.Namespace) -> int:
    from experiments import archive
    from experiments.files import write_whole
    from experiments.store import Store

    if arguments.ablation.endswith((".yaml", ".yml")):
        arguments.ablation = Path(arguments.ablation)
        store, ablation, trials = load(arguments)
    elif arguments.ablation.endswith(".json"):
        store = Store(arguments.store)
        ablation, trials = archive.read(Path(arguments.ablation))
    elif arguments.overrides:
        raise MixlabError(f"command line: {arguments.overrides[0]!r}: overrides go with a YAML file, not with a name")
    else:
        store = Store(arguments.store)
        ablation, trials = archive.recall(store, arguments.ablation)
    if arguments.out is None:
        print(table(ablation, trials, store, arguments.format), end="")
        return 0
    for style, ending in FORMATS.items():
        write_whole(arguments.out / f"table.{ending}", table(ablation, trials, store, style).encode())
    print(f"wrote {', '.join(str(arguments.out / f'table.{ending}') for ending in FORMATS.values())}")
    return 0
