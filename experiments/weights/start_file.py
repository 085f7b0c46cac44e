"""Files of weights that trials begin from, known by the numbers that they hold.

The name is a hash of the arrays in canonical form: the same weights have it under any path, in any format, in any
floating-point type that holds them. A file that has changed since a trial was planned is another start.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError
from experiments.files import stamp_of
from experiments.spec.trial import Start
from experiments.weights import weight_files
from experiments.weights.weight_files import Weights

FILE = "file"
DIGITS = 24  # of the hash, in hexadecimal


def start(path: Path) -> Start:
    """What a trial that begins from a file begins from. Raises: MixlabError: the file is no model's weights."""
    whole = path.absolute()
    return _start(whole, stamp_of(whole))


@lru_cache(maxsize=64)
def _start(path: Path, stamp: str) -> Start:
    weights = weight_files.read(path)
    return Start(name_of(weights.params), weights.model, str(path))


def read(path: Path, name: str) -> Weights:
    """The weights of a file. Args: name: theirs. Raises: MixlabError: it holds others, or none."""
    weights = weight_files.read(path)
    if (found := name_of(weights.params)) != name:
        raise MixlabError(
            f"{path}: expected the weights {name}, got {found}: the file has changed since; plan it again"
        )
    return weights


def name_of(params: Mapping[str, Array]) -> str:
    """`file:` and the hash of names, shapes and numbers."""
    digest = hashlib.sha256()
    for name in sorted(params):
        digest.update(f"{name} {params[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(params[name], "<f8").data)
    return f"{FILE}:{digest.hexdigest()[:DIGITS]}"
