"""Tar files: their members and where they lie, without unpacking them."""

import bz2
import gzip
import lzma
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from backends.errors import MixlabError

OPENS: dict[str, Any] = {
    ".gz": gzip.open,
    ".tgz": gzip.open,
    ".bz2": bz2.open,
    ".tbz2": bz2.open,
    ".xz": lzma.open,
    ".txz": lzma.open,
}
DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


def is_tar(name: str) -> bool:
    name = name.lower()
    return name.endswith((".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz"))


def first_names(path: Path, num: int) -> list[str]:
    """Names of the first files; none where it cannot be read."""
    try:
        with tarfile.open(path, "r|*") as held:
            return [member.name for member in islice((one for one in held if one.isfile()), num)]
    except (OSError, *DAMAGE):
        return []


def plain(path: Path, scratch: Path, where: str) -> Path:
    """The same tar without compression, in which every file can be found at once; made in `scratch` where it is packed.

    Raises: MixlabError: it is damaged.   OSError: `scratch` is full.
    """
    opens = OPENS.get(path.suffix.lower())
    if opens is None:
        return path
    made = scratch / "plain" / f"{len(list(scratch.glob('plain/*')))}.tar"
    made.parent.mkdir(parents=True, exist_ok=True)
    try:
        with opens(path) as packed, made.open("wb") as file:
            shutil.copyfileobj(packed, file, 2**20)
    except DAMAGE as error:
        raise MixlabError(f"{where}: {path} is damaged: {error}") from error
    return made


def members(path: Path, where: str) -> Iterator[tarfile.TarInfo]:
    """The members of a plain tar; `offset_data` and `size` say where a file's content lies.

    Raises: MixlabError: it is damaged.
    """
    try:
        with tarfile.open(path, "r:") as held:
            for member in held:
                held.members = []  # type: ignore[attr-defined]  # else they stay in memory, all of them
                yield member
    except DAMAGE as error:
        raise MixlabError(f"{where}: {path} is damaged: {error}") from error
