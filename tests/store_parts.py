"""What the tests of the store share: a record, a heartbeat, and what a write may leave behind."""

import os
import socket
import time
from pathlib import Path
from typing import Any

from experiments.files import write_json
from experiments.results import claims as ownership
from experiments.results.metrics import COSTS, SECONDS, STEPS
from experiments.results.record import RECORD_SCHEMA
from experiments.results.store import Store

ID = "0123456789ab"


def heartbeat(root: Path) -> Path:
    return Store(root).folder(ID) / "heartbeat"


def leave_heartbeat(root: Path, age_s: float = 0.0, **said: Any) -> None:
    """What an owner left: by default of this very process, which is alive."""
    alive = {"token": "left", "host": socket.gethostname(), "pid": os.getpid(), "processes": ownership._processes()}
    start = ownership._process_start(os.getpid())
    write_json(heartbeat(root), {**alive, "process_start": start, **said})
    make_older(heartbeat(root), age_s)


def make_older(path: Path, age_s: float) -> None:
    """As if a file had been touched so long ago, by the clock of the file system."""
    os.utime(path)
    then = path.stat().st_mtime - age_s
    os.utime(path, (then, then))


def skew_our_clock(monkeypatch: Any, seconds: float) -> None:
    """As if this machine's clock were ahead of the file server's, or behind it."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + seconds)


def temporaries(root: Path) -> list[str]:
    return [path.name for path in root.rglob(".*") if path.is_file()]


def record(**fields: Any) -> dict[str, Any]:
    point = {"step": 1, **{split: {"accuracy": 0.5, "loss": 1.0} for split in ("train", "test")}, "validation": None}
    metrics = {"last": point, "best": point}
    numbers = {**dict.fromkeys((STEPS, *COSTS), 1), "seconds": dict.fromkeys(SECONDS, 1.0)}
    about = {"schema": RECORD_SCHEMA, "id": ID, "status": "done", "reason": None, "notes": [], "sessions": []}
    return {**about, **numbers, "metrics": metrics, **fields}


def failed(reason: str = "boom") -> dict[str, Any]:
    return record(status="failed", cause="error", reason=reason)
