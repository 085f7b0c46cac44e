"""Damage of prepared data: what its description says of its files is held against them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.errors import MixlabError
from experiments.data.description import FORMAT, IMAGES
from experiments.spec.values import shown

ABOUT = "about.json"
LABELS, HASHES, NAMES, OFFSETS, SIZES = "labels.npy", "hashes.npy", "names.txt", "offsets.npy", "sizes.npy"
FILES = (*IMAGES.values(), LABELS, HASHES, NAMES, OFFSETS, SIZES)


def damaged(folder: Path, name: str, why: str, where: str) -> MixlabError:
    return MixlabError(
        f"{where}: data.source: the prepared data {folder} is damaged: {name}: {why}; copy it anew, or prepare it anew"
    )


def check_format(folder: Path, number: Any, where: str) -> None:
    if not isinstance(number, int):
        raise ValueError(f"expected a format number, got {shown(number)}")
    if number > FORMAT:
        raise MixlabError(
            f"{where}: data.source: {folder} was prepared by a newer Mixlab (format {number}, this one reads up to "
            f"{FORMAT}); update Mixlab, or prepare it anew"
        )


def check_files(folder: Path, files: Mapping[str, int], where: str) -> None:
    """Check that each file is there and as long as it was. Raises: MixlabError."""
    for name, expected in files.items():
        try:
            found = (folder / name).stat().st_size
        except OSError as error:
            raise damaged(folder, name, error.strerror or str(error), where) from error
        if found != expected:
            raise damaged(folder, name, f"expected {expected:,} bytes, got {found:,}", where)


def has_files(folder: Path) -> bool:
    return any((folder / name).exists() for name in FILES)
