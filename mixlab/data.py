"""The commands `mixlab data show` and `mixlab data prepare`."""

import argparse
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from backends.errors import MixlabError, show_chain
from mixlab import preparation
from mixlab.common import add_store, store_option

if TYPE_CHECKING:
    from experiments.data.contents import Contents
    from experiments.results.store import Store
    from experiments.spec.config import DataConfig

HELP = "Print what a source of data holds, or prepare it before trials are planned."
EXAMPLE = "mixlab data show path/to/images --sheet images.png"
ENDS = 10  # classes shown at each end where there are many


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    show = actions.add_parser("show", help="print splits, classes in order with counts, images, and what was ignored")
    add_store(show)
    show.add_argument(
        "overrides", nargs="*", default=[], metavar="DATA", help="the source, and fields of it as data.<field>=value"
    )
    show.add_argument("--sheet", type=Path, metavar="PNG", help="write the first 8 training images of each class there")
    show.add_argument("--check", action="store_true", help="read all of prepared data, and hold it against its hashes")
    show.add_argument("--all", action="store_true", help=f"list all classes, not the first and last {ENDS}")
    prepare = actions.add_parser("prepare", help="decode data into a folder that trials read, or into the data cache")
    add_store(prepare)
    preparation.add_arguments(prepare)


def command(arguments: argparse.Namespace) -> int:
    return _show(arguments) if arguments.action == "show" else preparation.command(arguments)


def _show(arguments: argparse.Namespace) -> int:
    from experiments import evaluation
    from experiments.data.contents import contents
    from experiments.design.ablation import COMMAND_LINE
    from experiments.results.store import Store

    store = Store(arguments.store)
    store.check_folder()
    config = evaluation.read_data(arguments.overrides)
    checked = [_checked(config.source)] if arguments.check else []
    source = contents(config, store.data, COMMAND_LINE)
    print("\n".join(_lines(config.source, source, arguments.all)))
    try:
        notes = _decoded(config, store, arguments.overrides, arguments.sheet)
    except MixlabError as error:
        if arguments.sheet:
            raise
        show_chain(error)
        notes = [f"a trial cannot use it yet: {error}"]
    for note in dict.fromkeys([*checked, *source.notes, *notes]):
        print(f"note        {note}")
    return 0


def _checked(source: str) -> str:
    """A sentence on prepared data that is whole.  Raises: MixlabError: it is none, or has changed."""
    from experiments.data import prepared, verifying
    from experiments.design.ablation import COMMAND_LINE

    held = prepared.find(source, COMMAND_LINE)
    if held is None:
        raise MixlabError(
            f"{COMMAND_LINE}: --check: {source!r} is no prepared data, which alone has hashes of its images"
        )
    return verifying.check(held)


def _lines(source: str, content: "Contents", show_all: bool) -> list[str]:
    from analysis.table.layout import aligned

    parts = [f"{split.name} {split.counts.sum() + split.others:,}" for split in content.splits]
    tested = f"tested on {content.test}" if content.test else "test examples are cut from it"
    images = sum((split.images for split in content.splits), Counter())
    sizes = [f"{number:,} of {' '.join(kind).strip()}" for kind, number in images.most_common(ENDS)]
    rows = [["number", "class", *(split.name for split in content.splits)]]
    for number, name in enumerate(content.classes):
        rows.append([str(number), name, *(f"{split.counts[number]:,}" for split in content.splits)])
    if any(split.others for split in content.splits):
        rows.append(["", "(no class of the training split)", *(f"{split.others:,}" for split in content.splits)])
    table = aligned(rows)
    if len(content.classes) > 2 * ENDS + 1 and not show_all:
        left = len(content.classes) - 2 * ENDS
        table[2 + ENDS : 2 + len(content.classes) - ENDS] = [f"... {left:,} more; --all lists them"]
    return [
        f"source      {source}",
        f"kind        {content.kind}",
        *(f"{name:<12}{line}" for name, line in zip(("prepared", "made with"), content.form, strict=False)),
        f"splits      {', '.join(parts)}; trained on {content.train}, {tested}",
        f"images      {', '.join(sizes)}{f' and {len(images) - ENDS:,} other sizes' if len(images) > ENDS else ''}",
        f"classes     {len(content.classes):,}, in this order",
        "",
        *table,
        "",
    ]


def _decoded(config: "DataConfig", store: "Store", given: list[str], sheet: Path | None) -> list[str]:
    """Decode the images as for a trial, write the sheet, and return notes on the pixels."""
    from analysis.figures import contact_sheet
    from experiments import data
    from experiments.design.ablation import COMMAND_LINE

    try:
        info = data.describe(config, store.data, COMMAND_LINE, data.Purpose.PLANNING)
    except data.NotPrepared as error:
        words = shlex.join(["mixlab", "data", "prepare", *given])
        raise error.prepared_by(f"{words}{store_option(store)}") from error
    if sheet:
        splits, facts = data.load(config, info, store.data), data.facts(config, info, store.data)
        train = splits.about.num_train
        contact_sheet.write(sheet, splits.images, splits.labels[:train], facts.classes)
    return data.notes(config, info, store.data)
