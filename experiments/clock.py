"""The file server's clock, by which the ages of files are measured: machines that share a store differ by minutes.

A file is touched, and its time read back; between two such looks the time goes on by a clock of this machine that
nobody sets. Where a file system takes times from its clients (Lustre), machines must agree to within half of what is
called old.
"""

import contextlib
import os
import secrets
import sys
import time
from pathlib import Path

from experiments.files import reason

RENEW_S = 30.0  # how long a look counts

_looks: dict[str, tuple[float, float]] = {}  # folder -> what is to be added to our steady clock, and when we looked
_told: set[str] = set()


def now(folder: Path) -> float:
    """Seconds since 1970 by the clock that the times of files in this folder are of.

    Where nothing can be written, that is this machine's clock, and a line on standard error says so.
    """
    steady = _steady()
    offset, looked = _looks.get(str(folder), (0.0, -RENEW_S))
    if steady - looked >= RENEW_S:
        offset = _touched(folder) - steady
        _looks[str(folder)] = offset, steady
    return steady + offset


def forget() -> None:
    """Look anew at the next question."""
    _looks.clear()
    _told.clear()


def _steady() -> float:
    """It goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _touched(folder: Path) -> float:
    probe = folder / f".clock.{secrets.token_hex(8)}.tmp"
    try:
        try:
            os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            os.utime(probe)  # without a time, NFS lets the server take its own
            return probe.stat().st_mtime
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()
    except OSError as error:
        if str(folder) not in _told:
            _told.add(str(folder))
            print(
                f"mixlab: store: nothing can be written to {folder} ({reason(error)}); the age of files, by which the "
                f"dead are told from the living, is measured by this machine's clock",
                file=sys.stderr,
                flush=True,
            )
        return time.time()
