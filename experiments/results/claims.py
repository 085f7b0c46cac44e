"""Claims: who runs a trial now. A claim on its folder is exclusive between processes and machines.

A trial is claimed by creating its heartbeat, which fails if one exists, and kept by touching it. A claim whose owner is
dead is taken over. How old a heartbeat is, is measured by the file server's clock; see clock.py.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments import clock
from experiments.files import StoreError, as_json, store_errors, write_new
from experiments.machine.environment import slurm_job

# A claim whose heartbeat is older than this has lost its owner, wherever that ran. Owners touch it every BEAT_S; NFS
# may show a file as it was up to 60 s ago, and a disk may take some beats' time.
STALE_S = 120.0
BEAT_S = 5.0


class ClaimLost(Exception):
    """The error that another process took the trial over; this one must leave it alone."""


class Claim:
    """The right to run a trial, held from construction to `release`; `said` is what status shows of it."""

    def __init__(self, folder: Path):
        """Claim a trial. Raises: ClaimLost: another process, which is alive, has it."""
        self.path = folder / "heartbeat"
        self.said: dict[str, Any] = {
            "token": secrets.token_hex(8),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_start": _process_start(os.getpid()),
            "processes": _processes(),
            **slurm_job(),
        }
        with store_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self._create():
                self._remove_dead()
                if not self._create():
                    raise ClaimLost(folder.name)
            self._sweep()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Touch the heartbeat every BEAT_S with what `said` holds, in a thread, until the block ends."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT_S):
                with contextlib.suppress(StoreError, OSError):  # the loop meets the same disk, and reports it
                    if not self._beat():
                        return

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @property
    def token(self) -> str:
        return str(self.said["token"])

    def say(self, step: int, num_steps: int, loss: float, images_per_s: float, waiting: float = 0.0) -> None:
        """Let the next heartbeats tell status how far the trial is.  Args: waiting: see Stepped."""
        self.tell(step=step, steps=num_steps, loss=loss, images_per_s=images_per_s, waiting=waiting)

    def tell(self, **what: Any) -> None:
        """Let the next heartbeats tell status more."""
        self.said = self.said | what  # a new object: the thread that beats may be reading the old one

    def is_held(self) -> bool:
        """Tell whether the heartbeat is still this claim's, and no process took the trial over."""
        return _token(self.path) == self.token

    def _beat(self) -> bool:
        """Renew the heartbeat; False: it is another's. A disk that takes its time does so before the last look."""
        mine = self.path.with_name(f".heartbeat.{self.token}.tmp")
        try:
            write_new(mine, as_json(self.said))
            held = self.is_held()
            if held:
                mine.replace(self.path)
        finally:
            mine.unlink(missing_ok=True)
        return held

    def release(self) -> None:
        """Let go; a folder in which nothing was written goes too."""
        if self.is_held():
            self.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.path.parent.rmdir()

    def _create(self) -> bool:
        """Create the heartbeat with its content at once, unless there is one: a hard link is atomic, on NFS too."""
        mine = self.path.with_name(f".heartbeat.{self.token}")
        try:
            write_new(mine, as_json(self.said))
            os.link(mine, self.path)
        except (FileExistsError, FileNotFoundError):
            return False
        finally:
            mine.unlink(missing_ok=True)
        return True

    def _sweep(self) -> None:
        """Remove what a killed owner has left half-written. Nobody else writes such files while the claim is held.

        A record that it had moved aside to write a new one, and did not, is put back.
        """
        for left in self.path.parent.glob(".*.aside"):
            name = left.name.removesuffix(".aside").rpartition(".")[0].removeprefix(".")
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                os.link(left, left.with_name(name))
            left.unlink(missing_ok=True)
        for left in self.path.parent.glob(".*.tmp"):
            left.unlink(missing_ok=True)
        for left in self.path.parent.glob(".heartbeat.*"):
            if _is_dead(*_said(left)):
                left.unlink(missing_ok=True)

    def _remove_dead(self) -> None:
        """Remove the heartbeat if its owner is dead.

        Two processes may find it dead at once, and the slower must not remove what the faster has made since: so it is
        moved aside, looked at again there, and put back if it is not the dead one.
        """
        content, age_s = _said(self.path)
        if content and not _is_dead(content, age_s):
            return  # one that says nothing is damaged: it is linked, and replaced, whole
        aside = self.path.with_name(f".heartbeat.dead.{self.token}")
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return
        try:
            if content and _token(aside) != content.get("token"):
                os.link(aside, self.path)
        except (FileExistsError, FileNotFoundError):
            pass  # another has claimed meanwhile: the owner whose heartbeat was moved finds that out, and stops
        finally:
            aside.unlink(missing_ok=True)


def retract(folder: Path) -> None:
    """Take a trial from its owner, who finds out after its next chunk of steps, and stops."""
    (folder / "heartbeat").unlink(missing_ok=True)


def owner(folder: Path) -> dict[str, Any] | None:
    """The heartbeat of a trial's living owner: pid, host, step, loss, images/s; None if nobody alive has the trial."""
    content, age_s = _said(folder / "heartbeat")
    return None if not content or _is_dead(content, age_s) else content


def _said(path: Path) -> tuple[dict[str, Any], float]:
    """The content of a heartbeat, {} if it cannot be read, and its age in seconds."""
    try:
        text, touched = _read(path)
    except FileNotFoundError:
        return {}, 0.0
    return _parsed(text), clock.now(path.parent.parent) - touched


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _read(path: Path) -> tuple[bytes, float]:
    """Content and time of a file. NFS gives up the handle of one that was replaced meanwhile: it is opened again."""
    try:
        return _read_once(path)
    except FileNotFoundError:
        raise
    except OSError:
        return _read_once(path)


def _read_once(path: Path) -> tuple[bytes, float]:
    with path.open("rb") as file:
        return file.read(), os.fstat(file.fileno()).st_mtime


def _token(path: Path) -> str | None:
    try:
        token = _parsed(_read(path)[0]).get("token")
    except FileNotFoundError:
        return None
    return None if token is None else str(token)


def _is_dead(content: dict[str, Any], age_s: float) -> bool:
    """Tell whether the owner is surely dead: its process is gone from this host, or its heartbeat is too old."""
    if age_s > STALE_S or _is_of_this_job_before(content):
        return True
    if content.get("host") != socket.gethostname() or content.get("processes") != _processes():
        return False
    return _process_start(content.get("pid", -1)) != content.get("process_start")


def _is_of_this_job_before(content: dict[str, Any]) -> bool:
    """Tell whether the owner ran in this very Slurm job before its requeue; Slurm ends one start before the next."""
    ours = slurm_job()
    return bool(ours) and content.get("job") == ours["job"] and content.get("restart", 0) < ours["restart"]


def _processes() -> str:
    """The set of processes that can be told dead from alive here: this user's in this namespace; others may be hidden.

    Source: pid_namespaces(7); proc(5), hidepid.
    """
    return f"{Path('/proc/self/ns/pid').readlink()} of user {os.getuid()}"


def _process_start(pid: int) -> int | None:
    """The start of a process in clock ticks since boot, which tells it from a later one of its number; None: it ended.

    Source: proc(5), /proc/pid/stat, fields 3 and 22.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])
