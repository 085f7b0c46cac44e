"""Publication of a trial's record: by the holder of its claim alone, and never over a better one.

A new record is linked to its name, which fails, at once and on every machine, where there is one. One that may be
replaced is moved aside first, and looked at again there: so no final one is lost, whoever else writes. What a shared
file system leaves open: an owner that is halted for longer than claims.STALE_S between its last look at the claim and
the link may put a failure where there was none; it looks again at once, and takes it back.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from experiments.files import identity, store_errors, write_new
from experiments.results.claims import Claim, ClaimLost

TRIES = 100  # each of them meets another process that writes in the same instant


def publish(path: Path, content: bytes, claim: Claim, may_replace: Callable[[Path], bool], may_stay: bool) -> bool:
    """Give a file its content; returns whether it was written, or there is one that may not be replaced.

    Args:   may_replace: whether another may take the place of this file.
            may_stay: whether it stays where the claim was lost while it was written.
    Raises: ClaimLost: another process has the trial.    StoreError: no space, no permission; nothing was changed.
    """
    mine = path.with_name(f".{path.name}.{claim.token}.tmp")
    with store_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_new(mine, content)
            return _publish(mine, path, claim, may_replace, may_stay)
        except FileNotFoundError as error:  # who has the claim now has swept the folder
            raise ClaimLost(path.parent.name) from error
        finally:
            with contextlib.suppress(OSError):
                mine.unlink()


def _publish(mine: Path, path: Path, claim: Claim, may_replace: Callable[[Path], bool], may_stay: bool) -> bool:
    ours = identity(mine)
    for _ in range(TRIES):
        if not claim.is_held():
            raise ClaimLost(path.parent.name)
        if _link(mine, path, ours):
            break
        if path.exists() and not may_replace(path):
            return False
        _move_aside(path, claim, may_replace)
    else:
        raise ClaimLost(path.parent.name)
    if not may_stay and not claim.is_held():
        _move_aside(path, claim, lambda aside: identity(aside) == ours)
        raise ClaimLost(path.parent.name)
    return True


def _link(mine: Path, path: Path, ours: tuple[int, int]) -> bool:
    """Link our file to its name; tell whether it is there now. A lost answer of NFS makes a made link look refused."""
    try:
        os.link(mine, path)
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):
            return identity(path) == ours
        return False
    return True


def _move_aside(path: Path, claim: Claim, is_to_go: Callable[[Path], bool]) -> None:
    """Remove a file; if another one has taken its place since it was looked at, put that one back.

    What a kill leaves aside is put back by the next claim.
    """
    aside = path.with_name(f".{path.name}.{claim.token}.aside")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    if not is_to_go(aside):
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)
