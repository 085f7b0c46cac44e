"""The results directory: one folder a trial, no database, many writers.

    trials/<id>/        spec.json  env.json  metrics.jsonl  checkpoint.safetensors  record.json  heartbeat
    ablations/<name>/   ablation.yaml  trials.txt
    data/               decoded images, shared by all trials

A trial is claimed by creating its heartbeat, which fails if one exists, and kept by touching it. `record.json` is
written last and whole: a trial is done or failed if and only if it is there.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from backends.errors import MixlabError, choices
from experiments.files import StoreError, set_aside, store_errors, write_json, write_whole
from experiments.spec import Trial

RECORD_SCHEMA = 1

# A claim whose heartbeat is older than this has lost its owner, wherever that ran. Owners touch it every BEAT_S.
STALE_S = 120.0
BEAT_S = 5.0
CLOCK_S = 2.0  # how much the system may differ in telling when a process began


class ClaimLost(Exception):
    """Another process took the trial over; this one must leave it alone."""


class Store:
    """The results directory at `root`; it is made when something is first written."""

    def __init__(self, root: Path):
        self.root = root

    def folder(self, trial_id: str) -> Path:
        return self.root / "trials" / trial_id

    @property
    def data(self) -> Path:
        return self.root / "data"

    def trial_ids(self) -> list[str]:
        """Every trial that the store has a folder of."""
        folder = self.root / "trials"
        return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []

    def check_folder(self) -> None:
        """Raises: StoreError: it is there and is no folder."""
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(
                f"command line: --store: {self.root} is a file; allowed: a folder, which may not exist yet"
            )

    def check_writable(self) -> None:
        """Raises: StoreError: nothing can be written there, with the cause."""
        write_whole(self.root / ".writable", b"")
        (self.root / ".writable").unlink(missing_ok=True)

    def write_ablation(self, name: str, text: str, labels: dict[str, str]) -> None:
        """Keep what was asked: the YAML, and a line `id <tab> label` for each trial."""
        folder = self.root / "ablations" / name
        write_whole(folder / "ablation.yaml", text.encode())
        write_whole(folder / "trials.txt", "".join(f"{key}\t{label}\n" for key, label in labels.items()).encode())

    def ablations(self) -> list[str]:
        """Names of the ablations that were run with this store."""
        return sorted(path.parent.name for path in self.root.glob("ablations/*/trials.txt"))

    def ablation_labels(self, name: str) -> dict[str, str]:
        """Trials of an ablation as it was last run: id -> what it sets.

        Raises: MixlabError: no ablation of that name was run with this store.
        """
        path = self.root / "ablations" / name / "trials.txt"
        if name not in self.ablations():
            raise MixlabError(f"store: {self.root} has no ablation {name!r}; {choices(name, self.ablations())}")
        lines = path.read_text().splitlines()
        return {trial_id: label for trial_id, _, label in (line.partition("\t") for line in lines)}

    def find(self, prefix: str) -> str:
        """The trial whose id begins with `prefix`.

        Raises: MixlabError: none does, or several do.
        """
        found = [trial_id for trial_id in self.trial_ids() if trial_id.startswith(prefix)]
        if len(found) != 1:
            which = f"{len(found)} trials begin with" if found else "no trial begins with"
            raise MixlabError(f"store: {which} {prefix!r} in {self.root}; {choices(prefix, found or self.trial_ids())}")
        return found[0]

    def begin(self, trial: Trial, environment: dict[str, Any]) -> None:
        """Write what is known before training; for the owner of the trial, who also clears what a kill has left."""
        for left in self.folder(trial.id).glob(".*.tmp"):
            left.unlink(missing_ok=True)
        for left in self.folder(trial.id).glob(".heartbeat.*"):
            if _is_dead(*_said(left)):
                left.unlink(missing_ok=True)
        write_json(self.folder(trial.id) / "spec.json", asdict(trial))
        write_json(self.folder(trial.id) / "env.json", environment)

    def finish(self, trial_id: str, record: dict[str, Any]) -> None:
        """Write the record, then drop what it makes superfluous."""
        folder = self.folder(trial_id)
        write_json(folder / "record.json", record)
        if record["status"] == "done":
            (folder / "checkpoint.safetensors").unlink(missing_ok=True)

    def record(self, trial_id: str) -> dict[str, Any] | None:
        """The record of a trial that is done or failed, else None.

        Raises: CorruptRecord: it cannot be read as a record of this trial.
        """
        path = self.folder(trial_id) / "record.json"
        try:
            text = path.read_text()
        except FileNotFoundError:
            return None
        except UnicodeDecodeError as error:
            raise CorruptRecord(path, f"it is not text ({error})") from error
        except OSError as error:
            raise StoreError(f"store: cannot read {path}: {error.strerror}") from error
        try:
            record = json.loads(text)
        except ValueError as error:
            raise CorruptRecord(path, f"it is not JSON ({error})") from error
        if not isinstance(record, dict) or record.get("id") != trial_id:
            raise CorruptRecord(path, f"it is not the record of trial {trial_id}")
        if record.get("schema") != RECORD_SCHEMA or record.get("status") not in ("done", "failed"):
            raise CorruptRecord(
                path, f"its schema is {record.get('schema')!r}, not {RECORD_SCHEMA}, or it has no status"
            )
        return record

    def set_aside_corrupt_record(self, trial_id: str) -> str | None:
        """Move an unreadable record out of the way, so that its trial runs again; returns a sentence if it did."""
        try:
            self.record(trial_id)
        except CorruptRecord as error:
            return f"{error}; set aside as {set_aside(error.path).name}, the trial runs again"
        return None

    def owner(self, trial_id: str) -> dict[str, Any] | None:
        """Who runs a trial now: pid, host, and what it last said of step, loss and images/s; None if nobody alive."""
        said, age_s = _said(self.folder(trial_id) / "heartbeat")
        return None if not said or _is_dead(said, age_s) else said


class CorruptRecord(MixlabError):
    """A record that is no record; `path` is its file."""

    def __init__(self, path: Path, how: str):
        super().__init__(f"store: {path} is corrupt: {how}")
        self.path = path


class Claim:
    """The right to run a trial, held from construction to `release`; `said` is what status shows of it."""

    def __init__(self, store: Store, trial_id: str):
        """Raises: ClaimLost: somebody alive has it."""
        self.path = store.folder(trial_id) / "heartbeat"
        self.said: dict[str, Any] = {
            "token": secrets.token_hex(8),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_start": _process_start(os.getpid()),
        }
        with store_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self._create():
                self._remove_dead()
                if not self._create():
                    raise ClaimLost(trial_id)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Touch the heartbeat every BEAT_S with what `said` holds, in a thread, until the block ends."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT_S):
                if not self.is_held():
                    return
                with contextlib.suppress(StoreError):  # the loop meets the same disk, and reports it
                    write_json(self.path, self.said)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def is_held(self) -> bool:
        """Whether the heartbeat is still this claim's, not one of a process that took the trial over."""
        return _token(self.path) == str(self.said["token"])

    def release(self) -> None:
        if self.is_held():
            self.path.unlink(missing_ok=True)

    def _create(self) -> bool:
        """Create the heartbeat with its content at once, unless there is one: a hard link is atomic, on NFS too."""
        mine = self.path.with_name(f".heartbeat.{self.said['token']}")
        try:
            with mine.open("w") as file:
                json.dump(self.said, file)
                file.flush()
                os.fsync(file.fileno())
            os.link(mine, self.path)
        except FileExistsError:
            return False
        finally:
            mine.unlink(missing_ok=True)
        return True

    def _remove_dead(self) -> None:
        """Remove the heartbeat if its owner is dead.

        Two processes may find it dead at once, and the slower must not remove what the faster has made since: so it is
        moved aside, looked at again there, and put back if it is not the dead one.
        """
        said, age_s = _said(self.path)
        if not _is_dead(said, age_s):
            return
        aside = self.path.with_name(f".heartbeat.dead.{self.said['token']}")
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return
        try:
            if said and _token(aside) != said.get("token"):
                os.link(aside, self.path)
        except FileExistsError:
            pass  # the owner whose heartbeat was moved finds another's at its next beat, and stops
        finally:
            aside.unlink(missing_ok=True)


def _said(path: Path) -> tuple[dict[str, Any], float]:
    """What a heartbeat says, {} if it is none, and its age in seconds."""
    try:
        said, age_s = json.loads(path.read_text()), time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return {}, 0.0
    except ValueError:
        return {}, STALE_S + 1
    return (said, age_s) if isinstance(said, dict) else ({}, STALE_S + 1)


def _token(path: Path) -> str | None:
    token = _said(path)[0].get("token")
    return None if token is None else str(token)


def _is_dead(said: dict[str, Any], age_s: float) -> bool:
    """Whether the owner is known to be dead: its process is gone from this host, or it has not beaten for long."""
    if age_s > STALE_S:
        return True
    if said.get("host") != socket.gethostname():
        return False
    start = _process_start(said.get("pid", -1))
    return start is None or abs(start - said.get("process_start", 0)) > CLOCK_S


def _process_start(pid: int) -> float | None:
    """Start time of a process, which tells it from a later one with the same number; None if there is none."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except (psutil.Error, ValueError):
        return None
