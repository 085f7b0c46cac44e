"""Devices, numerics, and the data on the device."""

import os

import torch

from backends import devices
from backends.contract import ArrayDataset
from backends.errors import MixlabError
from backends.specs import RunSpec
from backends.torch.augment import Data


def open_device(name: str) -> torch.device:
    """The device of a name, see devices.py.  Raises: MixlabError: it is not there."""
    kind, index = devices.read(name)
    devices.check_backend(name, "torch")
    if kind == "cpu" or (kind == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if index >= torch.cuda.device_count():
        raise devices.missing(name, [f"cuda:{i}" for i in range(torch.cuda.device_count())])
    return torch.device("cuda", index)


def check(run: RunSpec) -> None:
    """Check a run's device and precision.  Raises: MixlabError: it is not there, or does not have that precision."""
    device = open_device(run.device)
    if run.precision == "tf32" and device.type != "cuda":
        raise MixlabError(f"train.precision: tf32 needs a CUDA device, got {device.type!r}; use float32")


def set_numerics(run: RunSpec) -> None:
    """Set PyTorch's threads and flags: IEEE float32 unless tf32 is asked for, and the same bits each time."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if run.compile_cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(run.compile_cache)
    torch.set_num_threads(run.threads)
    torch.set_float32_matmul_precision("high" if run.precision == "tf32" else "highest")
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    _set_deterministic(run)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # one pass less


def _set_deterministic(run: RunSpec) -> None:
    """Make an operation that does not repeat its bits an error."""
    if run.compile:
        torch.use_deterministic_algorithms(run.deterministic)  # tells Inductor too, whose import takes over a second
    else:
        torch.set_deterministic_debug_mode("error" if run.deterministic else "default")


def free_memory_bytes(device: torch.device) -> int | None:
    """Bytes that are free on the device now; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()  # what an earlier trial has left counts as used otherwise
    return torch.cuda.mem_get_info(device)[0]


def reset_peak_memory(device: torch.device) -> None:
    """Count the peak from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes(device: torch.device) -> int | None:
    """Peak of the device's memory in bytes; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


_placed: list[tuple[ArrayDataset, torch.device, Data]] = []  # the last data set, which trials of a grid share


def place(dataset: ArrayDataset, device: torch.device) -> Data:
    """The data set on the device, copied there unless it is the one that was placed last."""
    if not (_placed and _placed[0][0] is dataset and _placed[0][1] == device):
        num, height, width, channels = dataset.images.shape
        images, labels = dataset.images.reshape(num, height * width, channels), dataset.labels
        order = None if dataset.pixel_order is None else torch.tensor(dataset.pixel_order, device=device).long()
        placed = Data(torch.tensor(images, device=device), torch.tensor(labels, device=device).long(), order)
        _placed[:] = [(dataset, device, placed)]
    return _placed[0][2]
