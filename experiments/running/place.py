"""The cores and the device that a process of a pool is for."""

import os

from experiments.machine.environment import ROOT
from experiments.running.opener import WorkerSpec


def take_place(spec: WorkerSpec) -> None:
    """Take the cores and the device that this process is for."""
    assert spec.root == ROOT, f"the parent's code is in {spec.root}, this worker's in {ROOT}"
    os.sched_setaffinity(0, spec.cpus)  # XLA takes its number of threads from here
    _show_one_device(spec.device)


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
