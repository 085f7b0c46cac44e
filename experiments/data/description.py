"""Description of prepared data, as its about.json holds it."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from experiments.spec.values import shown

FORMAT = 1  # raise it when folders of before could not be read as they are
IMAGES = {"array": "images.npy", "encoded": "images.bin"}  # the file of images, by form


@dataclass(frozen=True)
class Description:
    """The content of about.json.

    content:    24 hexadecimal digits. Of images of one size, those of a decoded source of the same pixels and labels;
                of others, of a SHA-256 over the counts, and the height, width and pixels of each.
    image_size: pixels a side; None: the images have several sizes.
    recipe:     the fields of the data and the options that it was made with, by name.
    files:      bytes of each file beside this one.
    splits:     names of the splits of the source that were taken, that to train on first; empty where it was not noted.
    sums:       SHA-256 of each of them but that of the images, in hexadecimal; empty where it was not noted.
    """

    format: int
    form: str
    content: str
    num_train: int
    num_test: int
    num_classes: int
    image_size: int | None
    image_channels: int
    kind: str
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    recipe: Mapping[str, Any]
    files: Mapping[str, int]
    mixlab: str
    sums: Mapping[str, str] = field(default_factory=dict)
    splits: tuple[str, ...] = ()

    @property
    def num(self) -> int:
        return self.num_train + self.num_test


def described(held: dict[str, Any]) -> Description:
    """The description of its JSON.  Raises: ValueError, TypeError: a field is missing, unknown or of another type."""
    texts = {name: tuple(held.get(name, ())) for name in ("classes", "notes", "splits")}
    description = Description(**{**held, **texts})
    if description.form not in IMAGES:
        raise ValueError(f"expected the form array or encoded, got {shown(description.form)}")
    numbers = [getattr(description, name) for name in ("num_train", "num_test", "num_classes", "image_channels")]
    numbers += [description.image_size or 1, *description.files.values()]
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise ValueError("a count is no whole number")
    if description.form == "array" and description.image_size is None:
        raise ValueError("image_size is missing")
    return description


def as_json(description: Description) -> bytes:
    return json.dumps(dataclasses.asdict(description), indent=1).encode() + b"\n"
