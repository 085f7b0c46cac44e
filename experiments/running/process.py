"""The process of a worker: what it does with its cores, device, signals and pipe.

Trials come in over the pipe, events go out. When the parent dies it ends at once; the store is safe against that at any
instant.
"""

import os
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection

from experiments.machine.environment import ROOT
from experiments.running.events import Order, Stop, Train
from experiments.running.opener import WorkerSpec
from experiments.running.worker import Worker


def main(spec: WorkerSpec, connection: Connection) -> None:
    """Run trials until the parent says stop or goes away."""
    assert spec.root == ROOT, f"the parent's code is in {spec.root}, this worker's in {ROOT}"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to parent and workers; the parent decides
    os.sched_setaffinity(0, spec.cpus)  # XLA takes its number of threads from here
    _show_one_device(spec.device)
    stop, orders = threading.Event(), queue.SimpleQueue[Train | None]()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_listen, args=(connection, stop, orders), daemon=True).start()
    worker, has_compiled = Worker(spec, stop, connection.send), False
    while order := orders.get():
        has_compiled |= order.trials[0].run.compile
        worker.run(*order.trials, until=order.until)
    if has_compiled:
        return  # and let Inductor put its semaphores away, or Python warns of them
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # all is written; a framework takes up to a second to take itself down


def _listen(connection: Connection, stop: threading.Event, orders: "queue.SimpleQueue[Train | None]") -> None:
    while True:
        try:
            order: Order = connection.recv()
        except (EOFError, OSError):
            os._exit(1)
        if isinstance(order, Stop):
            stop.set()
        orders.put(order if isinstance(order, Train) else None)


def _show_one_device(device: str | None) -> None:
    """Hide all GPUs, or TPU chips, but the one that is named by its place among those that this process was given."""
    kind, _, index = (device or "").partition(":")
    if not index:
        return
    variable = "TPU_VISIBLE_CHIPS" if kind == "tpu" else "CUDA_VISIBLE_DEVICES"
    given = [name for name in os.environ.get(variable, "").split(",") if name]
    os.environ[variable] = given[int(index)] if int(index) < len(given) else index
    if kind == "tpu":
        # A process that says it has one chip of the host lets others have theirs. Not tried on a TPU.
        # Source: jax/_src/test_multiprocess.py; tensorflow/core/tpu/tpu_initializer_helper.cc, TryAcquireTpuLock.
        os.environ |= {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
