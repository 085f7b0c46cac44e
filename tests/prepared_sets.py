"""Prepared data written by hand, as the page of prepared data says: what `mixlab data prepare` writes is held to it."""

import dataclasses
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from backends.arrays import Array
from experiments.data.checks import hash_of
from experiments.data.description import Description, as_json
from experiments.data.known import About


def as_png(pixels: Array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def write(
    folder: Path, form: str, images: Sequence[Array], labels: Sequence[int], num_test: int = 0, **fields: Any
) -> Path:
    """A prepared folder of these pixels uint8 (h, w, c), the training split first; fields: of its Description."""
    folder.mkdir(parents=True)
    sizes = {image.shape[:2] for image in images}
    size = images[0].shape[0] if len(sizes) == 1 and images[0].shape[0] == images[0].shape[1] else None
    about = About("", len(labels) - num_test, num_test, max(labels) + 1, size or 0, images[0].shape[2])
    if form == "array":
        np.save(folder / "images.npy", np.stack(images))
    else:
        contents = [as_png(image) for image in images]
        (folder / "images.bin").write_bytes(b"".join(contents))
        np.save(folder / "offsets.npy", np.cumsum([0, *map(len, contents)]))
        np.save(folder / "sizes.npy", np.array([image.shape[:2] for image in images], np.uint16))
    np.save(folder / "labels.npy", np.array(labels, np.int32))
    np.save(folder / "hashes.npy", np.array(list(map(hash_of, images)), np.uint64))
    digest = hashlib.sha256(json.dumps(dataclasses.astuple(about)).encode())
    for image in images:
        digest.update(image.tobytes())
    digest.update(np.array(labels, np.int32).tobytes())
    classes = tuple(f"class {number}" for number in range(about.num_classes))
    given: dict[str, Any] = {
        "format": 1, "form": form, "content": digest.hexdigest()[:24], "num_train": about.num_train,
        "num_test": num_test, "num_classes": about.num_classes, "image_size": size,
        "image_channels": about.image_channels, "kind": "files", "classes": classes, "notes": (), "recipe": {},
        "files": {path.name: path.stat().st_size for path in folder.iterdir()}, "mixlab": "0",
    }  # fmt: skip
    (folder / "about.json").write_bytes(as_json(Description(**(given | fields))))
    return folder
