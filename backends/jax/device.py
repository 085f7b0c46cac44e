"""Devices, numerics, and the data on the device."""

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from backends import devices
from backends.arrays import Array
from backends.contract import ArrayDataset
from backends.errors import MixlabError, first_line
from backends.jax.augment import Data, row_shape
from backends.specs import RunSpec

YNN_FUSION = "xla_cpu_experimental_ynn_fusion_type"


def open_device(name: str) -> jax.Device:
    """The device of a name, see devices.py.  Raises: MixlabError: it is not there."""
    kind, index = devices.read(name)
    found: list[jax.Device] = []
    reason = ""
    try:
        found = jax.local_devices(backend=None if kind == "auto" else kind)
    except RuntimeError as error:  # such as: no driver, or another process has the TPU
        reason = first_line(error)
    if index < len(found):
        return found[index]
    raise devices.missing(name, _names(), reason)


def _names() -> list[str]:
    """The names of the devices that JAX finds here, CPUs apart."""
    try:
        platforms = [device.platform for device in jax.local_devices() if device.platform != "cpu"]
    except RuntimeError:
        return []
    return [f"{platform.replace('gpu', 'cuda')}:{i}" for i, platform in enumerate(platforms)]


def check(run: RunSpec) -> None:
    """Check a run's device and precision.  Raises: MixlabError: it is not there, or does not have that precision."""
    device = open_device(run.device)
    if run.precision == "tf32" and device.platform != "gpu":
        # XLA would take three bfloat16 passes on a TPU; see DTYPES.
        raise MixlabError(f"train.precision: tf32 needs a CUDA device, got {device.platform!r}; use float32")
    if run.precision == "float64" and device.platform == "tpu":
        # XLA rewrites float64 to float32s there, and JAX's own tests leave it out: jax/_src/test_util.py,
        # supported_dtypes. Nobody says how many digits are right, and float64 is what proofs here rest on.
        raise MixlabError("train.precision: float64 needs a CPU or a CUDA device, got 'tpu'; use float32")


def set_numerics(run: RunSpec) -> None:
    """Set XLA's flags, which its first device reads: no wider rounding in fused chains, the same bits each time."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several workers may share a GPU
    _set_flags({"xla_allow_excess_precision": "false", "xla_gpu_deterministic_ops": str(run.deterministic).lower()})
    if run.compile_cache:
        jax.config.update("jax_compilation_cache_dir", str(run.compile_cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


_added: set[str] = set()  # names of flags that this process has added; the others are the user's


def _set_flags(wanted: Mapping[str, str]) -> None:
    """Add flags to those of XLA_FLAGS. One that is there by its very name stays as it is; a line says so."""
    present = _environment_flags()
    values = dict(word.removeprefix("--").partition("=")[::2] for word in present)
    for name in wanted.keys() & values.keys() - _added:
        _added.add(name)
        if (values[name] or "true").lower() not in (wanted[name], {"true": "1", "false": "0"}[wanted[name]]):
            print(
                f"mixlab: XLA_FLAGS sets --{name}={values[name] or 'true'}, which stays; mixlab sets {wanted[name]}",
                file=sys.stderr,
                flush=True,
            )
    ours = [f"--{name}={value}" for name, value in wanted.items() if name not in values]
    _added.update(wanted.keys() - values.keys())
    if ours:
        os.environ["XLA_FLAGS"] = " ".join([*present, *ours])


def flags_for(device: jax.Device) -> str:
    """The flags of XLA that this process has, without those of GPUs where the device is none."""
    return " ".join(x for x in _environment_flags() if device.platform == "gpu" or not x.startswith("--xla_gpu_"))


def _environment_flags() -> list[str]:
    """The words of XLA_FLAGS, or of the file that it names.

    Source: openxla/xla, xla/parse_flags_from_env.cc: what does not begin with '-' is the name of a file.
    Raises: MixlabError: that file cannot be read.
    """
    text = os.environ.get("XLA_FLAGS", "").strip()
    if text and not text.startswith("-"):
        try:
            text = Path(text).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise MixlabError(
                f"environment: XLA_FLAGS: expected flags (--name=value ...) or a file of them, got {text!r}"
            ) from error
    return text.split()


def compiled(lowered: jax.stages.Lowered, device: jax.Device, remat: bool) -> jax.stages.Compiled:
    """A lowered function, compiled with the options that its device needs.

    On a CPU, XLA does without the matrix products of YNNPACK, with which a step takes 1.2 to 1.6 times as long. With
    remat it also does without the pass that drops the barriers of remat there: after it, XLA finds that what is to be
    computed again has been computed before, and keeps it.
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
    """Bytes that are free on the device now; None where it does not say, as on a CPU."""
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None


def peak_memory_bytes(device: jax.Device) -> int | None:
    """Peak of the device's memory in bytes; None where it does not say, as on a CPU."""
    return (device.memory_stats() or {}).get("peak_bytes_in_use")


_placed: list[tuple[ArrayDataset, jax.Device, Data]] = []  # the last data set, which trials of a grid share


def place(dataset: ArrayDataset, device: jax.Device) -> Data:
    """The data set on the device, copied there unless it is the one that was placed last."""
    if not (_placed and _placed[0][0] is dataset and _placed[0][1] == device):
        _, side, _, channels = dataset.images.shape
        arrays = (_in_rows(dataset.images, device.platform), dataset.labels, dataset.pixel_order)
        images, labels, order = jax.device_put(arrays, device)
        _placed[:] = [(dataset, device, Data(images, labels, order, side=side, channels=channels))]
    return _placed[0][2]


def _in_rows(images: Array, platform: str) -> Array:
    """The images (n, h, w, channels) as Data keeps them."""
    flat = images.reshape(len(images), math.prod(images.shape[1:]))
    rows, width = row_shape(flat.shape[1], platform)
    if rows * width > flat.shape[1]:
        flat = np.pad(flat, [(0, 0), (0, rows * width - flat.shape[1])])
    return flat.reshape(-1, width)
