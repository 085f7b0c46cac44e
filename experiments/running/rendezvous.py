"""Where a leader and the processes that other tasks of its job have started find each other: in a file of the store.

Each worker that leads is a group of its own, and invites the others anew, under the next number. The file of a start of
a job is its own, so that neither another job nor an earlier start is met.
"""

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.files import replace

SECRET = 0o600  # who reads the key may tell the group what to do


@dataclass(frozen=True)
class Invitation:
    """What a leader says to those that may follow; the last one says that no group comes any more."""

    number: int  # of the group, from 1
    is_over: bool = False
    host: str = ""
    port: int = 0
    key: str = ""  # hexadecimal
    backend: str = ""
    num_cpus: int = 0  # of each process: what is computed on a CPU depends on its threads

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port


@dataclass(frozen=True)
class Rendezvous:
    """The file, and what both sides know before."""

    path: Path
    host: str  # of the leader, as the others reach it
    size: int  # of a group, the leader included
    num_here: int = 1  # of its processes on each machine

    def invite(self, port: int, key: bytes, backend: str, num_cpus: int) -> None:
        """Let the others come.  Args: port, key: of the leader's Listener."""
        self._write(Invitation(self._last() + 1, False, self.host, port, key.hex(), backend, num_cpus))

    def close(self) -> None:
        """Let the others go: no group comes any more."""
        self._write(Invitation(self._last() + 1, is_over=True))

    def invitation(self) -> Invitation | None:
        """The last one; None: there is none yet."""
        with contextlib.suppress(OSError, ValueError):
            tree: dict[str, Any] = json.loads(self.path.read_text())
            return Invitation(**tree)
        return None

    def _last(self) -> int:
        last = self.invitation()
        return last.number if last else 0

    def _write(self, invitation: Invitation) -> None:
        replace(self.path, json.dumps(asdict(invitation)).encode(), durable=False, mode=SECRET)
