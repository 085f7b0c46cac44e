"""Runs for MLflow: an experiment with the ablation's name in DIR/mlflow.db, a database that MLflow's server opens.

A run that grows is appended to. One that is another one, such as a mean over one more trial, or a trial that has
ended, is made anew, and the old one is deleted as MLflow deletes: `mlflow gc` frees its room. What a killed export has
begun is completed by the next one; until then MLflow shows it as running.

Curves have no times of their own in a record: theirs are 0, the times of a run are those of its record.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from analysis.export.folder import Folder
from analysis.export.run import Points, Run, Runs, batches
from backends.errors import MixlabError, first_line, show_chain
from experiments.results.states import PAUSED, PRUNED
from experiments.spec.fields import text

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as Made

FILE = "mlflow.db"
ID, HEAD, NUM_POINTS, CURVE = "mixlab.id", "mixlab.head", "mixlab.points", "mixlab.curve"  # tags of a run
STATUS = {
    "done": "FINISHED",
    "failed": "FAILED",
    "running": "RUNNING",
    "missing": "SCHEDULED",
    PAUSED: "SCHEDULED",
    PRUNED: "KILLED",
}
MOST = 100  # parameters of a request
MOST_METRICS = 1000


def export(runs: Runs, folder: Folder) -> list[str]:
    """Write the runs. Raises: MixlabError: the database could not be written.    OSError."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    if not folder.digests:  # what the first export has begun and not ended
        (folder.path / FILE).unlink(missing_ok=True)
    uri = f"sqlite:///{(folder.path / FILE).absolute()}"
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for name in ("mlflow", "alembic"):  # which their import has made talk
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        _export(runs, folder, uri)
    except (MlflowException, SQLAlchemyError) as error:
        show_chain(error)
        raise MixlabError(
            f"--to mlflow: cannot write {folder.path / FILE}: {_why(error)}; give the same command again when mended"
        ) from error
    return [f"open it with: mlflow server --backend-store-uri {uri}"]


def _why(error: Exception) -> str:
    """The cause that SQLite names, without the statement."""
    return first_line(getattr(error, "orig", None) or error)[:150]


def _export(runs: Runs, folder: Folder, uri: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name(runs.ablation)
    if experiment is not None:
        number = experiment.experiment_id
    else:
        artifacts = (folder.path / "artifacts").absolute().as_uri()
        about = {"mlflow.note.content": runs.question}  # what MLflow shows as its description
        number = client.create_experiment(runs.ablation, artifact_location=artifacts, tags=about)
    there = {made.data.tags.get(ID): made for made in _all(client, number)}
    for run in runs.runs:
        if run.id not in there or not folder.has(runs.ablation, run.id, run.digest):
            _write(client, number, run, there.get(run.id))
            folder.note(runs.ablation, run.id, run.digest)
    for gone in there.keys() - {run.id for run in runs.runs}:
        client.delete_run(there[gone].info.run_id)
        folder.note(runs.ablation, str(gone), None)


def _all(client: MlflowClient, experiment: str) -> Iterator[Made]:
    token = None
    while True:
        page = client.search_runs([experiment], page_token=token)
        yield from page
        if not (token := page.token):
            return


def _write(client: MlflowClient, experiment: str, run: Run, made: Made | None) -> None:
    from mlflow.entities import Metric, Param

    if made is not None and not _is_beginning(made, run):
        client.delete_run(made.info.run_id)
        made = None
    if made is None:
        tags = {ID: run.id, HEAD: _head(run), "group": run.group, "kind": run.kind, "why": run.why}
        began = _milliseconds(run.started)
        made = client.create_run(experiment, start_time=began, tags=tags, run_name=run.title)
    key, known = made.info.run_id, int(made.data.tags.get(NUM_POINTS, 0))
    params = [Param(name, text(value)) for name, value in run.config.items()]
    for some in batches(params, MOST):
        client.log_batch(key, params=some)
    metrics = [Metric(name, value, 0, step) for step, values in run.points[known:] for name, value in values.items()]
    ended = _milliseconds(run.finished)
    metrics += [Metric(name, value, ended, run.step) for name, value in run.final.items()]
    for part in batches(metrics, MOST_METRICS):
        client.log_batch(key, metrics=part)
    client.set_tag(key, CURVE, _digest(run.points))
    client.set_tag(key, NUM_POINTS, str(len(run.points)))
    status = STATUS.get(run.status, "RUNNING")
    if run.has_ended:
        client.set_terminated(key, status, ended)
    else:
        client.update_run(key, status)


def _is_beginning(made: Made, run: Run) -> bool:
    """Tell whether what is there is the beginning of a run."""
    tags = made.data.tags
    num = int(tags.get(NUM_POINTS, 0))
    return bool(tags.get(HEAD) == _head(run) and tags.get(CURVE, _digest(())) == _digest(run.points[:num]))


def _head(run: Run) -> str:
    """What is the same in a run that only grows."""
    return replace(run, points=()).digest


def _digest(points: Points) -> str:
    return hashlib.sha256(repr(points).encode()).hexdigest()


def _milliseconds(seconds: float | None) -> int:
    return round(1000 * (seconds or 0.0))
