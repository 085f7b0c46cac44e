"""All right classes of each test example: `data.labels_real`, such as ReaL's for ImageNet (arXiv 2006.07159).

The file is JSON: a mapping from the name of each test image to its classes, or, as the authors' real.json, a list whose
entry i - 1 has those of ILSVRC2012_val_<i>. A class is its number, or its name. An image without any is left out.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError
from experiments.spec.values import shown

NUMBERED = re.compile(r"ILSVRC2012_val_(\d{8})(_n\d{8})?", re.ASCII)  # the hub's ImageNet adds the class


def right_classes(file: str, names: Sequence[str] | None, classes: Sequence[str]) -> Array:
    """Which classes are right for each of some images, bool (n, classes); the row of one that is left out is empty.

    Args:   names: of the image files; None: they are not known.    classes: names in the order of their numbers.
    Raises: MixlabError: the file cannot be read, or does not tell of an image.
    """
    where = "data.labels_real"
    if names is None:
        raise MixlabError(
            f"{where}: the names of the test images are not known, by which the labels are found; prepare the source: "
            f"mixlab data prepare SOURCE OUT"
        )
    told = _read(file, where)
    numbers = {name: number for number, name in enumerate(classes)}
    right = np.zeros((len(names), len(classes)), bool)
    for row, name in enumerate(names):
        right[row, [_number(one, numbers, name, where) for one in _of_image(told, name, file, where)]] = True
    return right


def _read(file: str, where: str) -> Any:
    try:
        told = json.loads(Path(file).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise MixlabError(f"{where}: {file} cannot be read as JSON ({error})") from error
    if not isinstance(told, (list, dict)):
        raise MixlabError(f"{where}: {file} holds {shown(told)}; expected a list, or a mapping from names to classes")
    return told


def _of_image(told: Any, name: str, file: str, where: str) -> Sequence[Any]:
    """The entry of an image: by its name, with or without folders and suffix, or by the number in it."""
    path = PurePosixPath(name)
    entry = None
    if isinstance(told, dict):
        entry = next((told[key] for key in (name, path.name, path.stem) if key in told), None)
    elif (found := NUMBERED.fullmatch(path.stem)) and 0 < int(found[1]) <= len(told):
        entry = told[int(found[1]) - 1]
    if not isinstance(entry, list):
        why = "expected a list of classes" if entry is not None else "it tells nothing of this image"
        raise MixlabError(f"{where}: {file}: {shown(name)}: {why}; a list of all is by ILSVRC2012_val_<number>")
    return entry


def _number(one: Any, numbers: dict[str, int], name: str, where: str) -> int:
    number = numbers.get(one) if isinstance(one, str) else one
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(numbers):
        raise MixlabError(f"{where}: {shown(name)}: {shown(one)} is none of the {len(numbers)} classes")
    return number


def fingerprint(right: Array) -> str:
    """16 hexadecimal digits that are equal for equal right classes, whatever the file was called."""
    return hashlib.sha256(str(right.shape).encode() + np.packbits(right).tobytes()).hexdigest()[:16]


def note(right: Array) -> str:
    """A sentence without a stop on how many images count."""
    counted = int(right.any(1).sum())
    return (
        f"{counted:,} of {len(right):,} test examples have a right class in data.labels_real; the others are left out"
    )
