"""What a setting has in common with its baseline beside what was changed, in words."""

import math
from typing import Any

import pandas as pd

# Column of a cell -> what it is called.
MATCHED = {"parameters": "parameters", "training_flops": "training FLOPs", "steps": "steps"}
EQUAL = 0.005  # relative difference, below which the two are called equal


def matched_text(cell: "pd.Series[Any]", base: "pd.Series[Any]") -> str:
    """`at 7.9x the parameters, equal training FLOPs and steps`; what is not known is left out."""
    unlike, equal = [], []
    for name, words in MATCHED.items():
        ratio = float(cell[name]) / float(base[name]) if base[name] else math.nan
        if math.isnan(ratio):
            continue
        if abs(ratio - 1) > EQUAL:
            unlike.append(f"{ratio:.3g}x the {words}")
        else:
            equal.append(words)
    parts = [_listed(unlike), f"equal {_listed(equal)}" if equal else ""]
    text = ", ".join(filter(None, parts))
    return f"at {text}" if text else ""


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
