"""Records as a pandas frame: a row a trial."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from experiments import fields
from experiments.ablation import Ablation, GridTrial
from experiments.spec import TrialConfig
from experiments.store import CorruptRecord, Store

STATUSES = ("done", "running", "failed", "missing")


def status(store: Store, trial_id: str) -> tuple[str, str, dict[str, Any] | None]:
    """(done, running, failed or missing; why or how far; the record if there is one)."""
    try:
        record = store.record(trial_id)
    except CorruptRecord as error:
        return "missing", f"{error}; the trial runs again with the next run", None
    if record is not None and record["status"] == "done":
        return "done", "", record
    if (owner := store.owner(trial_id)) is not None:
        step = f"step {owner['step']} of {owner['steps']}, " if "step" in owner else ""
        return "running", f"{step}process {owner.get('pid')} on {owner.get('host')}", None
    if record is not None:
        return "failed", str(record["reason"]), record
    return "missing", "", None


def trials_frame(ablation: Ablation, trials: Sequence[GridTrial], store: Store) -> pd.DataFrame:
    """A row a trial, in the order of the grid, finished or not.

    Columns: id; status and why (see `status`); each field that the grid sets or the table names; each metric of
    ablation.METRICS (accuracy in [0, 1], loss in nats) and best.step; seconds.compile, seconds.train, seconds.evaluate;
    images_per_s; parameters; training_flops; peak_memory_bytes. What a trial has no record of is NaN.
    """
    named = dict.fromkeys((*ablation.axes, *ablation.report.rows, *ablation.report.columns, *ablation.report.baseline))
    rows = []
    for planned in trials:
        state, why, record = status(store, planned.trial.id)
        settings = {name: setting(planned, name, ablation) for name in named}
        rows.append({"id": planned.trial.id, "status": state, "why": why, **settings, **_results(record)})
    return pd.DataFrame(rows)


def setting(planned: GridTrial, name: str, ablation: Ablation) -> Any:
    """The value of a field as the grid or the base gave it, else its default."""
    if name in planned.settings:
        return planned.settings[name]
    return ablation.base.get(name, fields.get_field(TrialConfig(), name))


def _results(record: dict[str, Any] | None) -> dict[str, Any]:
    if record is None or record["status"] != "done":
        return {}
    results: dict[str, Any] = {}
    for when, point in record["metrics"].items():
        results[f"{when}.step"] = point["step"]
        for split in ("train", "validation", "test"):
            for value, number in (point[split] or {}).items():
                results[f"{when}.{split}.{value}"] = number
    results |= {f"seconds.{what}": number for what, number in record["seconds"].items()}
    for name in ("images_per_s", "parameters", "training_flops", "peak_memory_bytes"):
        results[name] = record[name]
    return results
