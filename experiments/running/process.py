"""The process of a worker: what it does with its cores, device, signals and pipe.

Trials come in over the pipe, events go out. When the parent dies it ends at once; the store is safe against that at any
instant.
"""

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from experiments.running.events import Beat, Order, Stop, Told, Train
from experiments.running.meeting import BEAT_S
from experiments.running.opener import WorkerSpec
from experiments.running.place import take_place
from experiments.running.worker import Worker


def main(spec: WorkerSpec, connection: Connection) -> None:
    """Run trials until the parent says stop or goes away."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to parent and workers; the parent decides
    take_place(spec)
    stop, orders = threading.Event(), queue.SimpleQueue[Train | None]()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_listen, args=(connection, stop, orders), daemon=True).start()
    send, works = _one_after_the_other(connection.send), threading.Event()
    if spec.num_devices > 1:
        threading.Thread(target=_beat, args=(send, works), daemon=True).start()
    worker, has_compiled = Worker(spec, stop, send), False
    while order := orders.get():
        has_compiled |= order.trials[0].run.compile
        works.set()
        worker.run(*order.trials, until=order.until)
        works.clear()
    worker.close()
    if has_compiled:
        return  # and let Inductor put its semaphores away, or Python warns of them
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # all is written; a framework takes up to a second to take itself down


def _one_after_the_other(send: Callable[[Told], None]) -> Callable[[Told], None]:
    """The same for several threads, whose words would else be mixed in the pipe."""
    lock = threading.Lock()

    def locked(told: Told) -> None:
        with lock:
            send(told)

    return locked


def _beat(send: Callable[[Told], None], works: threading.Event) -> None:
    """Show that this process lives; while it has no trials, nobody listens."""
    while works.wait():
        send(Beat())
        time.sleep(BEAT_S)


def _listen(connection: Connection, stop: threading.Event, orders: "queue.SimpleQueue[Train | None]") -> None:
    while True:
        try:
            order: Order = connection.recv()
        except (EOFError, OSError):
            os._exit(1)
        if isinstance(order, Stop):
            stop.set()
        orders.put(order if isinstance(order, Train) else None)
