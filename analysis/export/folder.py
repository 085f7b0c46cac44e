"""The folder of an export: ours alone, one target's, and written by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from backends.errors import MixlabError
from experiments.files import as_json, reason, replace

MARKER = "mixlab-export.json"  # it says whose the folder is


@dataclass
class Folder:
    """A folder of a target, while it is written.

    digests: of the runs that are there whole: ablation -> id of a run -> digest of what was written.
    """

    path: Path
    target: str
    digests: dict[str, dict[str, str]] = field(default_factory=dict)

    def has(self, ablation: str, run: str, digest: str) -> bool:
        return self.digests.get(ablation, {}).get(run) == digest

    def note(self, ablation: str, run: str, digest: str | None) -> None:
        """Note what a run is now. Args: digest: None: it is gone, or about to be written anew."""
        of_ablation = self.digests.setdefault(ablation, {})
        if digest is None:
            of_ablation.pop(run, None)
        else:
            of_ablation[run] = digest

    def save(self) -> None:
        """Write down what is there."""
        replace(self.path / MARKER, as_json({"target": self.target, "runs": self.digests}))


@contextlib.contextmanager
def opened(path: Path, target: str) -> Iterator[Folder]:
    """Take a folder for an export; it is made if it is not there.

    Raises: MixlabError: it holds files of others; another process writes it; the disk refuses.
    """
    with errors(path, target):
        folder = _taken(path, target)
        with (path / f".{MARKER}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise MixlabError(f"command line: DIR: another mixlab export is writing {path}; wait for it") from error
            folder.digests = _read(path, target)
            try:
                yield folder
            finally:
                folder.save()


def check_no_file(path: Path) -> None:
    """Check that a path can be a folder. Raises: MixlabError: a file is there."""
    if path.exists() and not path.is_dir():
        raise MixlabError(f"command line: DIR: expected a folder, which may not exist yet, got the file {path}")


@contextlib.contextmanager
def errors(path: Path, target: str) -> Iterator[None]:
    """Turn what a disk refuses into one sentence."""
    try:
        yield
    except OSError as error:
        raise MixlabError(
            f"--to {target}: cannot write {error.filename or path}: {reason(error)}; mend it, or choose another DIR, "
            f"and give the same command again: it writes what is missing"
        ) from error


def _taken(path: Path, target: str) -> Folder:
    check_no_file(path)
    if not (path / MARKER).exists():
        if path.is_dir() and (
            others := sorted(one.name for one in path.iterdir() if not one.name.startswith(f".{MARKER}."))
        ):
            raise MixlabError(
                f"command line: DIR: expected a folder that is empty or of an earlier export, got {path} with "
                f"{others[0]!r} in it; choose another one"
            )
        path.mkdir(parents=True, exist_ok=True)
        Folder(path, target).save()
    _read(path, target)
    return Folder(path, target)


def _read(path: Path, target: str) -> dict[str, dict[str, str]]:
    """What an earlier export has noted.  Raises: MixlabError: it was one to another target."""
    try:
        about = json.loads((path / MARKER).read_text("utf-8"))
        found, digests = about["target"], {str(name): dict(runs) for name, runs in about["runs"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MixlabError(
            f"command line: DIR: {path / MARKER} is damaged ({error}); remove the folder, or choose another one"
        ) from error
    if found != target:
        raise MixlabError(
            f"command line: DIR: expected a folder for {target}, got {path}, which holds an export to {found}; "
            f"choose another one"
        )
    return digests
