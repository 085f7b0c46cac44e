"""The worker of a slot: hired, told what to do, dismissed."""

import multiprocessing
import signal
from multiprocessing import resource_tracker

from experiments.machine import malloc
from experiments.running.events import End, Order
from experiments.running.opener import WorkerSpec
from experiments.running.pool import Slot
from experiments.running.process import main

# A spawned worker gets this process's sys.path before its first import, and so this process's code; the fork server of
# Python 3.11 would import what it preloads from wherever its own path leads.
_CONTEXT = multiprocessing.get_context("spawn")


def hire(slot: Slot, spec: WorkerSpec, num_devices: int) -> None:
    """Start a worker in an empty slot.  Args: num_devices: of each of its trials."""
    slot.connection, theirs = _CONTEXT.Pipe()
    slot.process = _CONTEXT.Process(target=main, args=(spec, theirs), name=f"mixlab-{spec.backend}")
    resource_tracker.ensure_running()  # else begun by the first start(), which would let Ctrl-C through again
    # inherited: workers leave to us what a terminal or Slurm sends to all of our processes
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2})
    with malloc.large_pages():
        slot.process.start()
    signal.pthread_sigmask(signal.SIG_SETMASK, held)
    theirs.close()
    slot.backend, slot.num_devices = spec.backend, num_devices
    slot.silence = slot.lost = None


def send(slot: Slot, order: Order) -> None:
    """Send to a worker; one that has just died is found out by its silence."""
    assert slot.connection is not None
    try:
        slot.connection.send(order)
    except OSError:
        return


def dismiss(slot: Slot) -> None:
    if slot.process is None:
        return
    send(slot, End())
    slot.process.join(timeout=10)
    if slot.process.is_alive():
        slot.process.kill()
        slot.process.join()
    slot.process = slot.connection = slot.backend = None
    slot.is_spent = False
