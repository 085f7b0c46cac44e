"""Memory and cores of the machine, and what a control group leaves of them.

Source: cgroups(7), and the kernel's Documentation/admin-guide/cgroup-v2.rst, cpu.max and memory.max.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from experiments.doctor.check import Verdict, differs, ok
from experiments.machine import memory

GIB = 2**30
LEAST_BYTES = 2 * GIB  # of memory: a process with both frameworks, and a small model
BUSY = 0.5  # of the cores, by other programs: times are then no measurements


def look_at_memory() -> Verdict:
    """The memory that is free now, of the machine or of a control group."""
    import psutil

    total, free = psutil.virtual_memory().total, memory.available_bytes()
    limits = [int(text) for text in _group_files("memory.max") if text.isdigit()]
    limit = min((one for one in limits if one < total), default=None)
    text = f"{free / GIB:.1f} of {total / GIB:.1f} GiB are free"
    text += f"; the control group may take {limit / GIB:.1f} GiB" if limit else ""
    if free < LEAST_BYTES:
        text += f"; expected {LEAST_BYTES / GIB:g} GiB: end what uses the memory, or ask for more of it"
    verdict = differs if free < LEAST_BYTES else ok
    return verdict(text, free_bytes=free, total_bytes=total, limit_bytes=limit)


def look_at_cores() -> Verdict:
    """The cores that this process may use, and the share of their time that it is given."""
    allowed, total, quota = len(os.sched_getaffinity(0)), os.cpu_count() or 0, cores_of_quota()
    load = os.getloadavg()[0]
    text = f"{allowed} of {total}"
    if quota is not None and quota < allowed:
        text += f", in the time of {quota:.1f} (control group): set run.threads={max(1, int(quota))}, or threads wait"
    if load > BUSY * total:
        text += f"; the load is {load:.1f}: other programs run, and times measured now are too long"
    return ok(text, allowed=allowed, total=total, quota=quota, load=load)


def cores_of_quota() -> float | None:
    """The number of cores whose time the control groups give; None: no limit."""
    quotas = [text.split() for text in _group_files("cpu.max")]
    return min((int(quota) / int(period) for quota, period in quotas if quota != "max"), default=None)


def _group_files(name: str) -> Iterator[str]:
    """What a file says in this process's control group, and in those that hold it."""
    try:
        path = memory.OWN_GROUP.read_text().rpartition("::")[2].strip().lstrip("/")
    except OSError:
        return
    group = memory.GROUPS / path
    for folder in (group, *group.parents):
        if folder != memory.GROUPS.parent and (file := Path(folder / name)).is_file():
            yield file.read_text().strip()
