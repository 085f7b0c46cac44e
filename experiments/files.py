"""Files that exist whole or not at all, on a store that many processes share."""

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backends.errors import MixlabError

FULL = (errno.ENOSPC, errno.EDQUOT)  # of an OSError: nothing more can be written
_REASONS = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.ENOTDIR: "a part of the path is a file",
}


class StoreError(MixlabError):
    """The store cannot be written or read; no trial can go on."""


def reason(error: OSError) -> str:
    """What the disk said, in words."""
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)


@contextlib.contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn what a disk can do to us into one sentence.

    Raises: StoreError: names the path and the cause.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS:
            raise
        raise StoreError(
            f"store: cannot write {path}: {_REASONS[error.errno]}; nothing was lost, mend it or choose another "
            f"place with --store, and give the same command again"
        ) from error


def write_new(path: Path, content: bytes, durable: bool = True, mode: int = 0o666) -> None:
    """Write a file under a name of nobody else's. Args: durable, mode: as of `replace`."""
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(content)
        file.flush()
        if durable:
            os.fsync(file.fileno())


def replace(path: Path, content: bytes, durable: bool = True, keep: Path | None = None, mode: int = 0o666) -> None:
    """Replace a file at once: written under a temporary name, synced, renamed.

    Args:   durable: whether it is to survive a loss of power; files that pass between two processes need not.
            keep: where the file that was there before goes; for an instant there is that one alone.
            mode: the permissions of a new file, from which the umask takes.
    Raises: OSError: the file is as it was, and nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_new(temporary, content, durable, mode)
        if keep and path.exists():
            path.replace(keep)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_whole(path: Path, content: bytes, keep: Path | None = None) -> None:
    """Replace a file of the store; see `replace`.

    Raises: StoreError: no space, no permission; the file is as it was.
    """
    with store_errors(path):
        replace(path, content, keep=keep)


def identity(path: Path) -> tuple[int, int]:
    """What two names of one file or folder share: device and inode. A link counts as what it leads to."""
    found = path.stat()
    return found.st_dev, found.st_ino


def stamp_of(path: str | Path) -> str:
    """A text that changes whenever a file is written anew; empty without the file."""
    try:
        stat = os.stat(path)  # noqa: PTH116 - a Path is not made of a text
    except OSError:
        return ""
    return f"{stat.st_mtime_ns}-{stat.st_size}-{stat.st_ino}"


def write_json(path: Path, value: Any) -> None:
    """As `write_whole`; see `as_json`."""
    write_whole(path, as_json(value))


def as_json(value: Any) -> bytes:
    """The content of a file; NaN and infinity become null, so that every JSON reader accepts it."""
    return json.dumps(finite(value), indent=1, allow_nan=False).encode() + b"\n"


def finite(value: Any) -> Any:
    """The same tree with NaN and infinities as None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value


def set_aside(path: Path) -> Path:
    """Move a file that cannot be used out of the way, never over another; returns its new path."""
    for number in range(10_000):
        aside = path.with_name(f"{path.name}.corrupt-{number}")
        if not aside.exists():
            with store_errors(path), contextlib.suppress(FileNotFoundError):  # another process was faster
                path.rename(aside)
            return aside
    raise StoreError(f"store: {path} has been set aside 10,000 times")
