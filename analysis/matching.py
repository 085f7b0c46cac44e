"""What settings have in common with the baselines they are compared with: parameters, FLOPs, steps, seconds."""

import math
from dataclasses import dataclass

from analysis.labels import Label, Row, Rows, baseline_of, label_text, listed
from backends.errors import counted
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
    num_unknown: int = 0  # cells that are compared and have no number, or whose baseline has none

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


def matching(ablation: Ablation, rows: Rows) -> list[Matched]:
    """Each quantity that is known of the compared settings, in the order of report_spec.QUANTITIES.

    A cell counts where it and its baseline have the number; none do without a baseline.
    """
    found = []
    for quantity, column in COLUMNS.items():
        ratios = {}
        for label, cell in rows.items():
            other = baseline_of(ablation, label)
            if other is not None and other != label and other in rows:
                base = float(rows[other][column])
                ratios[label] = float(cell[column]) / base if base > 0 else math.nan
        known = {label: ratio for label, ratio in ratios.items() if not math.isnan(ratio)}
        if known:
            farthest = max(known, key=lambda label: abs(known[label] - 1))
            found.append(
                Matched(quantity, min(known.values()), max(known.values()), farthest, len(ratios) - len(known))
            )
    return found


def beside(cell: Row, base: Row) -> str:
    """`at 7.9x the parameters, equal training FLOPs and steps`, of one setting; what is not known is left out."""
    found = []
    for quantity, column in COLUMNS.items():
        ratio = float(cell[column]) / float(base[column]) if base[column] > 0 else math.nan
        if quantity != "seconds" and not math.isnan(ratio):  # which the machine's other work changes
            found.append(Matched(quantity, ratio, ratio, ()))
    unlike = listed([one.times_text for one in found if not one.is_equal])
    equal = listed([one.words for one in found if one.is_equal])
    parts = ", ".join(filter(None, (unlike, f"equal {equal}" if equal else "")))
    return f"at {parts}" if parts else ""


def asked(ablation: Ablation) -> tuple[str, ...]:
    """The quantities that compared settings should have in common: those that are solved, and those of the report."""
    return tuple(dict.fromkeys((*ablation.matched, *ablation.report.matched)))


def heading_text(ablation: Ablation, rows: Rows) -> str:
    """`at equal parameters (within 0.4 %) and equal steps`, of what was asked for and is so in all that is compared."""
    found = [one for one in matching(ablation, rows) if one.quantity in asked(ablation)]
    held = [one.equal_text for one in found if one.is_equal and not one.num_unknown]
    return f"at {listed(held)}" if held else ""


def broken(ablation: Ablation, rows: Rows) -> list[str]:
    """A line for each quantity that was asked for and is not equal, or not known."""
    found = {one.quantity: one for one in matching(ablation, rows)}
    lines = []
    for quantity in asked(ablation):
        one, noun = found.get(quantity), NOUNS[quantity]
        if one is None and ablation.report.baseline and any(cell["n"] for cell in rows.values()):
            lines.append(f"matched: whether settings have equal {noun} is not known: no two that are compared are done")
        elif one is not None and one.is_equal and one.num_unknown:
            those = counted(one.num_unknown, "cell")
            lines.append(f"matched: whether all settings have equal {noun} is not known: {those} without a number")
        elif one is not None and not one.is_equal:
            where = label_text(ablation, one.farthest)
            lines.append(f"matched: settings do not have equal {noun}: {one.times_text} of the baseline, as {where}")
    return lines
