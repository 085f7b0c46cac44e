"""Flat values and learning curves from the records of an ablation's trials; each record is read once.

A cache in the store keeps what was read, by trial and by the stamp of its file: a second report reads what changed.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from analysis import right_classes
from experiments.design.ablation import GridTrial
from experiments.files import StoreError, write_whole
from experiments.results.metrics import (
    BEST,
    COSTS,
    FLOPS,
    LAST,
    SPLITS,
    STEP,
    STEP_LOSS,
    curve_columns,
    every,
)
from experiments.results.shape import sound
from experiments.results.states import state
from experiments.results.store import CorruptRecord, OtherSchema, Store

THEN = ", then "  # between the sessions of a trial that went on elsewhere
MAX_POINTS = 50  # of a curve; a longer one is thinned, and keeps its first and last point
CACHE_VERSION = 6  # raise it when `values_of` changes


@dataclass(frozen=True, eq=False)
class Result:
    """The state of a trial now, with the numbers of its record."""

    values: dict[str, Any]  # status, why, and what the record says, by column of the frame
    curve: "np.ndarray[Any, Any]"  # float64 (points, metrics.curve_columns())


def results(name: str, trials: Sequence[GridTrial], store: Store) -> dict[str, Result]:
    """The result of every trial, by id.

    Args:   name: of the ablation, for the cache.
    Raises: StoreError: a record cannot be read at all; one that is damaged makes its trial a missing one.
    """
    path = store.root / "ablations" / name / "records.parquet"
    cached, by_id, stamps = _read_cache(path), {}, {}
    for planned in trials:
        trial_id = planned.trial.id
        stamp = store.stamp(trial_id)
        if stamp and trial_id in cached and cached[trial_id][0] == stamp:
            by_id[trial_id], stamps[trial_id] = cached[trial_id][1], stamp
            continue
        by_id[trial_id] = _read(planned, store)
        if by_id[trial_id].values["status"] == "done":
            stamps[trial_id] = stamp
    if stamps.keys() - cached.keys() or any(cached[key][0] != stamp for key, stamp in stamps.items()):
        with contextlib.suppress(StoreError, TypeError):  # the report does not depend on its cache
            _write_cache(path, stamps, by_id)
    trial_of = {planned.trial.id: planned.trial for planned in trials}
    return {key: Result(*right_classes.own(trial_of[key], one.values, one.curve)) for key, one in by_id.items()}


def _read(planned: GridTrial, store: Store) -> Result:
    with contextlib.suppress(CorruptRecord, OtherSchema):  # `state` below gives the reason in `why`
        record = store.record(planned.trial.id, with_curve=True)
        if record is not None and record["status"] == "done":
            return Result({"status": "done", "why": "", **values_of(planned.trial.backend, record)}, _curve(record))
    now = state(store, planned.trial.id)
    about = values_of(planned.trial.backend, now.record) if now.record else {}
    return Result({"status": now.status, "why": now.why, **about}, _curve({}))


def values_of(backend: str, record: dict[str, Any]) -> dict[str, Any]:
    """What the record of a trial says of it, by column of the frame.  Args: backend: the trial's own."""
    environment = sound(record, "environment") or {}
    about, packages = (sound(record, f"environment.{name}") or {} for name in ("backend", "packages"))
    sessions = record.get("sessions") or []
    commits = dict.fromkeys(str(one.get("commit") or environment.get("commit") or "unknown") for one in sessions)
    values: dict[str, Any] = {
        "trained_on": _trained_on(backend, sessions),
        "commit": " ".join(commit[:12] for commit in commits or [str(environment.get("commit") or "unknown")]),
        "dirty": any(bool(one.get("dirty")) for one in [environment, *sessions]),
        **{name: sound(record, f"environment.{name}") for name in ("host", "processor")},
        "device": about.get("device"),
        "threads": _count(about.get("threads")),
        "ran_on": _ran_on([_mapping(one.get("backend")) or about for one in sessions] or [about]),
        "replicas": sound(record, "replicas") or 1,  # a record of before has none
        "python": sound(record, "environment.python"),
        "packages": " ".join(f"{name} {version}" for name, version in packages.items()),
        **{name: sound(record, name) for name in ("started", "finished")},
        right_classes.MEASURED: sound(record, f"data.{right_classes.MEASURED}"),
        **{f"repeats.{split}": sound(record, f"data.repeats.{split}") for split in SPLITS[1:]},
    }
    if record["status"] != "done":
        return values
    for when in (LAST, BEST):
        point = record["metrics"][when]
        values[f"{when}.{STEP}"] = point[STEP]
        for split in SPLITS:
            for value, number in (point[split] or {}).items():
                values[f"{when}.{split}.{value}"] = number
    values |= {f"seconds.{what}": number for what, number in record["seconds"].items()}
    for name in COSTS:
        values[name] = float(record[name]) if name in FLOPS and record[name] is not None else record[name]
    return values


