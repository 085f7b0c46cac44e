"""Runs for TensorBoard: a folder of a run, DIR/ablation/cell/trial, with one event file.

What has been written is appended to where it is the beginning of what is to be written, which is so while a trial
grows; then a TensorBoard that is open shows the new points. Else, as where a mean is over one more trial, the run is
written anew as a file of its own, which tells TensorBoard to forget the one before, and that one is emptied. An export
that is killed leaves a file that ends early, which TensorBoard reads up to there and the next export completes. A kind
of number that is no longer exported, as without --test, is gone once TensorBoard is opened again.

The points of a curve have no time of their own in a record: their wall time is 0, that of final numbers the end of the
trial.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.export.folder import Folder
from analysis.export.graph import graph_of
from analysis.export.run import FINAL, MEAN, Run, Runs
from backends.specs import ModelSpec

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

FILE = "events.out.tfevents.{:010d}.mixlab"  # TensorBoard reads them in the order of their names
FILES = re.compile(r"events\.out\.tfevents\.(\d{10})\.mixlab")
PART = ".part"  # a file that is not whole; TensorBoard does not read one of this name
KIND = "run"  # the column of the HPARAMS tab that tells trials from means
LONGEST = 200  # bytes of a folder's name


def export(runs: Runs, folder: Folder) -> list[str]:
    """Write the runs. Raises: OSError."""
    root, told = folder.path / runs.ablation, _told(runs)
    _write(root, encoded(_experiment(runs, told)), folder.path / PART)
    places = {root}
    for run in runs.runs:
        place = root / _safe(run.group) / _safe(run.name)
        place = place.with_name(f"{place.name} {run.id}") if place in places else place
        _write(place, encoded(_events(run, told[run.id])), folder.path / PART)
        places.add(place)
    _drop_others(root, places)
    return [f"open it with: tensorboard --logdir {folder.path}"]


def encoded(events: Iterator[Event]) -> bytes:
    """Events as a file has them."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        writer.write(event.SerializeToString(deterministic=True))
    return buffer.getvalue()


def _begin() -> Iterator[Event]:
    """The events that a file begins with; the second one takes back what an earlier file of the run said."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    yield Event(file_version="brain.Event:2")
    yield Event(session_log=SessionLog(status=SessionLog.START))


def _events(run: Run, told: Mapping[str, Any]) -> Iterator[Event]:
    """The events of a run, in an order in which a run that grows adds to their end."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.plugins.text.summary_v2 import text_pb

    yield from _begin()
    if run.kind == MEAN:
        yield Event(graph_def=_graph(run.model))
    yield Event(summary=text_pb("config", _table(run.config)))
    if run.kind != MEAN or run.points:
        yield Event(summary=_same_bytes(hparams_pb(told, trial_id=run.id, start_time_secs=0.0)))
    for step, values in run.points:
        yield Event(step=step, summary=_scalars(values))
    if final := {FINAL + name: value for name, value in run.final.items()}:
        yield Event(step=run.step, wall_time=run.finished or 0.0, summary=_scalars(final))
    if run.status in ("done", "failed"):
        yield Event(step=run.step, wall_time=run.finished or 0.0, summary=_end(run))


def _same_bytes(summary: Summary) -> Summary:
    """A summary of the HPARAMS tab, whose mappings are written in one order at each export."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    for value in summary.value:
        about = value.metadata.plugin_data
        about.content = HParamsPluginData.FromString(about.content).SerializeToString(deterministic=True)
    return summary


def _scalars(values: Mapping[str, float]) -> Summary:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])


def _end(run: Run) -> Summary:
    """The end of a run for the HPARAMS tab."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = api_pb2.STATUS_SUCCESS if run.status == "done" else api_pb2.STATUS_FAILURE
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=run.finished or 0.0)
    about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=info))
    summary = Summary()
    summary.value.add(tag=metadata.SESSION_END_INFO_TAG, metadata=about, tensor=metadata.NULL_TENSOR)
    return summary


def _told(runs: Runs) -> dict[str, dict[str, Any]]:
    """What the HPARAMS tab shows of each run, by its id; a column that is not of one type is text."""
    told = {run.id: {**{name: _plain(value) for name, value in run.asked.items()}, KIND: run.kind} for run in runs.runs}
    types: dict[str, set[type]] = {}
    for name, value in ((name, value) for values in told.values() for name, value in values.items()):
        types.setdefault(name, set()).add(type(value))
    return {
        key: {name: value if len(types[name]) == 1 else str(value) for name, value in values.items()}
        for key, values in told.items()
    }


def _plain(value: Any) -> bool | float | str:
    """A value as TensorBoard has them."""
    if isinstance(value, (bool, str)):
        return value
    return float(value) if isinstance(value, (int, float)) else str(value)


def _experiment(runs: Runs, told: Mapping[str, Mapping[str, Any]]) -> Iterator[Event]:
    """The question, and what the HPARAMS tab has columns for: what varies, and the final numbers."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.hparams.summary_v2 import Discrete, HParam, Metric, hparams_config_pb
    from tensorboard.plugins.text.summary_v2 import text_pb

    columns: dict[str, set[Any]] = {}
    for name, value in ((name, value) for values in told.values() for name, value in values.items()):
        columns.setdefault(name, set()).add(value)
    hparams = [HParam(name, Discrete(sorted(values))) for name, values in columns.items()]
    metrics = [Metric(FINAL + name, display_name=name) for name in runs.finals]
    yield from _begin()
    yield Event(summary=text_pb("question", runs.question))
    yield Event(summary=hparams_config_pb(hparams, metrics, time_created_secs=0.0))


def _table(config: Mapping[str, Any]) -> str:
    """A table in Markdown."""
    rows = (f"| {name} | {str(value).replace('|', '&#124;')} |" for name, value in config.items())
    return "\n".join(["| field | value |", "|---|---|", *rows])


@lru_cache(maxsize=64)
def _graph(model: ModelSpec) -> bytes:
    return bytes(graph_of(model).SerializeToString(deterministic=True))


def _safe(name: str) -> str:
    """A name as that of a folder."""
    safe = re.sub(r"[/\\\x00-\x1f]", "-", name).strip(". ") or "-"
    return safe.encode()[:LONGEST].decode("utf-8", "ignore")


def _write(place: Path, content: bytes, part: Path) -> None:
    """Give a run its content. Args: part: where a new file is written before it gets its name."""
    place.mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in place.iterdir() if FILES.fullmatch(path.name))
    last = files[-1] if files else None
    if last and content.startswith(there := last.read_bytes()):
        if len(there) < len(content):
            with last.open("ab") as file:
                file.write(content[len(there) :])
    else:
        part.write_bytes(content)
        last = place / FILE.format(_number(last) + 1 if last else 1)
        part.replace(last)
    for path in files:
        if path != last and path.stat().st_size:
            os.truncate(path, 0)  # a TensorBoard that is reading it would stop at a file that is gone


def _number(file: Path) -> int:
    match = FILES.fullmatch(file.name)
    assert match is not None
    return int(match[1])


def _drop_others(root: Path, kept: set[Path]) -> None:
    """Remove the files of runs that the ablation no longer has, and the folders that are empty then."""
    for path in [path for path in root.rglob("events.out.tfevents.*") if FILES.fullmatch(path.name)]:
        if path.parent not in kept:
            path.unlink()
    for place in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
        if not any(place.iterdir()):
            place.rmdir()
