"""The process of a worker: what it does with its cores, GPU, signals and pipe.

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
from experiments.running.worker import Worker, WorkerSpec
from experiments.spec.trial import Trial


def main(spec: WorkerSpec, connection: Connection) -> None:
    """Run trials until the parent says stop or goes away."""
    assert spec.root == ROOT, f"the parent's code is in {spec.root}, this worker's in {ROOT}"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to parent and workers; the parent decides
    os.sched_setaffinity(0, spec.cpus)  # XLA takes its number of threads from here
    _show_one_gpu(spec.device)
    stop, trials = threading.Event(), queue.SimpleQueue[tuple[Trial, ...]]()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_listen, args=(connection, stop, trials), daemon=True).start()
    worker, has_compiled = Worker(spec, stop, connection.send), False
    while together := trials.get():
        has_compiled |= together[0].run.compile
        worker.run(*together)
    if has_compiled:
        return  # and let Inductor put its semaphores away, or Python warns of them
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # all is written; a framework takes up to a second to take itself down


def _listen(connection: Connection, stop: threading.Event, trials: "queue.SimpleQueue[tuple[Trial, ...]]") -> None:
    while True:
        try:
            order: Order = connection.recv()
        except (EOFError, OSError):
            os._exit(1)
        if isinstance(order, Stop):
            stop.set()
        trials.put(order.trials if isinstance(order, Train) else ())


def _show_one_gpu(device: str | None) -> None:
    """Hide all GPUs but the one that is named by its place among those that this process was given."""
    index = (device or "").partition(":")[2]
    if index:
        given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        os.environ["CUDA_VISIBLE_DEVICES"] = given[int(index)] if int(index) < len(given) else index
