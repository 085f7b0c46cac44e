"""What the tests of sources share: files made by hand, and what is read of them."""

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.arrays import Array
from backends.errors import MixlabError
from experiments import data
from experiments.spec.config import DataConfig
from tests import sources
from tests.sources import WHERE

SIDE = 5


def given(source: Path, **fields: Any) -> DataConfig:
    return DataConfig(source=str(source), **{"validation_fraction": 0.0, **fields})


def read(source: Path, cache: Path, **fields: Any) -> tuple[Array, list[int], data.Splits]:
    """Images and labels of all examples, the training split first, and the splits."""
    config = given(source, **fields)
    info = data.describe(config, cache, WHERE)
    splits = data.load(config, info, cache)
    return np.asarray(splits.images), splits.labels.tolist(), splits


def refusal(source: Path, cache: Path, **fields: Any) -> str:
    with pytest.raises(MixlabError) as caught:
        data.describe(given(source, **fields), cache, WHERE)
    message = str(caught.value)
    assert message.startswith(f"{WHERE}: data.") and "\n" not in message and len(message) < 450
    return message


def said(source: Path, cache: Path, **fields: Any) -> tuple[str, ...]:
    config = given(source, **fields)
    notes: tuple[str, ...] = data.facts(config, data.describe(config, cache, WHERE), cache).notes
    return notes


def noise(num: int, *shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (num, *shape), dtype=np.uint8)


def png(value: int, size: int = SIDE) -> bytes:
    return sources.png(value, size=(size, size))


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as made:  # type: ignore[call-overload]
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return path


def cifar_batch(num: int, seed: int, key: Any = bytes, name: str = "labels") -> dict[Any, Any]:
    labels = [row % 3 for row in range(num)]
    content = {"data": noise(num, 3072, seed=seed), name: labels, "filenames": ["x.png"] * num, "batch_label": "x"}
    return {key(word, "ascii") if key is bytes else word: value for word, value in content.items()}


def write_cifar10(folder: Path, protocol: int = 2, key: Any = bytes) -> Path:
    folder.mkdir(parents=True)
    for name, num, seed in (("data_batch_1", 6, 1), ("data_batch_2", 3, 2), ("test_batch", 3, 3)):
        (folder / name).write_bytes(pickle.dumps(cifar_batch(num, seed, key), protocol))
    return folder


def unpacked(folder: Path, members: list[tuple[str, bytes]]) -> Path:
    for name, content in members:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
