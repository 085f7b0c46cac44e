"""The table of a grid that may still be tuned or grow: on validation, so that no test number chooses anything."""

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from analysis.cells import Options, cells
from analysis.predictions import reader
from analysis.table.notes import unfinished
from analysis.table.render import render_cells
from experiments.design.ablation import Ablation
from experiments.results import metrics
from experiments.results.store import Store


def sealed_table(ablation: Ablation, frame: pd.DataFrame, store: Store) -> str:
    """The table with its metric on validation in place of test; without validation examples a sentence says why not."""
    metric = metrics.sealed(ablation.report.metric)
    if metrics.parse(metric).split == metrics.VALIDATION and not (frame["info.num_validation"] > 0).any():
        return "\n".join(_without(ablation, frame)) + "\n"
    on_validation = replace(ablation, report=replace(ablation.report, metric=metric))
    options = Options()
    table = cells(on_validation, frame, options, reader(store, metric))
    return render_cells(on_validation, frame, table, "text", options)


def _without(ablation: Ablation, frame: pd.DataFrame) -> Iterator[str]:
    done = int((frame["status"] == "done").sum())
    yield f"{ablation.name}: {done} of {len(frame)} trials are done"
    yield "There is no table here: without a validation split (data.validation_fraction) there are only test numbers."
    yield from unfinished(frame)
