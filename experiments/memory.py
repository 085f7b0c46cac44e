"""Peak memory of this process, trial by trial.

Source: proc(5), /proc/self/clear_refs (5 resets the peak) and VmHWM in /proc/self/status.
"""

import contextlib
from pathlib import Path


def oom_kills() -> int:
    """Processes that the kernel has killed in this one's control group because its memory was out; 0 where unknown.

    Source: cgroups(7); memory.events of version 2, memory.oom_control of version 1.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            name = "memory/{}/memory.oom_control" if controllers else "{}/memory.events"
            file = Path("/sys/fs/cgroup", name.format(path.strip("/")))
            counts = dict(line.split() for line in file.read_text().splitlines()) if file.exists() else {}
            if "oom_kill" in counts:
                return int(counts["oom_kill"])
    return 0


def reset_peak() -> None:
    """Begin a new measurement, where the system lets us; else the peak is that since the process began."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Highest resident memory since `reset_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
