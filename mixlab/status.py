"""The command `mixlab status`."""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from backends.errors import MixlabError, counted
from mixlab.common import add_overrides, add_store, load, store_option

if TYPE_CHECKING:
    from rich.console import Group

    from experiments.design.ablation import Ablation, GridTrial
    from experiments.results.states import Halt
    from experiments.results.store import Store
    from slurm.status import Overview

HELP = "Print what is done, running, queued, failed (and why), lost and missing."
EXAMPLE = "mixlab status tying --watch"
WATCH_S = 2.0  # between two looks
MOST_CHOICES = 10  # that are said to be open


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
        names = store.ablations()
        print(
            "\n".join(
                overview_lines(
                    {name: overview(store, store.ablation_labels(name), _halts(store, name)).states for name in names},
                    store.root,
                )
            )
        )
        return 0
    look = _look_by(arguments, store)
    if arguments.watch:
        return _watch(look, store)
    asked = look()
    view = overview(store, asked.labels, asked.halts)
    head, rows = status_head(asked.labels, view.states), aligned(status_layout(asked.labels, view.states))
    print("\n".join([*head, *asked.waiting, *hints(asked.name, view, store_option(store)), "", *rows]))
    return 0


@dataclass(frozen=True)
class Asked:
    """The ablation that is asked about, as it is now."""

    name: str
    labels: dict[str, str]  # id -> what the trial sets
    waiting: list[str]  # sentences on trials that are not known, since what is tuned is not chosen
    goes_on: bool  # a job is to send those
    halts: dict[str, "Halt"]  # where halving has trials stand


def _look_by(arguments: argparse.Namespace, store: "Store") -> "Callable[[], Asked]":
    """What looks at the ablation anew, whose trials may become more; those of earlier forms that are not done too."""
    from experiments.design import archive

    if arguments.ablation.endswith((".yaml", ".yml")):
        arguments.ablation = Path(arguments.ablation)
        return lambda: _asked(*load(arguments, reports=True)[1:], store)
    if arguments.overrides:
        raise MixlabError(
            f"command line: {arguments.overrides[0]!r}: overrides need a YAML file, not the name of an ablation"
        )
    name = arguments.ablation

    def look() -> Asked:
        from slurm import ledger

        if store.ablation_waiting(name) or store.ablation_halves(name):
            asked = _asked(*archive.recall(store, name), store)
        else:
            asked = Asked(name, store.ablation_labels(name), [], False, {})
        others = ledger.earlier(store, name, asked.labels)
        return replace(
            asked, labels=asked.labels | {one.trial.id: f"{one.label} (of an earlier form)" for one in others}
        )

    return look


def _asked(ablation: "Ablation", trials: "list[GridTrial]", store: "Store") -> Asked:
    from analysis.tuned import choice_text
    from experiments.design import stages, tune
    from experiments.design.choice import num_stuck
    from slurm import following

    halts = stages.halts(ablation, trials, store)
    labels = {planned.trial.id: planned.label for planned in trials}
    # Asked also where all are known now: what the choice has just decided is still to be sent.
    who = following.who_goes_on(store, ablation.name) if ablation.tune else ""
    if not ablation.tune or not (number := tune.num_waiting(ablation, trials)):
        return Asked(ablation.name, labels, [], bool(who), halts)
    choices = [choice for choice in tune.choose(ablation, trials, store) if choice.chosen is None]
    sentences = [choice_text(ablation, choice) for choice in choices[:MOST_CHOICES]]
    if number := number - num_stuck(choices):
        when = who or "run or submit it again when the others have ended"
        wait = "waits" if number == 1 else "wait"
        sentences.append(f"{counted(number, 'trial')} of the table {wait} for a choice; {when}")
    return Asked(ablation.name, labels, sentences, bool(who), halts)


def _halts(store: "Store", name: str) -> "dict[str, Halt]":
    """Where halving has the trials of an ablation stand."""
    from experiments.design import archive, stages

    return stages.halts(*archive.recall(store, name), store) if store.ablation_halves(name) else {}


def _watch(look: "Callable[[], Asked]", store: "Store") -> int:
    """Show the state anew every WATCH_S; without a terminal, a line of totals whenever they change."""
    from rich.console import Console
    from rich.live import Live

    from analysis.terminal.listing import status_totals
    from slurm.status import hints, overview

    console, last = Console(), ""
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            asked = look()
            labels, view = asked.labels, overview(store, asked.labels, asked.halts)
            totals = status_totals(labels, view.states)
            if console.is_terminal:
                advice = [*asked.waiting, *hints(asked.name, view, store_option(store))]
                live.update(_screen(labels, view, advice, console.height), refresh=True)
            elif totals != last:
                console.print(totals, highlight=False, soft_wrap=True)
            last = totals
            if not view.live and not asked.goes_on:
                return 0
            time.sleep(WATCH_S)


def _screen(labels: dict[str, str], view: "Overview", advice: list[str], height: int) -> "Group":
    """The screen, as much as fits: the totals; what needs a hand; trials that are not done, running ones first."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from analysis.terminal.listing import status_head, status_layout

    order = ("running", "failed", "lost", "unknown", "cancelled", "queued", "missing", "paused", "pruned", "done")
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
