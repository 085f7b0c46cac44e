"""Devices, numerics, and the data on the device."""

import os

import jax

from backends.contract import ArrayDataset, RunSpec
from backends.errors import MixlabError
from backends.jax.batch import Data

YNN_FUSION = "xla_cpu_experimental_ynn_fusion_type"


def open_device(name: str) -> jax.Device:
    if name == "auto":
        return jax.devices()[0]
    platform, _, index = name.partition(":")
    return jax.devices(platform)[int(index or 0)]


def check(run: RunSpec) -> None:
    try:
        device = open_device(run.device)
    except (RuntimeError, ValueError, IndexError) as error:
        found = [device for device in jax.devices() if device.platform == "gpu"]
        seen = ", ".join(["cpu", *(f"cuda:{i}" for i in range(len(found)))])
        raise MixlabError(f"run.device: {run.device!r} is not there; allowed here: auto, {seen}") from error
    if run.precision == "tf32" and device.platform != "gpu":
        raise MixlabError(f"train.precision: tf32 needs a CUDA device, not {device.platform!r}; use float32")


def set_numerics(run: RunSpec) -> None:
    """XLA reads its flags with the first device: no wider rounding in fused chains; a GPU repeats its bits."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several workers may share a GPU
    flags = f"--xla_allow_excess_precision=false --xla_gpu_deterministic_ops={str(run.deterministic).lower()}"
    given = os.environ.get("XLA_FLAGS", "")
    if "xla_allow_excess_precision" not in given:
        os.environ["XLA_FLAGS"] = f"{flags} {given}"
    if run.compile_cache:
        jax.config.update("jax_compilation_cache_dir", str(run.compile_cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def compiled(lowered: jax.stages.Lowered, device: jax.Device, remat: bool) -> jax.stages.Compiled:
    """On a CPU without the matrix products of YNNPACK, with which a step takes 1.2 to 1.6 times as long.

    And with remat without the pass that drops its barriers there, after which XLA finds that what is to be computed
    again has been computed before, and keeps it.
    """
    if device.platform != "cpu":
        return lowered.compile()
    options: dict[str, str | bool] = {"xla_disable_hlo_passes": "cse_barrier_expander"} if remat else {}
    try:
        return lowered.compile({**options, YNN_FUSION: "LIBRARY_FUSION_TYPE_REDUCE"})
    except jax.errors.JaxRuntimeError as error:
        if YNN_FUSION not in str(error):
            raise
        return lowered.compile(options)  # another version has no such choice


def free_memory_bytes(device: jax.Device) -> int | None:
    found = device.memory_stats() or {}
    return found["bytes_limit"] - found["bytes_in_use"] if "bytes_limit" in found else None


def peak_memory_bytes(device: jax.Device) -> int | None:
    return (device.memory_stats() or {}).get("peak_bytes_in_use")


_placed: list[tuple[ArrayDataset, jax.Device, Data]] = []  # the last data set, which trials of a grid share


def place(dataset: ArrayDataset, device: jax.Device) -> Data:
    if not (_placed and _placed[0][0] is dataset and _placed[0][1] == device):
        images = dataset.images.reshape(len(dataset.images), -1, dataset.images.shape[-1])
        arrays = (images, dataset.labels, dataset.pixel_order)
        _placed[:] = [(dataset, device, Data(*jax.device_put(arrays, device)))]
    return _placed[0][2]
