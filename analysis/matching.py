"""What settings have in common with the baselines they are compared with: parameters, FLOPs, steps, seconds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.labels import Label, Row, baseline_of, label_text, rows
from experiments.design.ablation import Ablation

COLUMNS = {"parameters": "parameters", "flops": "training_flops", "steps": "steps", "seconds": "seconds"}  # of cells
NOUNS = {"parameters": "parameters", "flops": "training FLOPs", "steps": "steps", "seconds": "seconds of training"}
WITHIN = {"seconds": 0.1}  # of the baseline's number: seconds are measured, and the same training takes a little more
WITHIN_COUNTS = 0.01
ROUNDING = 1e-9  # of a multiple: 1.01 - 1 is a little more than 0.01


@dataclass(frozen=True)
class Matched:
    """A quantity of the compared settings, as multiples of their baselines'."""

    quantity: str  # of report_spec.QUANTITIES
    low: float  # the least multiple
    high: float  # the most
    farthest: Label  # the cell that is farthest from its baseline

    @property
    def is_equal(self) -> bool:
        return self.apart <= WITHIN.get(self.quantity, WITHIN_COUNTS) + ROUNDING

    @property
    def apart(self) -> float:
        """The largest difference as a share of the baseline's."""
        return max(abs(self.low - 1), abs(self.high - 1))

    @property
    def equal_text(self) -> str:
        """`equal parameters (within 0.4 %)`."""
        return f"equal {self.words}"

    @property
    def words(self) -> str:
        within = "" if self.apart < 0.0005 else f" (within {100 * self.apart:.1f} %)"
        return f"{NOUNS[self.quantity]}{within}"

    @property
    def times_text(self) -> str:
        """`7.9x the parameters`, `0.5x to 7.9x the parameters`."""
        ends = [f"{end:.3g}x" for end in (self.low, self.high)]
        return f"{' to '.join(dict.fromkeys(ends))} the {NOUNS[self.quantity]}"


def matching(ablation: Ablation, table: pd.DataFrame) -> list[Matched]:
    """Each quantity that is known of the compared settings, in the order of report_spec.QUANTITIES.

    Args: table: of cells.cells. A cell counts where it and its baseline have the number; none do without a baseline.
    """
    cells, found = rows(ablation, table), []
    for quantity, column in COLUMNS.items():
        ratios = {}
        for label, cell in cells.items():
            other = baseline_of(ablation, label)
            if other is not None and other != label and other in cells and cells[other][column] > 0:
                ratios[label] = float(cell[column]) / float(cells[other][column])
        known = {label: ratio for label, ratio in ratios.items() if not math.isnan(ratio)}
        if known:
            farthest = max(known, key=lambda label: abs(known[label] - 1))
            found.append(Matched(quantity, min(known.values()), max(known.values()), farthest))
    return found


def beside(cell: Row, base: Row) -> str:
    """`at 7.9x the parameters, equal training FLOPs and steps`, of one setting; what is not known is left out."""
    found = []
    for quantity, column in COLUMNS.items():
        ratio = float(cell[column]) / float(base[column]) if base[column] > 0 else math.nan
        if quantity != "seconds" and not math.isnan(ratio):  # which the machine's other work changes
            found.append(Matched(quantity, ratio, ratio, ()))
    unlike = _listed([one.times_text for one in found if not one.is_equal])
    equal = _listed([one.words for one in found if one.is_equal])
    parts = ", ".join(filter(None, (unlike, f"equal {equal}" if equal else "")))
    return f"at {parts}" if parts else ""


def asked(ablation: Ablation) -> tuple[str, ...]:
    """The quantities that compared settings should have in common: those that are solved, and those of the report."""
    return tuple(dict.fromkeys((*ablation.matched, *ablation.report.matched)))


def heading_text(ablation: Ablation, table: pd.DataFrame) -> str:
    """`at equal parameters (within 0.4 %) and equal steps`, of what was asked for and is so; empty where nothing is."""
    held = [one.equal_text for one in matching(ablation, table) if one.quantity in asked(ablation) and one.is_equal]
    return f"at {_listed(held)}" if held else ""


def broken(ablation: Ablation, table: pd.DataFrame) -> list[str]:
    """A line for each quantity that was asked for and is not equal, or not known."""
    found = {one.quantity: one for one in matching(ablation, table)}
    lines = []
    for quantity in asked(ablation):
        one, noun = found.get(quantity), NOUNS[quantity]
        if one is None and ablation.report.baseline and (table["n"] > 0).any():
            lines.append(f"matched: whether settings have equal {noun} is not known: no two that are compared are done")
        elif one is not None and not one.is_equal:
            where = label_text(ablation, one.farthest)
            lines.append(f"matched: settings do not have equal {noun}: {one.times_text} of the baseline, as {where}")
    return lines


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
