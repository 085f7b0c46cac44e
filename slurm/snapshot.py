"""The code as it was at submission, in a folder named by its content: what is edited later changes no queued job."""

import hashlib
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from backends.errors import MixlabError
from experiments.files import set_aside, store_errors
from experiments.machine.environment import RESULTS, ROOT

DIGITS = 16  # of the hash, hexadecimal
LARGEST = 3  # files that an error names
PACKAGES = ("analysis", "backends", "experiments", "mixlab", "slurm")  # without git, these alone


class WrongSnapshot(MixlabError):
    """The error that this process runs other code than its job was submitted with."""


def take(folder: Path, limit_mb: float, root: Path = ROOT) -> Path:
    """Copy the code into `folder`, unless the same is there already; returns where it is.

    The code is what git tracks, as it is on the disk now, and new files that it does not ignore; committed results
    stay behind.

    Args:   limit_mb: of all files together, in MiB.
    Raises: MixlabError: the code is larger; names the largest files.   StoreError.
    """
    contents = _contents(root)
    total = sum(map(len, contents.values()))
    if total > limit_mb * 2**20:
        largest = sorted(contents, key=lambda name: -len(contents[name]))[:LARGEST]
        sizes = ", ".join(f"{name} ({len(contents[name]) / 2**20:.1f} MiB)" for name in largest)
        raise MixlabError(
            f"snapshot: expected at most snapshot_limit_mb {limit_mb:g}, but the code of {root} has "
            f"{total / 2**20:.1f} MiB; the largest files are {sizes}; name them in .gitignore, or raise the limit"
        )
    place = folder / digest(contents)
    if place.exists() and _digest_of(place) != place.name:
        set_aside(place)
    if not place.exists():
        _write(place, contents)
    return place


def check(place: Path, root: Path = ROOT) -> None:
    """Check that the code that runs is the snapshot. Raises: WrongSnapshot: it is not, or the snapshot was changed."""
    if root.resolve() != place.resolve():
        raise WrongSnapshot(
            f"snapshot: expected the code of {place}, with which the job was submitted, got that of {root}"
        )
    if _digest_of(place) != place.name:
        raise WrongSnapshot(
            f"snapshot: {place} was changed since the job was submitted; submit again, which makes a new one"
        )


def name_now(root: Path = ROOT) -> str:
    """The name that a snapshot taken now would have."""
    return digest(_contents(root))


def _contents(root: Path) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in files(root)}


def files(root: Path) -> list[str]:
    """Names of the files of the code, relative to its root."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        listed = [path.relative_to(root).as_posix() for name in PACKAGES for path in _sources(root / name)]
    return sorted({name for name in listed if name and not _is_result(name) and (root / name).is_file()})


def _is_result(name: str) -> bool:
    return name.startswith(f"{RESULTS}/")


def digest(contents: Mapping[str, bytes]) -> str:
    """Name of a snapshot: the beginning of the SHA-256 over names and contents."""
    total = hashlib.sha256()
    for name in sorted(contents):
        total.update(f"{name}\0{hashlib.sha256(contents[name]).hexdigest()}\n".encode())
    return total.hexdigest()[:DIGITS]


def _digest_of(place: Path) -> str:
    return digest({path.relative_to(place).as_posix(): path.read_bytes() for path in _sources(place)})


def _sources(folder: Path) -> list[Path]:
    """Files below a folder, without what Python compiles beside them."""
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def _write(place: Path, contents: Mapping[str, bytes]) -> None:
    """Write a snapshot under another name first, so that it exists whole or not at all; two writers do no harm."""
    temporary = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        with store_errors(place):
            for name, content in contents.items():
                path = temporary / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                path.chmod(0o440)
            try:
                temporary.rename(place)
            except OSError:
                if not place.exists():  # else another submission was faster
                    raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
