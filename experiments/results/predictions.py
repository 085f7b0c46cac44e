"""Predictions of a trial that is done: what its last and its best evaluation said of each validation and test example.

`predictions.npz` holds, compressed, the class of the largest logit, `last.test`, `best.validation`, ..., and the true
classes, `labels.test`, ..., in the order of the split; `about` is JSON that names, by split, its examples. An example is
right where both are equal, and the share of these is the accuracy in the record. A split without examples has no array.

What an evaluation said cannot be said again by a run that goes on later, perhaps on another framework. So it is saved
with a checkpoint whose curve has that evaluation as its best or its last, as `predictions-<step>.npz`; see kept.py.
"""

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.arrays import Array
from experiments.data import Splits
from experiments.files import write_whole
from experiments.results.metrics import SPLITS

FILE = "predictions.npz"
KEPT_SPLITS = SPLITS[1:]  # of the examples that were trained on, none are kept
Classes = Mapping[str, Array]  # by split, what one evaluation said of each example
DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


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
    """The predictions of a trial; None: it has none of them, or its file is damaged (`line` tells which).

    Args: folder: of the trial.    when: last or best.    split: validation or test.
    """
    try:
        held = _read(folder / FILE)
        classes, labels = held[f"{when}.{split}"], held[f"labels.{split}"]
        return Predicted(_wide(classes), classes == labels, str(json.loads(str(held["about"]))["examples"][split]))
    except DAMAGE:
        return None


def labels(folder: Path, split: str) -> Array | None:
    """The true classes of a split, as `Predicted.classes`; None as for `read`."""
    try:
        return _wide(_read(folder / FILE)[f"labels.{split}"])
    except DAMAGE:
        return None


def keep(folder: Path, splits: Splits, content: str, said: Mapping[str, Classes]) -> None:
    """Keep the predictions of a trial.

    Args:   content: of the data, see DataInfo.    said: by last and best; one that is not known is left out.
    Raises: StoreError.
    """
    indices = {split: getattr(splits, split) for split in KEPT_SPLITS}
    true = {split: splits.labels[indices[split]] for split in KEPT_SPLITS if len(indices[split])}
    arrays: dict[str, Any] = {f"{when}.{split}": x for when, one in said.items() for split, x in one.items()}
    arrays |= {f"labels.{split}": x.astype(_type_of(x)) for split, x in true.items()}
    about = {"examples": {split: examples_key(content, indices[split]) for split in true}}
    write_whole(folder / FILE, _content(arrays | {"about": np.array(json.dumps(about))}))


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
    return folder / f"predictions-{step:08d}.npz"


def examples_key(content: str, indices: Array) -> str:
    """The name of examples in an order. Args: content: of the data, see DataInfo.    indices: int32 (n,), into it."""
    digest = hashlib.sha256(content.encode())
    digest.update(np.ascontiguousarray(indices, "<i4").data)
    return digest.hexdigest()[:24]


def _read(path: Path) -> dict[str, Array]:
    """Raises: FileNotFoundError, or another of DAMAGE."""
    with np.load(path, allow_pickle=False) as held:
        return dict(held)


def _wide(classes: Array) -> Array:
    return classes.astype(np.promote_types(classes.dtype, np.uint16))


def _type_of(labels: Array) -> np.dtype[Any]:
    """The smallest type that holds these classes."""
    return np.min_scalar_type(int(labels.max()))


def _content(arrays: Mapping[str, Any]) -> bytes:
    """The file of these arrays, the same bytes for the same arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
