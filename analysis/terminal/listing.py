"""Lists for the terminal: of trials a status; of a store what it takes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis.table.layout import aligned
from backends.errors import counted
from experiments.design.apart import apart, shared
from experiments.results import cleaning
from experiments.results.cleaning import Item
from experiments.results.metrics import STARVED
from experiments.results.states import STATUSES, TrialState

MIB = 2**20


def status_layout(labels: Mapping[str, str], states: Mapping[str, TrialState]) -> list[list[str]]:
    """A row a trial, below a header: what is known of it now, without columns and settings that say nothing here.

    These are the columns that are empty for all trials, and the settings that all of them have.
    """
    told = apart(labels)
    rows = [["id", "state", "settings", "step", "loss", "images/s", "devices", "data", "job", "node", "time left", ""]]
    for trial_id in labels:
        now = states[trial_id]
        step = f"{now.said['step']}/{now.said['steps']}" if {"step", "steps"} <= now.said.keys() else ""
        loss = f"{now.said['loss']:.4f}" if "loss" in now.said else ""
        speed = f"{now.said['images_per_s']:,.0f}" if "images_per_s" in now.said else ""
        waiting = now.said.get("waiting", 0.0)
        starved = f"waiting {waiting:.0%}" if now.status == "running" and waiting > STARVED else ""
        devices = str(now.said.get("devices", ""))
        place = (now.job, now.node, now.left)
        row = [trial_id, now.status, told[trial_id], step, loss, speed, devices, starved, *place, now.why]
        rows.append(row)
    kept = [i for i in range(len(rows[0])) if i < 3 or any(row[i] for row in rows[1:])]
    return [[row[i] for i in kept] for row in rows]


def status_head(labels: Mapping[str, str], states: Mapping[str, TrialState]) -> list[str]:
    """The totals, and the settings that all trials have, which no row repeats."""
    common = shared(labels)
    return [status_totals(labels, states), *([f"all have {' '.join(common)}"] if common else [])]


def status_totals(labels: Mapping[str, str], states: Mapping[str, TrialState]) -> str:
    return totals([states[trial_id].status for trial_id in labels])


def overview_lines(states: Mapping[str, Mapping[str, TrialState]], root: Path) -> list[str]:
    """A line for each ablation of a store: how many of its trials are in each state that occurs."""
    counts = {name: Counter(now.status for now in trials.values()) for name, trials in states.items()}
    seen = [status for status in STATUSES if status in STATUSES[:4] or any(count[status] for count in counts.values())]
    layout = [[name, *(str(count[status]) for status in seen)] for name, count in counts.items()]
    return aligned([["ablation", *seen], *layout]) if layout else [f"no ablation has been run with the store {root}"]


def kinds_lines(items: Sequence[Item]) -> list[str]:
    """A line for each kind of what a store holds, and the sum."""
    rows = [["kind", "items", "MiB", "held MiB", "what it is"]]
    for kind, what in {**cleaning.REMOVABLE, **cleaning.STAYING}.items():
        own = [item for item in items if item.kind == kind]
        held = sum(item.num_bytes for item in own if item.held)
        staying = "" if kind in cleaning.REMOVABLE else " (stays)"
        rows.append([kind, f"{len(own):,}", mib(own), f"{held / MIB:,.2f}" if held else "", f"{what}{staying}"])
    rows.append(["all", f"{len(items):,}", mib(items), "", ""])
    return [*aligned(rows), "", "nothing was removed; mixlab clean --remove KIND ... removes"]


def mib(items: Sequence[Item]) -> str:
    """The size of items together, in MiB."""
    return f"{sum(item.num_bytes for item in items) / MIB:,.2f}"


def totals(states: Sequence[str]) -> str:
    """`24 trials: 6 done, 18 missing`."""
    counts = Counter(states)
    told = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    return f"{counted(len(states), 'trial')}: {told}"
