"""Memory of this process: what is left of the machine's, and the peak trial by trial.

Source: proc(5), /proc/self/clear_refs (5 resets the peak) and VmHWM in /proc/self/status.
"""

import contextlib
import ctypes
import gc
from pathlib import Path

GROUPS, OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")  # source: cgroups(7)


def available_bytes() -> int:
    """The memory that this process may take now, of the machine, or of its control group if that leaves less."""
    import psutil  # which a plan need not wait for

    available = psutil.virtual_memory().available
    with contextlib.suppress(OSError):
        group = GROUPS / OWN_GROUP.read_text().rpartition("::")[2].strip().lstrip("/")
        for folder in (group, *group.parents):  # Slurm limits the job and the step, which hold the task's own group
            available = min(available, _left_in(folder) or available)
    return available


def _left_in(group: Path) -> int | None:
    """The memory that a control group of version 2 has left; None: no limit. The cache of files counts as free."""
    try:
        used, limit = (int((group / name).read_text()) for name in ("memory.current", "memory.max"))
        lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return max(1, limit - used + sum(int(size) for name, size in lines if name in ("inactive_file", "active_file")))


def oom_kills() -> int:
    """The number of processes that the kernel killed in this control group because it ran out of memory; 0 if unknown.

    Source: cgroups(7); memory.events of version 2, memory.oom_control of version 1.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in OWN_GROUP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            name = "memory/{}/memory.oom_control" if controllers else "{}/memory.events"
            file = GROUPS / name.format(path.strip("/"))
            counts = dict(line.split() for line in file.read_text().splitlines()) if file.exists() else {}
            if "oom_kill" in counts:
                return int(counts["oom_kill"])
    return 0


def reset_peak() -> None:
    """Start a new measurement of the peak, if the system allows it; else the peak is that since the process began."""
    give_back()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def give_back() -> None:
    """Return to the system what an earlier trial has left in this process."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def peak_bytes() -> int:
    """The highest resident memory since `reset_peak`."""
    return _status_bytes("VmHWM")


def resident_bytes() -> int:
    """The resident memory of this process now."""
    return _status_bytes("VmRSS")


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
