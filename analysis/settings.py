"""Settings, as a table tests them. The frameworks that train one setting are one experiment done several times."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pandas as pd

from analysis.inference import Paired, holm, paired
from analysis.labels import Label, baseline_of, keys, labels, value_text
from experiments.design.ablation import Ablation

FRAMEWORK = "backend"
BySeed = Mapping[Any, float]  # a metric by seed


@dataclass(frozen=True, eq=False)
class Compared:
    """A cell beside its baseline."""

    setting: Label  # of setting_of
    framework: str  # empty where the table does not tell them apart
    baseline: BySeed
    own: BySeed
    difference: float  # of the means

    @property
    def num_pairs(self) -> int:
        return len(self.baseline.keys() & self.own.keys())


@dataclass(frozen=True)
class Tested:
    """A setting against its baseline."""

    paired: Paired
    frameworks: tuple[str, ...]  # that the differences of a seed are averaged over
    p_holm: float  # corrected for the number of settings that are tested


def setting_of(names: Sequence[str], label: Label, baseline: Label) -> Label:
    """The cell without its framework; the whole cell where its framework alone sets it apart from its baseline.

    Args: names: the fields of the table.
    """
    rest = [place for place, name in enumerate(names) if name != FRAMEWORK]
    if all(label[place] == baseline[place] for place in rest):
        return label
    return tuple(label[place] for place in rest)


def tests(cells: Sequence[Compared], interval: str) -> dict[Label, Tested]:
    """The test of each setting, with Holm's correction over all of them.

    A seed's difference is the mean over the frameworks that have the seed on both sides, so that a copy of a column, or
    of a part of it, changes no test, and a seed that one framework lacks is not lost. Where no seed has a pair on any
    framework, the difference is the mean of those of the means.
    """
    groups: dict[Label, list[Compared]] = {}
    for cell in cells:
        groups.setdefault(cell.setting, []).append(cell)
    pooled = {setting: _together(group, interval) for setting, group in groups.items()}
    corrected = holm([one.p for one, _ in pooled.values()])
    return {
        setting: Tested(one, frameworks, p)
        for (setting, (one, frameworks)), p in zip(pooled.items(), corrected, strict=True)
    }


def _together(cells: Sequence[Compared], interval: str) -> tuple[Paired, tuple[str, ...]]:
    used = [cell for cell in cells if cell.num_pairs] or cells
    frameworks = tuple(dict.fromkeys(cell.framework for cell in used if cell.framework))
    test = paired(*averaged([(cell.baseline, cell.own) for cell in used]), interval)
    return (test if test.n else Paired(0, fmean(cell.difference for cell in used))), frameworks


def averaged(sides: Sequence[tuple[BySeed, BySeed]]) -> tuple[dict[Any, float], dict[Any, float]]:
    """The mean of each side over the frameworks, seed by seed; a framework counts if it has the seed on both sides.

    Args: sides: the baseline and what is compared with it, for each framework.
    """
    seeds = dict.fromkeys(seed for first, second in sides for seed in first if seed in second)
    with_pair = {seed: [pair for pair in sides if seed in pair[0] and seed in pair[1]] for seed in seeds}
    first, second = (
        {seed: fmean(pair[place][seed] for pair in pairs) for seed, pairs in with_pair.items()} for place in (0, 1)
    )
    return first, second


def rows_of(ablation: Ablation, table: pd.DataFrame) -> dict[Label, "pd.Series[Any]"]:
    """A cell of each setting that has a difference, which is that of the setting, as are its interval, p and pairs."""
    cells: dict[Label, tuple[Label, pd.Series[Any]]] = {}
    for label, (_, cell) in zip(labels(ablation, table), table.iterrows(), strict=True):
        other = baseline_of(ablation, label)
        if other is None or math.isnan(cell["difference"]):
            continue
        setting = setting_of(keys(ablation), label, other)
        if setting not in cells or (cell["pairs"] and not cells[setting][1]["pairs"]):
            cells[setting] = label, cell
    return {label: _as_setting(cell) for label, cell in cells.values()}


def _as_setting(cell: "pd.Series[Any]") -> "pd.Series[Any]":
    own = {"difference": "difference", "difference_low": "low", "difference_high": "high", "p": "p", "pairs": "pairs"}
    changed = cell.copy()
    for name, part in own.items():
        changed[name] = cell[f"setting_{part}"]
    return changed


def frameworks_text(ablation: Ablation, cell: "pd.Series[Any]") -> str:
    """`torch and jax`, that a setting is averaged over; empty if there is only one, which needs no average."""
    names = [value_text(ablation, FRAMEWORK, name) for name in str(cell["frameworks"]).split()]
    return " and ".join(names) if len(names) > 1 else ""
