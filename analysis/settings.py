"""Settings, as a table tests them. The frameworks that train one setting are one experiment done several times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.inference import Paired, crossed, holm, holm_levels, paired
from analysis.labels import Label, Row, baseline_of, keys, rows, value_text
from analysis.predictions import Reader, Right
from experiments.design.ablation import Ablation

if TYPE_CHECKING:
    import pandas as pd

FRAMEWORK = "backend"
BySeed = Mapping[Any, float]  # a metric by seed
RECORDED = 1e-6  # to which a metric in a record is the mean of the examples that are right
SEEDS_AND_EXAMPLES, SEEDS, EXAMPLES = "seeds and examples", "seeds", "examples"  # what an interval is over


@dataclass(frozen=True, eq=False)
class Compared:
    """A cell beside its baseline."""

    setting: Label  # of setting_of
    framework: str  # empty where the table does not tell them apart
    baseline: BySeed
    own: BySeed
    difference: float  # of the means
    trials: tuple[Mapping[Any, str], Mapping[Any, str]] = ({}, {})  # ids of the baseline's and of its own, by seed

    @property
    def num_pairs(self) -> int:
        return len(self.baseline.keys() & self.own.keys())


@dataclass(frozen=True)
class Tested:
    """A setting against its baseline."""

    paired: Paired
    frameworks: tuple[str, ...]  # that the differences of a seed are averaged over
    p_holm: float  # corrected for the number of settings that are tested

    @property
    def over(self) -> str:
        """What the interval is over; empty where there is none."""
        if math.isnan(self.paired.low):
            return ""
        if not self.paired.num_examples:
            return SEEDS
        return SEEDS_AND_EXAMPLES if self.paired.n > 1 else EXAMPLES


def setting_of(names: Sequence[str], label: Label, baseline: Label) -> Label:
    """The cell without its framework; the whole cell where its framework alone sets it apart from its baseline.

    Args: names: the fields of the table.
    """
    rest = [place for place, name in enumerate(names) if name != FRAMEWORK]
    if all(label[place] == baseline[place] for place in rest):
        return label
    return tuple(label[place] for place in rest)


def tests(cells: Sequence[Compared], read: Reader) -> dict[Label, Tested]:
    """The test of each setting, with Holm's correction over all of them, and the interval of its step in it.

    A seed's difference is the mean over the frameworks that have the seed on both sides, so that a copy of a column, or
    of a part of it, changes no test, and a seed that one framework lacks is not lost. Where no seed has a pair on any
    framework, the difference is the mean of those of the means.
    """
    groups: dict[Label, list[Compared]] = {}
    for cell in cells:
        groups.setdefault(cell.setting, []).append(cell)
    pooled = {setting: _together(group, read) for setting, group in groups.items()}
    p = [one.p for one, _ in pooled.values()]
    return {
        setting: Tested(one if math.isnan(one.p) else one.at(level), frameworks, corrected)
        for (setting, (one, frameworks)), corrected, level in zip(pooled.items(), holm(p), holm_levels(p), strict=True)
    }


def _together(cells: Sequence[Compared], read: Reader) -> tuple[Paired, tuple[str, ...]]:
    used = [cell for cell in cells if cell.num_pairs] or cells
    frameworks = tuple(dict.fromkeys(cell.framework for cell in used if cell.framework))
    test = test_of(used, read)
    return (test if test.n else Paired(0, fmean(cell.difference for cell in used))), frameworks


def test_of(cells: Sequence[Compared], read: Reader) -> Paired:
    """The test of cells together: over seeds and examples where all pairs have the same examples, else over seeds."""
    first, second = averaged([(cell.baseline, cell.own) for cell in cells])
    over_seeds = paired(first, second)
    if not over_seeds.n or math.isnan(over_seeds.difference):
        return over_seeds
    each, recorded = _each(cells, read), [second[seed] - first[seed] for seed in first]
    if each is None or np.abs(each.mean(1) - recorded).max() > RECORDED:
        return over_seeds
    return replace(crossed(each), effect_size=over_seeds.effect_size)


def _each(cells: Sequence[Compared], read: Reader) -> np.ndarray[Any, Any] | None:
    """The difference of each example at each seed, the mean over frameworks; None unless all have the same examples."""
    by_seed: dict[Any, list[tuple[Right | None, Right | None]]] = {}
    for cell in cells:
        first, second = cell.trials
        for seed in cell.baseline:
            if seed in cell.own:
                by_seed.setdefault(seed, []).append((read(first[seed]), read(second[seed])))
    examples = {None if one is None else one.examples for pairs in by_seed.values() for pair in pairs for one in pair}
    if None in examples or len(examples) != 1:
        return None
    return np.array([np.mean([_apart(*pair) for pair in pairs], 0) for pairs in by_seed.values()])


def _apart(first: Right | None, second: Right | None) -> np.ndarray[Any, Any]:
    assert first is not None and second is not None
    apart: np.ndarray[Any, Any] = second.each() - first.each()
    return apart


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


def rows_of(ablation: Ablation, table: pd.DataFrame) -> dict[Label, Row]:
    """A cell of each setting that has a difference, which is that of the setting, as are its interval, p and pairs."""
    cells: dict[Label, tuple[Label, Row]] = {}
    for label, cell in rows(ablation, table).items():
        other = baseline_of(ablation, label)
        if other is None or math.isnan(cell["difference"]):
            continue
        setting = setting_of(keys(ablation), label, other)
        if setting not in cells or (cell["pairs"] and not cells[setting][1]["pairs"]):
            cells[setting] = label, cell
    return {label: _as_setting(cell) for label, cell in cells.values()}


def _as_setting(cell: Row) -> Row:
    own = {"difference": "difference", "difference_low": "low", "difference_high": "high", "p": "p", "pairs": "pairs"}
    return {**cell, **{name: cell[f"setting_{part}"] for name, part in own.items()}}


def tested_of(cell: Row) -> Tested:
    """The test of a cell's setting, from its columns."""
    number = {
        name: float(cell[f"setting_{name}"]) for name in ("difference", "low", "high", "p", "error", "seeds_share")
    }
    found = Paired(int(cell["setting_pairs"]), **number, level=float(cell["level"]), num_examples=int(cell["examples"]))
    return Tested(found, tuple(str(cell["frameworks"]).split()), float(cell["p_holm"]))


def alone(cell: Row) -> Row:
    """A cell as it is told by itself: as its setting, or without interval if it is but one framework of its setting.

    The setting has the verdict, which an interval of one framework could contradict.
    """
    if len(str(cell["frameworks"]).split()) < 2:
        return _as_setting(cell)
    return {**cell, **dict.fromkeys(("difference_low", "difference_high", "p"), math.nan)}


def frameworks_text(ablation: Ablation, cell: Row) -> str:
    """`torch and jax`, that a setting is averaged over; empty if there is only one, which needs no average."""
    names = [value_text(ablation, FRAMEWORK, name) for name in str(cell["frameworks"]).split()]
    return " and ".join(names) if len(names) > 1 else ""
