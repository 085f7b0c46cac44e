"""Runs for Trackio: a project with the ablation's name, one database in DIR, which Trackio's dashboard opens.

A run that is not as it was is written anew: the old one is removed, and the new one comes whole. Trackio knows a run by
its points, so a trial without an evaluation is not there yet. Curves have no times of their own in a record: theirs are
those of the beginning and the end of the record, 0 before there is one.
"""

from __future__ import annotations

import os
import sqlite3
from datetime import UTC, datetime

from analysis.export.folder import Folder
from analysis.export.run import FINAL, Run, Runs
from backends.errors import MixlabError, first_line

FOLDER = "TRACKIO_DIR"  # a variable of the environment, which Trackio reads once, as it is imported


def export(runs: Runs, folder: Folder) -> list[str]:
    """Write the runs. Raises: MixlabError: the database could not be written.    OSError."""
    os.environ[FOLDER] = str(folder.path.absolute())
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from trackio.sqlite_storage import SQLiteStorage

    known = folder.digests.get(runs.ablation, {})
    if SQLiteStorage.get_project_db_path(runs.ablation).parent != folder.path.absolute():
        raise RuntimeError(f"trackio was imported before {FOLDER} was {folder.path}")
    try:
        for run in runs.runs:
            if not folder.has(runs.ablation, run.id, run.digest):
                _write(runs.ablation, run)
                folder.note(runs.ablation, run.id, run.digest)
        for record in SQLiteStorage.get_run_records(runs.ablation):
            if record["id"] not in {run.id for run in runs.runs}:
                SQLiteStorage.delete_run(runs.ablation, str(record["name"]), str(record["id"]))
                known.pop(str(record["id"]), None)
    except sqlite3.Error as error:
        raise MixlabError(
            f"--to trackio: cannot write into {folder.path}: {first_line(error)}; give the same command again when "
            f"that is mended"
        ) from error
    return [f"open it with: {FOLDER}={folder.path} trackio show --project {runs.ablation}"]


def _write(project: str, run: Run) -> None:
    from trackio.sqlite_storage import SQLiteStorage

    SQLiteStorage.delete_run(project, run.title, run.id)
    points = [dict(values) for _, values in run.points]
    steps, times = [step for step, _ in run.points], [_time(run.started)] * len(points)
    if run.final:
        points.append({FINAL + name: value for name, value in run.final.items()})
        steps, times = [*steps, run.step], [*times, _time(run.finished)]
    config = {**run.config, "_Group": run.group, "mixlab.kind": run.kind, "mixlab.status": run.status}
    SQLiteStorage.bulk_log(project, run.title, points, steps, times, config, run_id=run.id)


def _time(seconds: float | None) -> str:
    return datetime.fromtimestamp(seconds or 0.0, UTC).isoformat()
