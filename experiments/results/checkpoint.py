"""Checkpoints that no framework owns: a training state as safetensors, with canonical names and a checksum.

Arrays are float32 or float64 under their state names (`params/...`, `first_moment/...`, ...). The metadata holds, as
JSON, what else is needed to go on: see experiments/training/trial_run.py. The checksum covers both.
"""

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from backends.arrays import Array, State
from experiments.files import write_whole

# Of each array, by the name that it has in the metadata. SHA-256, which older files have, takes longer than the disk.
CHECKSUM = "crc32"
CHECKSUMS: Mapping[str, Callable[[Array], Any]] = {
    "crc32": lambda array: zlib.crc32(array.data).to_bytes(4, "big"),
    "sha256": lambda array: array.data,
}


class CorruptCheckpoint(Exception):
    """The error that a file is truncated, changed, or of another model. The text says how."""


def write(path: Path, state: Mapping[str, Array], progress: Mapping[str, Any]) -> None:
    """Replace the checkpoint once the new one is whole; the one before is kept as `before(path)`.

    Raises: StoreError: no space, no permission; both checkpoints are as they were.
    """
    write_whole(path, pack(state, progress), keep=before(path))


def before(path: Path) -> Path:
    """The path of the checkpoint before the last one."""
    return path.with_name(f"previous-{path.name}")


def pack(state: Mapping[str, Array], progress: Mapping[str, Any]) -> bytes:
    """The content of a checkpoint."""
    text = json.dumps(progress, sort_keys=True)
    arrays = {name: np.ascontiguousarray(array) for name, array in state.items()}
    metadata = {"mixlab": text, CHECKSUM: _checksum(arrays, text, CHECKSUM)}
    return bytes(save(arrays, metadata=metadata))


def read(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[State, dict[str, Any]]:
    """Read the state and the progress, and check them.

    Args:   shapes: those that the model's state must have, by name.
    Raises: CorruptCheckpoint.   FileNotFoundError: there is none.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise CorruptCheckpoint(f"it does not load ({error})") from error
    kind = next((name for name in CHECKSUMS if set(metadata) == {"mixlab", name}), None)
    if kind is None or metadata[kind] != _checksum(state, metadata["mixlab"], kind):
        raise CorruptCheckpoint("its checksum does not match its content")
    if {name: array.shape for name, array in state.items()} != dict(shapes):
        raise CorruptCheckpoint("its arrays are those of another model or optimizer")
    return state, json.loads(metadata["mixlab"])


def read_progress(path: Path) -> dict[str, Any]:
    """The progress alone, without the arrays and unchecked against them.

    Raises: CorruptCheckpoint.   FileNotFoundError: there is none.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            progress: dict[str, Any] = json.loads((file.metadata() or {})["mixlab"])
    except (SafetensorError, ValueError, KeyError) as error:
        raise CorruptCheckpoint(f"it does not load ({error})") from error
    return progress


def newest_progress(last: Path) -> dict[str, Any] | None:
    """The progress of the last checkpoint, or of the one before it, that can be opened."""
    for path in (last, before(last)):
        with contextlib.suppress(FileNotFoundError, CorruptCheckpoint):
            return read_progress(path)
    return None


def newest_step(last: Path) -> int:
    """The step that a trial with these checkpoints would go on from; 0 without one."""
    progress = newest_progress(last)
    return int(progress["step"]) if progress else 0


def _checksum(arrays: Mapping[str, Array], text: str, kind: str) -> str:
    digest, names = hashlib.sha256(text.encode()), sorted(arrays)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:  # zlib releases the interpreter's lock
        checksums = threads.map(lambda name: CHECKSUMS[kind](arrays[name]), names)
        for name, checksum in zip(names, checksums, strict=True):
            digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
            digest.update(checksum)
    return digest.hexdigest()
