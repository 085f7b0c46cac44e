"""The command `mixlab status`."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from backends.errors import MixlabError
from mixlab.common import add_overrides, add_store, load, store_option

if TYPE_CHECKING:
    from rich.console import Group

    from experiments.results.store import Store
    from slurm.status import Overview

HELP = "Print what is done, running, queued, failed (and why), lost and missing."
EXAMPLE = "mixlab status tying --watch"
WATCH_S = 2.0  # between two looks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument(
        "ablation",
        nargs="?",
        help="its name, as it was last run with this store, or its YAML file (default: all)",
    )
    parser.add_argument("--watch", action="store_true", help="until nothing is on its way, or Ctrl-C")
    add_overrides(parser)


def command(arguments: argparse.Namespace) -> int:
    from analysis.table.layout import aligned
    from analysis.terminal.listing import overview_lines, status_head, status_layout
    from experiments.results.store import Store
    from slurm.status import hints, overview

    store = Store(arguments.store)
    if arguments.ablation is None:
        print(
            "\n".join(
                overview_lines(
                    {name: overview(store, store.ablation_labels(name)).states for name in store.ablations()},
                    store.root,
                )
            )
        )
        return 0
    name, labels = _labels(arguments, store)
    if arguments.watch:
        return _watch(name, labels, store)
    view = overview(store, labels)
    head, rows = status_head(labels, view.states), aligned(status_layout(labels, view.states))
    print("\n".join([*head, *hints(name, view, store_option(store)), "", *rows]))
    return 0


def _labels(arguments: argparse.Namespace, store: "Store") -> tuple[str, dict[str, str]]:
    """The ablation's name, and its trials, id -> what each sets; with those of earlier forms that are not done."""
    from slurm import ledger

    if arguments.ablation.endswith((".yaml", ".yml")):
        arguments.ablation = Path(arguments.ablation)
        _, ablation, trials = load(arguments)
        return ablation.name, {planned.trial.id: planned.label for planned in trials}
    if arguments.overrides:
        raise MixlabError(
            f"command line: {arguments.overrides[0]!r}: overrides need a YAML file, not the name of an ablation"
        )
    labels = store.ablation_labels(arguments.ablation)
    others = ledger.earlier(store, arguments.ablation, labels)
    return arguments.ablation, labels | {one.trial.id: f"{one.label} (of an earlier form)" for one in others}


def _watch(name: str, labels: dict[str, str], store: "Store") -> int:
    """Show the state anew every WATCH_S; without a terminal, a line of totals whenever they change."""
    from rich.console import Console
    from rich.live import Live

    from analysis.terminal.listing import status_totals
    from slurm.status import hints, overview

    console, last = Console(), ""
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            view = overview(store, labels)
            totals = status_totals(labels, view.states)
            if console.is_terminal:
                live.update(_screen(labels, view, hints(name, view, store_option(store)), console.height), refresh=True)
            elif totals != last:
                console.print(totals, highlight=False, soft_wrap=True)
            last = totals
            if not view.live:
                return 0
            time.sleep(WATCH_S)


def _screen(labels: dict[str, str], view: "Overview", advice: list[str], height: int) -> "Group":
    """The screen, as much as fits: the totals; what needs a hand; trials that are not done, running ones first."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from analysis.terminal.listing import status_head, status_layout

    order = ("running", "failed", "lost", "unknown", "cancelled", "queued", "missing", "done")
    by_state = sorted(labels, key=lambda trial_id: order.index(view.states[trial_id].status))
    above = [*map(Text, status_head(labels, view.states)), *map(Text, advice)]
    header, *rows = status_layout({key: labels[key] for key in by_state}, view.states)
    room = max(1, height - 5 - len(above))
    grid = Table(box=None, pad_edge=False)
    for i, title in enumerate(header):  # where there is no room, the settings and the remark give way
        least = 8 if title in ("settings", "") else max(len(row[i]) for row in [header, *rows[:room]])
        grid.add_column(title, no_wrap=True, min_width=least)
    for row in rows[:room]:
        grid.add_row(*map(Text, row))
    more = [Text(f"... and {len(rows) - room} more")] if len(rows) > room else []
    return Group(*above, Text(), grid, *more)
