"""Content of a file of arrays, whatever its form."""

from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from backends.arrays import Array, State

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@dataclass(frozen=True, eq=False)
class Content:
    """The content of a file.

    arrays: by name, those of nested mappings as `outer/inner`.   metadata: text by name, of safetensors.
    skipped: objects that are no arrays, counted by the name of what makes them.   settings: of the training script.
    """

    arrays: State
    metadata: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


class NotWeights(ValueError):
    """The error that a whole file is no weights. The text says what it is, and the way to weights."""


def widened(array: Array) -> Array:
    """The array with bfloat16 as float32, exactly: the type that all readers of weights can compute in."""
    return array.astype(np.float32, order="C") if array.dtype == BFLOAT16 else array
