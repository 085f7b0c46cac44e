"""Predictions of a trial that is done: what its last and its best evaluation said of each validation and test example.

`predictions.safetensors.gz` holds, in the order of the split, the class of the largest logit (`test/last`, `test/best`,
`validation/last`, ...), the true class (`test/labels`) and the key of the examples (`test/examples`). An example is
right where both classes are equal, and the share of these is the accuracy in the record. A split without examples has
no array. Arrays of a split lie beside each other, so that gzip finds what they share; its checksum finds damage.

What an evaluation said cannot be said again by a run that goes on later, perhaps on another framework. So it is saved
with a checkpoint whose curve has that evaluation as its best or its last, as `predictions-<step>.safetensors.gz`; see
kept.py.
"""

import gzip
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as unpacked
from safetensors.numpy import save as packed

from backends.arrays import Array
from experiments.files import write_whole
from experiments.results.metrics import SPLITS

if TYPE_CHECKING:  # readers of a store need no data
    from experiments.data import Splits

FILE = "predictions.safetensors.gz"
KEPT_SPLITS = SPLITS[1:]  # of the examples that were trained on, none are kept
Classes = Mapping[str, Array]  # by split, what one evaluation said of each example
DAMAGE = (OSError, EOFError, zlib.error, SafetensorError, KeyError)


@dataclass(frozen=True, eq=False)
class Predicted:
    """What one evaluation said of the examples of a split.

    classes: uint16 (n,), of the largest logit (uint32 where there are more than 65,536).
    correct: bool (n,), whether it is the true one; the mean is the accuracy in the record.
    examples: equal for two trials exactly if their examples are the same, in the same order.
    """

    classes: Array
    correct: Array
    examples: str


def read(folder: Path, when: str, split: str) -> Predicted | None:
    """The predictions of a trial; None: it has none of them, or its file is damaged (`why_none` tells which).

    Args: folder: of the trial.    when: last or best.    split: validation or test.
    """
    try:
        held = _read(folder / FILE)
        classes, true = held[f"{split}/{when}"], held[f"{split}/labels"]
        return Predicted(_wide(classes), classes == true, held[f"{split}/examples"].tobytes().hex())
    except DAMAGE:
        return None


def labels(folder: Path, split: str) -> Array | None:
    """The true classes of a split, as `Predicted.classes`; None as for `read`."""
    try:
        return _wide(_read(folder / FILE)[f"{split}/labels"])
    except DAMAGE:
        return None


def why_none(folder: Path) -> str:
    """The reason why `read` gives None for a done trial, in words."""
    try:
        _read(folder / FILE)
    except FileNotFoundError:
        return "no predictions: an earlier version of Mixlab kept none, or they were removed"
    except DAMAGE as error:
        return f"no predictions: {folder / FILE} is damaged: {error}"
    return "no predictions: the split has no examples, or the evaluation's could not be kept (see notes)"


def keep(folder: Path, splits: "Splits", content: str, said: Mapping[str, Classes]) -> None:
    """Keep the predictions of a trial.

    Args:   content: of the data, see DataInfo.    said: by last and best; one that is not known is left out.
    Raises: StoreError.
    """
    arrays = {f"{split}/{when}": x for when, one in said.items() for split, x in one.items()}
    for split in KEPT_SPLITS:
        if len(indices := getattr(splits, split)):
            true, key = splits.labels[indices], examples_key(content, indices)
            arrays[f"{split}/labels"] = true.astype(np.min_scalar_type(int(true.max())))
            arrays[f"{split}/examples"] = np.frombuffer(bytes.fromhex(key), np.uint8)
    write_whole(folder / FILE, _content(arrays))


def forget(folder: Path) -> None:
    """Remove the predictions of a trial."""
    (folder / FILE).unlink(missing_ok=True)


def save(folder: Path, step: int, said: Classes) -> None:
    """Save what the evaluation of a step said, for a checkpoint. Raises: StoreError."""
    write_whole(saved_path(folder, step), _content(said))


def saved(folder: Path, step: int) -> Classes | None:
    """What `save` saved; None: it is not there, or damaged."""
    try:
        return _read(saved_path(folder, step))
    except DAMAGE:
        return None


def saved_path(folder: Path, step: int) -> Path:
    return folder / f"predictions-{step:08d}.safetensors.gz"


def examples_key(content: str, indices: Array) -> str:
    """The name of examples in an order. Args: content: of the data, see DataInfo.    indices: int32 (n,), into it."""
    digest = hashlib.sha256(content.encode())
    digest.update(np.ascontiguousarray(indices, "<i4").data)
    return digest.hexdigest()[:24]


def _read(path: Path) -> dict[str, Array]:
    """Raises: FileNotFoundError, or another of DAMAGE."""
    return dict(unpacked(gzip.decompress(path.read_bytes())))


def _content(arrays: Mapping[str, Array]) -> bytes:
    """The file of these arrays, the same bytes for the same arrays."""
    return gzip.compress(packed(dict(arrays)), mtime=0)


def _wide(classes: Array) -> Array:
    return classes.astype(np.promote_types(classes.dtype, np.uint16))
