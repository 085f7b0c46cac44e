"""Small sources of images for the tests of data, and what is read of them."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before `datasets` is imported: no test may reach for the network

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from backends.errors import MixlabError
from experiments import data
from experiments.spec.config import DataConfig
from experiments.spec.trial import DataInfo

WHERE = "trial.yaml"
SIDE = 6  # pixels of the images made here


def png(value: int, mode: str = "L", size: tuple[int, int] = (SIDE, SIDE)) -> bytes:
    file = io.BytesIO()
    colour = (value, 0, 255 - value) if mode == "RGB" else value
    Image.new(mode, size, colour).save(file, "PNG")
    return file.getvalue()


def write_parquet(path: Path, images: Sequence[bytes | None], labels: list[Any], label_name: str = "label") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    struct = [None if image is None else {"bytes": image, "path": None} for image in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"img": pa.array(struct, kind), label_name: labels}), path)


def parquet_folder(folder: Path, num_train: int = 20, num_test: int = 4, mode: str = "L") -> Path:
    """Image i is all of the value i; labels alternate between 0 and 1; test values go on after the training ones."""
    values = list(range(num_train + num_test))
    for name, part in (("train", values[:num_train]), ("test", values[num_train:])):
        if part:
            write_parquet(
                folder / f"{name}-00000-of-00001.parquet", [png(v, mode) for v in part], [v % 2 for v in part]
            )
    return folder


def image_folder(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), num: int = 8) -> Path:
    for name in classes:
        for row in range(num):
            path = folder / "train" / name / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(10 * row + len(name)))
    return folder


def noise_folder(folder: Path) -> Path:
    """Two classes of 10 images of noise, in class folders of a training split."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "train" / name).mkdir(parents=True)
        for row in range(10):
            Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(folder / "train" / name / f"{row}.png")
    return folder


def config(source: Path | str = "digits", **fields: Any) -> DataConfig:
    return DataConfig(source=str(source), **fields)


def describe_and_load(given: DataConfig, cache: Path) -> tuple[DataInfo, data.Splits]:
    info = data.describe(given, cache, WHERE)
    return info, data.load(given, info, cache)


def assert_fails(given: DataConfig, cache: Path, *parts: str) -> None:
    """The error is one line that begins with the place and the field and holds the parts; nothing half-made stays."""
    with pytest.raises(MixlabError) as caught:
        data.describe(given, cache, WHERE)
    message = str(caught.value)
    assert message.startswith(f"{WHERE}: {parts[0]}: ")
    assert "\n" not in message
    for part in parts:
        assert part in message
    assert not cache.is_dir() or not [path for path in cache.iterdir() if path.name.startswith(".")]
