"""Memory of this process and of those that it begins: the peak trial by trial, and how it is given out.

Source: proc(5), /proc/self/clear_refs (5 resets the peak) and VmHWM in /proc/self/status.
"""

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
from pathlib import Path

from backends import parameters
from experiments.failures import DoesNotFit
from experiments.spec import PREDICT_BATCH, Trial

# Source: the GNU C Library's manual, "Memory Allocation Tunables". Thresholds in bytes.
GROUPS, OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")  # source: cgroups(7)
M_MMAP_THRESHOLD = -3  # of mallopt(3)
TUNABLES = ":".join(
    f"glibc.malloc.{name}"
    for name in ("hugetlb=1", f"mmap_threshold={2**32}", f"trim_threshold={2**35}", f"top_pad={2**26}", "arena_max=1")
)


def available_bytes() -> int:
    """What this process may take now: of the machine, or of its control group where that leaves less."""
    import psutil  # which a plan need not wait for

    available = psutil.virtual_memory().available
    with contextlib.suppress(OSError):
        group = GROUPS / OWN_GROUP.read_text().rpartition("::")[2].strip().lstrip("/")
        for folder in (group, *group.parents):  # Slurm limits the job and the step, which hold the task's own group
            available = min(available, _left_in(folder) or available)
    return available


def _left_in(group: Path) -> int | None:
    """What a control group of version 2 has left; None: no limit. The cache of files does not count: it is dropped."""
    try:
        used, limit = (int((group / name).read_text()) for name in ("memory.current", "memory.max"))
        lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return max(1, limit - used + sum(int(size) for name, size in lines if name in ("inactive_file", "active_file")))


def needed_bytes(trial: Trial) -> int:
    """Estimate of the memory that it needs: of a training step, or of an evaluation where that takes more."""
    return max(_training_bytes(trial), _evaluation_bytes(trial))


def _training_bytes(trial: Trial) -> int:
    return parameters.training_memory_bytes(
        trial.model, trial.optimizer, trial.train.precision, trial.train.batch_size, trial.run.remat
    )


def _evaluation_bytes(trial: Trial) -> int:
    return parameters.prediction_memory_bytes(trial.model, trial.optimizer, trial.train.precision, PREDICT_BATCH)


def check(trial: Trial, free_bytes: int | None) -> None:
    """Hold the estimate of what a trial needs against the memory that is there.

    Args:   free_bytes: of its device; None: it uses the machine's own.
    Raises: DoesNotFit: gives both numbers.
    """
    _give_back()
    free = available_bytes() if free_bytes is None else free_bytes
    if free >= needed_bytes(trial):
        return
    what, less = f"an evaluation of {PREDICT_BATCH} images", "a smaller model"
    if _training_bytes(trial) > max(free, _evaluation_bytes(trial)):
        what = f"a step of train.batch_size {trial.train.batch_size}"
        less = f"{'' if trial.run.remat else 'run.remat=true, '}a smaller train.batch_size or model"
    raise DoesNotFit(
        f"{what} needs {needed_bytes(trial) / 2**30:.1f} GiB ({parameters.count(trial.model):,} parameters) and "
        f"{free / 2**30:.1f} GiB are free; nothing was allocated; set {less}, or take a device with more"
    )


def oom_kills() -> int:
    """Processes that the kernel has killed in this one's control group because its memory was out; 0 where unknown.

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


@contextlib.contextmanager
def large_pages() -> Iterator[None]:
    """Processes that are begun inside have pages of 2 MiB and keep what they free, where their C library is glibc.

    A training step allocates the same hundreds of MiB again and again. Measured without this: torch took 1.1 times as
    long; jax, whose threads would each have an arena of their own, 1.3 times. A GLIBC_TUNABLES of the user's stands.
    """
    given = os.environ.get("GLIBC_TUNABLES")
    os.environ.setdefault("GLIBC_TUNABLES", TUNABLES)
    try:
        yield
    finally:
        if given is None:
            del os.environ["GLIBC_TUNABLES"]


def reset_peak() -> None:
    """Begin a new measurement, where the system lets us; else the peak is that since the process began."""
    _give_back()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _give_back() -> None:
    """Return to the system what an earlier trial has left in this process."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def give_back_at_once(is_on: bool) -> None:
    """Whether what is freed goes back to the system at once; else it is kept for what is allocated next.

    A trial that computes its blocks again frees most of what it takes at once, and glibc's heap does not find room
    for the next of it in the holes: measured, 5 times the memory that the arrays have, and 0.7 of the step's time.
    """
    if os.environ.get("GLIBC_TUNABLES") != TUNABLES:
        return  # the user's own choice
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for threshold in (2**20,) if is_on else (2**31 - 1, 2**25):  # the last is the highest of an older glibc
            if mallopt(M_MMAP_THRESHOLD, threshold):
                return


def peak_bytes() -> int:
    """Highest resident memory since `reset_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
