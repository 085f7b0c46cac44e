"""The first layers of a trained model, kept of every trial that is done, as the paper draws them.

`filters.safetensors` holds, in float32, the evaluated weights of the parameters that the model's family names: of a
Mixer the stem, (P, P, c, C), and the first token-mixing kernel, (rows, D_S).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import load_file, save

from backends.arrays import Array
from backends.models import family_of
from experiments.files import write_whole
from experiments.results.kept import evaluated
from experiments.spec.trial import Trial

FILE = "filters.safetensors"


def keep(folder: Path, trial: Trial, state: Mapping[str, Array]) -> None:
    """Keep the first layers of a trial. Args: state: of training, by state name. Raises: StoreError."""
    weights = evaluated(trial, state)
    chosen = family_of(trial.model).first_layers(trial.model)
    first = {name: weights[name] if copy is None else weights[name][copy] for name, copy in chosen.items()}
    write_whole(folder / FILE, save({name: np.ascontiguousarray(x, np.float32) for name, x in first.items()}))


def read(folder: Path) -> dict[str, Array] | None:
    """The first layers of a trial by canonical name; None if it has none, or its file is damaged."""
    try:
        return dict(load_file(folder / FILE))
    except (OSError, safetensors.SafetensorError, ValueError):
        return None
