"""Runs for Weights & Biases: an offline run each, DIR/wandb/offline-run-*, of a project with the ablation's name.

Nothing is sent: the runs are in offline mode, without the machine's name, code, requirements and console, and their
process reports no errors of its own. `wandb sync` sends them, when somebody asks for it; each has the id of its trial.

An offline run cannot be appended to once it is closed: one that has grown is written anew, beside the old one, whose
place it then takes. So sync a run when its trial has ended.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

from analysis.export.folder import Folder
from analysis.export.run import Run, Runs, batches
from backends.errors import MixlabError, first_line, show_chain

PART = ".part"  # where runs are written before they get their names
TOGETHER = 100  # runs that one process of W&B writes
BLOCK = 32 * 1024  # of the log that an offline run is, after a header of 7 bytes
HEADER = 7  # of the log, and of each record in it: checksum, length, kind


def export(runs: Runs, folder: Folder) -> list[str]:
    """Write the runs. Raises: MixlabError: W&B could not write one.    OSError."""
    os.environ["WANDB_ERROR_REPORTING"] = "false"  # before its process starts
    new = [run for run in runs.runs if not _is_there(runs.ablation, run, folder)]
    for several in batches(new, TOGETHER):
        _write(runs.ablation, several, folder)
    for gone in set(folder.digests.get(runs.ablation, {})) - {run.id for run in runs.runs}:
        _remove(folder, gone)
        folder.note(runs.ablation, gone, None)
    where = folder.path / "wandb"
    return [
        f"look at one with: wandb leet {where}/offline-run-...",
        f"send them with: wandb sync {where}/offline-run-*",
    ]


def _is_there(ablation: str, run: Run, folder: Folder) -> bool:
    return folder.has(ablation, run.id, run.digest) and len(_places(folder, run.id)) == 1


def _places(folder: Folder, run_id: str) -> list[Path]:
    return list((folder.path / "wandb").glob(f"offline-run-*-{run_id}"))


def _remove(folder: Folder, run_id: str) -> None:
    for place in _places(folder, run_id):
        shutil.rmtree(place)


def _write(project: str, several: list[Run], folder: Folder) -> None:
    """Write runs; each gets its place when all of them are whole."""
    import wandb

    part = folder.path / PART
    if part.exists():
        shutil.rmtree(part)
    part.mkdir()
    for run in several:
        try:
            _log(project, run, part)
        except Exception as error:  # W&B has no type that all of its errors are of
            show_chain(error)
            raise MixlabError(_sentence(folder, run, first_line(error))) from error
    wandb.teardown()  # its process, which writes the files, has ended then
    for run in several:
        (made,) = part.glob(f"wandb/offline-run-*-{run.id}")
        if why := fault(made / f"run-{run.id}.wandb", len(run.points)):
            raise MixlabError(_sentence(folder, run, why))
        shutil.rmtree(made / "logs", ignore_errors=True)
        began = time.strftime("%Y%m%d_%H%M%S", time.gmtime(run.started or 0.0))
        target = folder.path / "wandb" / f"offline-run-{began}-{run.id}"
        target.parent.mkdir(exist_ok=True)
        _remove(folder, run.id)
        made.replace(target)
        folder.note(project, run.id, run.digest)
    shutil.rmtree(part)


def _sentence(folder: Folder, run: Run, why: str) -> str:
    return f"--to wandb: cannot write the run {run.id} in {folder.path}: {why}; give the same command again when mended"


def _log(project: str, run: Run, part: Path) -> None:
    import wandb

    settings = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        host="",
        save_code=False,
        silent=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    about: dict[str, Any] = {"id": run.id, "name": run.title, "group": run.group, "job_type": run.kind}
    config = {**run.config, "mixlab.status": run.status, "mixlab.why": run.why}
    with wandb.init(
        project=project, config=config, dir=part, mode="offline", reinit="create_new", settings=settings, **about
    ) as made:
        for step, values in run.points:
            made.log({**values, "_timestamp": run.started or 0.0}, step=step)
        made.summary.update(dict(run.final))
        made.finish(exit_code=int(run.status == "failed"))


def fault(file: Path, num_points: int) -> str:
    """What is wrong with an offline run that should have so many points; W&B does not say what it could not write."""
    try:
        kinds = [record.WhichOneof("record_type") for record in records(file)]
    except (OSError, ValueError) as error:
        return f"its file is not whole ({first_line(error)}); is the disk full?"
    if "exit" in kinds and kinds.count("history") == num_points:
        return ""
    return "its file is not whole; is the disk full?"


def records(file: Path) -> list[Any]:
    """The records of an offline run: a log of LevelDB's form, whose blocks hold protobufs.

    Raises: ValueError: it ends early.
    """
    from wandb.proto import wandb_internal_pb2

    message: Any = wandb_internal_pb2  # its types are made as it is imported
    content, place, found, open_ = file.read_bytes(), HEADER, list[Any](), b""
    if content[:4] != b":W&B":
        raise ValueError("it does not begin as an offline run")
    while place < len(content):
        if (left := BLOCK - place % BLOCK) < HEADER:
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6 : place + 7]
        part = content[place + HEADER : place + HEADER + length]
        if not kind or len(part) < length:
            raise ValueError("it ends early")
        open_, place = open_ + part, place + HEADER + length
        if kind in (b"\1", b"\4"):  # whole, or the last part of one
            found.append(message.Record.FromString(open_))
            open_ = b""
    return found