def _trained_on(own: str, sessions: list[dict[str, Any]]) -> str:
    """`torch, then jax` of a trial that went on in another framework; empty of one that stayed on its own."""
    names = [name for name, _ in groupby(str(_mapping(one.get("backend")).get("name", own)) for one in sessions)]
    return "" if names in ([], [own]) else THEN.join(names)


def _ran_on(backends: list[dict[str, Any]]) -> str:
    """`cpu with 2 threads, then cpu with 1 thread`, session by session; the threads of a GPU's host change no bit."""
    places = []
    for about in backends:
        device, threads = about.get("device") or "unknown device", _count(about.get("threads"))
        is_host = threads is not None and device in ("cpu", "unknown device")
        places.append(f"{device} with {threads} thread{'s' * (threads != 1)}" if is_host else str(device))
    return THEN.join(place for place, _ in groupby(places))


def _count(value: Any) -> int | None:
    return int(value) if str(value).isdigit() else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _curve(record: dict[str, Any]) -> "np.ndarray[Any, Any]":
    """The learning curve of a record; an empty one if it is damaged, since the table does not need it."""
    rows = []
    try:
        points = record.get("curve") or []
        for point in (points[place] for place in _places(len(points))):
            splits = [point[split] or {} for split in SPLITS]
            rows.append([point[STEP], point[STEP_LOSS], *(part.get(name) for part in splits for name in every())])
        return np.array(rows, np.float64).reshape(-1, len(curve_columns()))
    except (KeyError, TypeError, ValueError, AttributeError):
        return np.empty((0, len(curve_columns())))


@cache
def _places(num_points: int) -> list[int]:
    """Places of the points of a curve that are kept."""
    places = np.linspace(0, num_points - 1, min(num_points, MAX_POINTS)).round().astype(int)
    return list(dict.fromkeys(places.tolist()))


def _read_cache(path: Path) -> dict[str, tuple[str, Result]]:
    """Stamp and result by id; nothing of a cache that is damaged or of another version."""
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
        if frame.attrs.get("version") != _cache_version():
            return {}
        curves = [np.frombuffer(curve, np.float64).reshape(-1, len(curve_columns())) for curve in frame["curve"]]
        values = map(orjson.loads, frame["values"])
        return {
            key: (stamp, Result(*one))
            for key, stamp, *one in zip(frame["id"], frame["stamp"], values, curves, strict=True)
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _cache_version() -> str:
    """Another one where curves have other columns."""
    return " ".join((str(CACHE_VERSION), *curve_columns()))


def _write_cache(path: Path, stamps: dict[str, str], by_id: dict[str, Result]) -> None:
    import pandas as pd

    kept = [by_id[key] for key in stamps]
    frame = pd.DataFrame(
        {
            "id": list(stamps),
            "stamp": list(stamps.values()),
            "values": [orjson.dumps(one.values).decode() for one in kept],
            "curve": [one.curve.tobytes() for one in kept],
        }
    )
    frame.attrs["version"] = _cache_version()
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    write_whole(path, buffer.getvalue())
