"""The disk of the doctor's folder, as a store uses it, and the clocks that tell a store who is alive."""

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments import clock
from experiments.doctor.check import Asked, Verdict, differs, ok
from experiments.files import reason, replace, write_new
from experiments.results.claims import STALE_S

LARGE_BYTES, SHORT_LARGE_BYTES = 2**26, 2**22  # a checkpoint of 5 million parameters with both moments
SMALL_BYTES, SMALL_S = 2048, 2.0  # a record; for how long such files are replaced
LEAST_FREE_BYTES = 2**30
# A store writes a heartbeat, a line of metrics and a checkpoint for each trial and process: slower than this, a grid
# waits for its disk.
LEAST_FILES_PER_S, LEAST_MB_PER_S = 2.0, 2.0
APART_S = STALE_S / 2  # machines whose clocks are further apart call each other's trials dead; see clock.py
SLEEP_S = 0.2
WRONG_S = 0.1  # by which two clocks of this machine may part over such a sleep


def look(asked: Asked) -> Verdict:
    """Write as a store does: a large file, small ones in place of each other, and a hard link."""
    usage = shutil.disk_usage(asked.folder)
    kind = file_system(asked.folder)
    figures: dict[str, Any] = {"free_bytes": usage.free, "total_bytes": usage.total, "file_system": kind}
    try:
        with tempfile.TemporaryDirectory(prefix=".disk-", dir=asked.folder) as folder:
            figures["mb_per_s"] = _large_mb_per_s(Path(folder), SHORT_LARGE_BYTES if asked.short else LARGE_BYTES)
            figures["files_per_s"] = _files_per_s(Path(folder), SMALL_S / 4 if asked.short else SMALL_S)
            _link(Path(folder))
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        where = f"{asked.folder} ({kind}, {usage.free / 2**30:.1f} GiB free)"
        return differs(f"a store cannot lie in {where}: {why}; choose another disk with --out and --store", **figures)
    text = (
        f"{kind}, {usage.free / 2**30:.1f} of {usage.total / 2**30:.1f} GiB are free; "
        f"{figures['mb_per_s']:,.0f} MB/s, {figures['files_per_s']:,.0f} files/s, each synced"
    )
    if usage.free < LEAST_FREE_BYTES:
        return differs(f"{text}; expected {LEAST_FREE_BYTES / 2**30:g} GiB, for checkpoints", **figures)
    if figures["mb_per_s"] < LEAST_MB_PER_S or figures["files_per_s"] < LEAST_FILES_PER_S:
        return differs(f"{text}; expected {LEAST_MB_PER_S:g} MB/s and {LEAST_FILES_PER_S:g} files/s", **figures)
    return ok(text, **figures)


def _large_mb_per_s(folder: Path, num_bytes: int) -> float:
    """MB/s of a synced write.  Raises: ValueError: other bytes come back."""
    content, path = os.urandom(num_bytes), folder / "large"
    start = time.perf_counter()
    write_new(path, content)
    seconds = time.perf_counter() - start
    if path.read_bytes() != content:
        raise ValueError("it gives back other bytes than were written")
    return num_bytes / seconds / 1e6


def _files_per_s(folder: Path, seconds: float) -> float:
    """Files that are written, synced and renamed in a second."""
    start, number = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds:
        replace(folder / "small", os.urandom(SMALL_BYTES))
        number += 1
    return number / passed


def _link(folder: Path) -> None:
    """Link a file as a claim is.  Raises: OSError: there are no hard links.   ValueError: one replaced a file."""
    first, second, name = (folder / one for one in ("first", "second", "link"))
    first.touch()
    second.touch()
    os.link(first, name)
    with contextlib.suppress(FileExistsError):
        os.link(second, name)
        raise ValueError("a hard link replaces a file that is there, so two processes could claim one trial")


def file_system(folder: Path) -> str:
    """The kind of file system that a folder lies on, as the kernel calls it; "unknown" where it does not say."""
    import psutil

    mounts = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    inside = [str(one) for one in (folder.resolve(), *folder.resolve().parents) if str(one) in mounts]
    return mounts[inside[0]] if inside else "unknown"


def look_at_clock(folder: Path) -> Verdict:
    """Hold the time of a new file against this machine's, and this machine's clocks against each other."""
    clock.forget()
    apart_s = clock.now(folder) - time.time()
    passed = _passed_s()
    figures = {"apart_s": apart_s, **passed}
    if abs(apart_s) > APART_S:
        return differs(
            f"the clock of {folder} is {apart_s:+.1f} s from this machine's; up to {APART_S:g} s are harmless; "
            f"set it by NTP (timedatectl set-ntp true)",
            **figures,
        )
    slept = passed["monotonic"]
    if wrong := [name for name, seconds in passed.items() if abs(seconds - slept) > WRONG_S or seconds <= 0]:
        return differs(f"while {slept:.2f} s passed, {wrong[0]} went on by {passed[wrong[0]]:.2f} s", **figures)
    return ok(f"files are {apart_s * 1e3:+.0f} ms from this machine's clock", **figures)


def _passed_s() -> dict[str, float]:
    """How far each clock goes on during a short sleep."""
    before = _clocks()
    time.sleep(SLEEP_S)
    after = _clocks()
    return {name: after[name] - before[name] for name in before}


def _clocks() -> dict[str, float]:
    return {
        "monotonic": time.monotonic(),
        "boottime": time.clock_gettime(time.CLOCK_BOOTTIME),
        "time": time.time(),
    }
