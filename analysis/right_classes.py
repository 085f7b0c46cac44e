"""Scores by all right classes of an image: shown where the report and the trial have the same ones.

`data.labels_real` is not in a trial's id, and its file may have changed since: a record has a hash of the classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError
from experiments import data
from experiments.results.metrics import BEST, LAST, REAL, TEST, curve_columns
from experiments.spec.config import DataConfig
from experiments.spec.trial import DataInfo, Trial

if TYPE_CHECKING:
    import pandas as pd

Values = dict[str, Any]  # of records.Result
MEASURED, OTHER = "right_classes", "other_right_classes"  # columns: a record's hash; whether its scores are left out
SCORES = tuple(f"{when}.{TEST}.{REAL.name}" for when in (LAST, BEST))


def own(trial: Trial, values: Values, curve: Array) -> tuple[Values, Array]:
    """What the record of a trial says, without scores by other right classes than `data.labels_real` has now.

    Where these cannot be read, as in a report far from the data, the scores stay.
    """
    if trial.data.labels_real is None or not any(name in values for name in SCORES):
        return values, curve
    try:
        asked = _asked(trial.data, trial.info)
    except MixlabError:
        return values, curve
    if values.get(MEASURED) == asked:
        return values, curve
    curve = curve.copy()
    curve[:, curve_columns().index(f"{TEST}.{REAL.name}")] = np.nan
    return {**values, **dict.fromkeys(SCORES), OTHER: True}, curve


@lru_cache(maxsize=64)
def _asked(config: DataConfig, info: DataInfo) -> str | None:
    return data.right_fingerprint(config, info)


def notes(frame: pd.DataFrame) -> Iterator[str]:
    """Sentences on scores that are left out, and on those of one report that are by different right classes."""
    if OTHER in frame and (left_out := int(frame[OTHER].fillna(False).astype(bool).sum())):
        yield (
            f"{left_out} of {len(frame)} trials have a {REAL.name} by other right classes than data.labels_real has "
            f"now; it is left out; mixlab evaluate gives it by these."
        )
    if MEASURED not in frame or not any(name in frame for name in SCORES):
        return
    shown = frame[frame[[name for name in SCORES if name in frame]].notna().any(axis=1)]
    if (several := shown[MEASURED].nunique(dropna=False)) > 1:
        yield f"The trials have a {REAL.name} by {several} different sets of right classes: they do not compare."
