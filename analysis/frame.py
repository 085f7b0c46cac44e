"""Records as a pandas frame: a row a trial."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import pandas as pd

from experiments.ablation import Ablation, GridTrial
from experiments.report_spec import default
from experiments.states import state
from experiments.store import Store


def trials_frame(ablation: Ablation, trials: Sequence[GridTrial], store: Store) -> pd.DataFrame:
    """A row a trial, in the order of the grid, finished or not.

    Columns: id; settings (what the grid sets, as text); status and why (see `status`); trained_on, the backends one
    after another, of a trial that did not stay on its own; each field that the grid sets or the table names; each
    metric of ablation.METRICS (accuracy in [0, 1], loss in nats) and best.step; seconds.compile, seconds.train,
    seconds.evaluate; images_per_s; parameters; training_flops; peak_memory_bytes. What a trial has no record of is NaN.
    """
    named = dict.fromkeys((*ablation.axes, *ablation.report.rows, *ablation.report.columns, *ablation.report.baseline))
    rows = []
    for planned in trials:
        now = state(store, planned.trial.id)
        values = {name: setting(planned, name, ablation) for name in named}
        about = {"id": planned.trial.id, "settings": planned.label, "status": now.status, "why": now.why}
        rows.append(
            {**about, "trained_on": _trained_on(planned.trial.backend, now.record), **values, **_results(now.record)}
        )
    frame = pd.DataFrame(rows)
    return frame.assign(**{name: objects(row[name] for row in rows) for name in named})


def objects(values: Iterable[Any]) -> "pd.Series[Any]":
    """A column of settings as they are: pandas would turn the None of a numeric field into NaN."""
    return pd.Series(list(values), dtype=object)


def setting(planned: GridTrial, name: str, ablation: Ablation) -> Any:
    """The value of a field as the grid or the base gave it, else its default."""
    if name in planned.settings:
        return planned.settings[name]
    return default(name, ablation.base)


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


def _trained_on(own: str, record: dict[str, Any] | None) -> str:
    """`torch, then jax` of a trial that went on in another framework; empty of one that stayed on its own."""
    sessions = [session.get("backend") or {} for session in (record or {}).get("sessions", [])]
    names = [name for name, _ in groupby(str(about.get("name", own)) for about in sessions)]
    return "" if names in ([], [own]) else ", then ".join(names)
