"""How a job leaves before its work is done: back into the queue, or with its whole array."""

import contextlib
import json
import os
import time

from backends.errors import MixlabError, show_chain
from experiments.files import replace
from experiments.machine.environment import slurm_job
from experiments.running.failures import Failure
from slurm import client, ledger

REQUEUES, REQUEUE_WAIT_S = 5, 2.0  # tries to reach the controller before a job gives up


def stop_array(array: ledger.Array, failure: Failure) -> int:
    """Stop an array whose every job would fail as this one does, and cancel those that wait. Returns the exit code."""
    print(f"mixlab: {failure.reason}; the array is stopped", flush=True)
    with contextlib.suppress(OSError):  # for the jobs that have left the queue and look here before they begin
        replace(array.stop_file, json.dumps({"cause": failure.cause, "reason": failure.reason}).encode())
    if array.job:
        with contextlib.suppress(MixlabError):
            client.cancel("--state=PENDING", array.job)
    return 1


def requeue() -> int:
    """Put this job back into the queue; Slurm ends it then. Returns the exit code of one that could not be."""
    job = slurm_job()["job"]
    for _ in range(REQUEUES):
        try:
            print(f"mixlab: job {job} goes back into the queue", flush=True)
            client.requeue(job)
        except MixlabError as error:
            show_chain(error)
            print(f"mixlab: {error}", flush=True)  # a controller that restarts answers again within seconds
            time.sleep(REQUEUE_WAIT_S)
        else:
            os._exit(0)  # a return would have submitit write a result, by which the job would count as ended
    return 1
