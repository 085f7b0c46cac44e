"""Prepared data: a folder that `mixlab data prepare SOURCE OUT` writes, that anyone can move,
and that is read in place.

about.json   what it is: see Description
images.npy   form array: uint8 (n, size, size, channels), the training split first
images.bin   form encoded: the bytes of JPEG and PNG files, one after the other, with offsets.npy int64 (n + 1,) and
             sizes.npy uint16 (n, 2), height and width
labels.npy   int32 (n,)
hashes.npy   uint64 (n,), equal for equal images
names.txt    names of the examples, one a line, where the source has them
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError
from experiments.data.builtin import BUILT_IN
from experiments.data.checks import digest_of
from experiments.data.damage import (
    ABOUT,
    HASHES,
    LABELS,
    NAMES,
    OFFSETS,
    SIZES,
    check_files,
    check_format,
    damaged,
    has_files,
)
from experiments.data.description import IMAGES, Description, described
from experiments.data.known import About, Facts
from experiments.data.pixels import Encoded, Framed, OnDisk, Pixels, decoders
from experiments.data.tree import place
from experiments.data.words import canonical
from experiments.spec.config import DataConfig
from experiments.spec.values import shown

NOTES_OF_FORM = {"array": "as pixels", "encoded": "as files of images"}
FRAMING = ("image_size", "shorter_side", "interpolation")
# Fields that decided what the images are: a trial gives them as the recipe has them, or leaves them out.
MADE_BY = ("subset", "train_split", "test_split", "image_column", "label_column", "layout", "background", "bits")


@dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared folder whose description is read; where: what an error begins with."""

    folder: Path
    description: Description
    where: str

    def about(self, config: DataConfig) -> About:
        """What a trial gets of it; framed on reading, its content is a hash over the set's own and the framing.

        Raises: MixlabError: a field asks for something that the set was not made with.
        """
        self._check_made_by(config)
        own = self.description
        counts = (own.num_train, own.num_test, own.num_classes)
        if not self._is_framed(config):
            assert own.image_size is not None
            return About(own.content, *counts, own.image_size, own.image_channels)
        assert config.image_size is not None
        text = json.dumps([own.content, *(getattr(config, name) for name in FRAMING)])
        content = hashlib.sha256(text.encode()).hexdigest()[:24]
        return About(content, *counts, config.image_size, own.image_channels)

    def told(self) -> tuple[str, ...]:
        """Lines on how it is stored and how it was made."""
        own = self.description
        num_bytes = sum(own.files.values())
        fields = {name: value for name, value in own.recipe.items() if name not in ("fingerprint", "decoding")}
        given = [f"{name} {value}" for name, value in fields.items() if value != getattr(DataConfig, name, None)]
        recipe = ", ".join([*given, f"mixlab {own.mixlab}"])
        return f"{NOTES_OF_FORM[own.form]}, {num_bytes / 2**20:,.2f} MiB, content {own.content}", recipe

    @property
    def facts(self) -> Facts:
        return Facts(self.description.kind, self.description.classes, self.description.notes)

    @cached_property
    def labels(self) -> Array:
        labels, num = self._array(LABELS, (self.description.num,), np.int32), self.description.num_classes
        if labels.min() < 0 or labels.max() >= num:
            raise self._damaged(LABELS, f"expected classes 0 to {num - 1}, got {labels.min()} to {labels.max()}")
        return labels

    @cached_property
    def hashes(self) -> Array:
        return self._array(HASHES, (self.description.num,), np.uint64)

    @cached_property
    def sizes(self) -> Array:
        """Height and width of each image, (n, 2)."""
        own = self.description
        if own.form == "array":
            return np.broadcast_to(np.array([own.image_size] * 2), (own.num, 2))
        return self._array(SIZES, (own.num, 2), np.uint16)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all images decoded, each in the size that it is stored in."""
        return int(self.sizes.astype(np.int64).prod(1).sum()) * self.description.image_channels

    @cached_property
    def names(self) -> list[str] | None:
        """Names of the examples; None: the source had none."""
        if NAMES not in self.description.files:
            return None
        try:
            text = self._content(NAMES).decode("utf-8", "surrogateescape")
        except OSError as error:
            raise self._damaged(NAMES, str(error)) from error
        names = text.split("\n")[:-1]
        if len(names) != self.description.num:
            raise self._damaged(NAMES, f"it holds {len(names):,} names of {self.description.num:,}")
        return names

    def pixels(self) -> Pixels:
        """The images as they are stored."""
        own, path = self.description, self.folder / IMAGES[self.description.form]
        try:
            if own.form == "array":
                return OnDisk(path)
            shape = (own.image_size, own.image_size, own.image_channels) if own.image_size else None
            encoded = Encoded(path, self._array(OFFSETS, (own.num + 1,), np.int64), own.image_channels, shape)
        except (OSError, ValueError) as error:
            raise self._damaged(path.name, str(error)) from error
        self._check_decoder(encoded)
        return encoded

    def _check_decoder(self, pixels: Encoded) -> None:
        """Check by the first image that another decoder than that of the recipe gives the same pixels."""
        made, here = {name: self.description.recipe.get(name) for name in ("pillow", "libjpeg")}, decoders()
        if made["pillow"] is None or made == here:
            return
        if int.from_bytes(digest_of(pixels.read(0))[:8], "little") != self.hashes[0]:
            told = [f"Pillow {one['pillow']} with libjpeg {one['libjpeg']}" for one in (here, made)]
            raise MixlabError(
                f"{self.where}: data.source: {self.folder}: {told[0]} decodes image 0 to other pixels than {told[1]}, "
                f"with which it was prepared; install those, or prepare it anew"
            )

    def images(self, config: DataConfig, pixels: Pixels) -> Any:
        """The images as evaluations take them: a memory map, or framed when they are read."""
        if self._is_framed(config):
            assert config.image_size is not None
            return Framed(pixels, config.image_size, self.description.image_channels, config)
        if isinstance(pixels, OnDisk):
            return np.load(pixels.path, mmap_mode="r")
        assert self.description.image_size is not None
        return Framed(pixels, self.description.image_size, self.description.image_channels)

    def _is_framed(self, config: DataConfig) -> bool:
        """Whether a trial wants the images in another frame than they are stored in."""
        own = self.description
        if config.image_size is None and own.image_size is None:
            smallest = int(self.sizes.min())
            raise MixlabError(
                f"{self.where}: data.image_size: the images of {self.folder} are of several sizes; give a size that "
                f"all are resized to, such as {smallest}"
            )
        if config.image_size is None or own.image_size is None:
            return own.image_size is None
        as_made = all(getattr(config, name) == own.recipe.get(name) for name in FRAMING)
        unchanged = config.image_size == own.image_size and config.shorter_side in (None, own.image_size)
        return not (as_made or unchanged)

    def _check_made_by(self, config: DataConfig) -> None:
        own = self.description
        asked = {name: getattr(config, name) for name in MADE_BY if getattr(config, name) != getattr(DataConfig, name)}
        made = {name: own.recipe.get(name) for name in asked}
        for name, taken in zip(("train_split", "test_split"), own.splits, strict=False):
            if name in asked and (canonical(asked[name]) or asked[name]) == taken:  # also where it was found by itself
                made[name] = asked[name]
        if own.recipe.get("image_size") and config.image_size in (None, own.image_size):  # resized, and not once more
            framed = {name: getattr(config, name) for name in ("shorter_side", "interpolation")}
            given = {name: value for name, value in framed.items() if value != getattr(DataConfig, name)}
            asked, made = asked | given, made | {name: own.recipe.get(name) for name in given}
        if config.image_channels:
            asked["image_channels"], made["image_channels"] = config.image_channels, own.image_channels
        for name, value in asked.items():
            if value != made[name]:
                raise MixlabError(
                    f"{self.where}: data.{name}: {self.folder} was prepared with {shown(made[name])}, got "
                    f"{shown(value)}; leave it out, or prepare the source anew with it"
                )

    def _array(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """The array of a small file, whole: of a memory map, a file that is cut off later would be a bus error."""
        try:
            array: Array = np.load(BytesIO(self._content(name)))
        except (OSError, ValueError, EOFError) as error:
            raise self._damaged(name, str(error)) from error
        if array.shape != shape or array.dtype != dtype:
            raise self._damaged(name, f"expected {np.dtype(dtype)} {shape}, got {array.dtype} {array.shape}")
        return array

    def _content(self, name: str) -> bytes:
        """The bytes of a small file.  Raises: MixlabError: they are not those that were written.    OSError."""
        content, expected = (self.folder / name).read_bytes(), self.description.sums.get(name)
        if expected is not None and hashlib.sha256(content).hexdigest() != expected:
            raise self._damaged(name, "its bytes have changed since it was prepared")
        return content

    def _damaged(self, name: str, why: str) -> MixlabError:
        return damaged(self.folder, name, why, self.where)


def find(source: str, where: str) -> Prepared | None:
    """The prepared folder of this name; None: it is none. Its description is read, and its files are looked at.

    Raises: MixlabError: it is damaged, or a newer Mixlab made it.
    """
    folder = place(source)
    if source in BUILT_IN:
        return None
    try:
        text = (folder / ABOUT).read_text("utf-8")
    except FileNotFoundError:
        if not all((folder / name).exists() for name in (LABELS, HASHES)):
            return None
        raise damaged(folder, ABOUT, "it is missing", where) from None
    except (OSError, UnicodeDecodeError) as error:
        if not has_files(folder):
            return None
        raise damaged(folder, ABOUT, str(error), where) from error
    try:
        held = json.loads(text)
        if not isinstance(held, dict) or "form" not in held:
            return None  # something else: a decoded entry of a cache, or a file of the user's own
        check_format(folder, held.get("format"), where)
        description = described(held)
    except (ValueError, TypeError) as error:
        if not has_files(folder):
            return None
        raise damaged(folder, ABOUT, str(error), where) from error
    check_files(folder, description.files, where)
    return Prepared(folder, description, where)
