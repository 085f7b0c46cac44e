"""Memory from the C library, for this process and those that it starts, and when it goes back to the system."""

import contextlib
import ctypes
import os
from collections.abc import Iterator

# Source: the GNU C Library's manual, "Memory Allocation Tunables". Thresholds in bytes.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
SMALL, LARGE = 2**20, 2**26  # from these sizes on, what is freed goes back
TUNABLES = ":".join(
    f"glibc.malloc.{name}"
    for name in ("hugetlb=1", f"mmap_threshold={2**32}", f"trim_threshold={2**35}", f"top_pad={2**26}", "arena_max=1")
)


@contextlib.contextmanager
def large_pages() -> Iterator[None]:
    """Give processes that are started inside pages of 2 MiB, and let them keep what they free, with glibc.

    A training step allocates the same hundreds of MiB again and again. Measured without this: torch took 1.1 times as
    long; jax, whose threads would each have an arena of their own, 1.3 times. A GLIBC_TUNABLES of the user's stands.
    """
    own = os.environ.get("GLIBC_TUNABLES")
    os.environ.setdefault("GLIBC_TUNABLES", TUNABLES)
    try:
        yield
    finally:
        if own is None:
            del os.environ["GLIBC_TUNABLES"]


def keep_freed() -> None:
    """Keep what this process frees for what it allocates next, of arrays up to 32 MiB.

    Measured where one image after the other is decoded: pages that go back and come again took a third of the time.
    """
    with contextlib.suppress(AttributeError):  # glibc alone has it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 2**25)  # the highest that it takes
        mallopt(M_TRIM_THRESHOLD, 2**28)


def give_back_at_once(is_on: bool, is_roomy: bool = True) -> None:
    """Let what is freed go back to the system at once, or, if not `is_on`, keep it for what is allocated next.

    A trial that computes its blocks again frees most of what it takes at once, and glibc's heap does not find room
    for the next of it in the holes: measured, 5 times the memory that the arrays have, and 0.7 of the step's time.

    Args: is_roomy: there is memory for the holes of any trial. Else what is large goes back: kept, jax took up to 2.6
        times what its arrays have, and equal trials in PyTorch differed by half; given back, a step of jax at
        CIFAR-10's sizes took 1.35 times as long.
    """
    if os.environ.get("GLIBC_TUNABLES") != TUNABLES:
        return  # the user's own choice
    # The last is the highest that an older glibc takes.
    thresholds = (SMALL,) if is_on else (2**31 - 1, 2**25) if is_roomy else (LARGE, 2**25)
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for threshold in thresholds:
            if mallopt(M_MMAP_THRESHOLD, threshold):
                return
