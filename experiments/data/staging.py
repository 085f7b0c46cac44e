"""The folder beside prepared data in which it is made: written by one process, and gone on with after a kill.

images.*       as they will be, in order
rows.bin       of each image that is written: see ROW
files.bin      of each image: see mark
progress.json  {"question": what is made of what, "done": images that are safe on the disk}
lock           held by the process that writes
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError
from experiments.data.damage import ABOUT, FILES
from experiments.data.description import IMAGES, Description, as_json
from experiments.data.treating import DEEP, Made
from experiments.files import FULL, reason, replace

ROW = np.dtype(
    [
        ("end", "<i8"), ("height", "<u2"), ("width", "<u2"), ("digest", "V16"), ("seen", "u1"),
        ("is_constant", "u1"), ("colour", "u1", (3,)),
    ]
)  # fmt: skip
ROWS, MARKS, PROGRESS, LOCK, SCRATCH = "rows.bin", "files.bin", "progress.json", "lock", "scratch"
MARK_BYTES = 16
SYNC_S = 20.0  # seconds of work that a loss of power may cost


def mark(*what: object) -> bytes:
    """Bytes by which an image's file is known again. Args: what: all that decides what is made of it."""
    return hashlib.blake2b(repr(what).encode(errors="surrogateescape"), digest_size=MARK_BYTES).digest()


class Staging:
    """The folder in which `out` is made. Entered, it is locked and holds what was done by then."""

    def __init__(self, out: Path, question: str, asked: str, where: str):
        """Args: question: all that decides what is written.    asked: what the user says of it, without the files."""
        self.out, self.question, self.asked, self.where = out, question, asked, where
        self.folder = out.with_name(f".{out.name}.preparing")
        self.has_changed = False  # whether files of the source are others than when it was begun
        self.done = self.safe = 0  # images that are written, and those of them that a loss of power leaves

    def __enter__(self) -> "Staging":
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise self._failed(error) from error
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self.lock)
            raise MixlabError(f"{self.where}: {self.out} is being prepared by another process; wait for it") from error
        except OSError:
            told = "cannot be locked on this file system: see to it that no two processes prepare it"
            print(f"mixlab: {self.out} {told}", file=sys.stderr, flush=True)
        self.files: list[Any] = []
        return self

    def __exit__(self, error: object, *_: object) -> None:
        for file in self.files:
            with suppress(OSError):  # of a full disk, once more: what it holds back was not counted as safe
                file.close()
        if error and not (self.folder / PROGRESS).exists():  # nothing is there to go on with
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self.lock)

    def look(self, marks: Callable[[], Iterable[bytes | None]]) -> int:
        """How many images are there already; what begins with a file that has changed since is removed.

        Args:   marks: of the files of the images, in order, as they are now; None: an image is not known by a file.
        Raises: MixlabError: what is there is of another source, or of other options.
        """
        try:
            held = json.loads((self.folder / PROGRESS).read_text("utf-8"))
            if held["question"] == self.question:
                self.done = self.safe = int(held["done"])
                return self.done
            theirs = held.get("asked", self.asked)  # an earlier version did not write it
            if held["done"] and theirs != self.asked:
                raise MixlabError(
                    f"{self.where}: {self.folder} holds {int(held['done']):,} images of another source, or with other "
                    f"options; give those again to go on, name another folder, or remove it"
                )
            self.done = self._unchanged(int(held["done"]), marks())
            self.has_changed = bool(held["done"])
            if self.done:
                self._note_safe()
                return self.done
        except FileNotFoundError:
            pass  # nothing of what is there was safe
        except (ValueError, TypeError, KeyError):
            self.has_changed = True
        for path in self.folder.iterdir():
            if path.name != LOCK:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return 0

    def _unchanged(self, done: int, marks: Iterable[bytes | None]) -> int:
        """How many of the first images are of files that are what they were."""
        held = (self.folder / MARKS).read_bytes() if (self.folder / MARKS).exists() else b""
        seen = np.fromfile(self.folder / ROWS, ROW, done)["seen"].tolist()
        for row, (bits, now) in enumerate(zip(seen, marks, strict=False)):
            at = row * MARK_BYTES
            if now is None or now != held[at : at + MARK_BYTES] or bits & DEEP:  # of 16 bits: all files decide a range
                return row
        return len(seen)

    def open(self, images: str, shape: tuple[int, ...] | None) -> None:
        """Open the files behind what is done.  Args: images: their file.    shape: of an array; None: encoded."""
        self.image_bytes = int(np.prod(shape[1:])) if shape else None
        header = b"" if shape is None else _header(shape)
        self.files = [self._opened(images), self._opened(ROWS), self._opened(MARKS)]
        self.images, self.rows, self.marks = self.files
        self.marks.truncate(0)  # the files of all images are noted, also of those that are done
        rows = np.frombuffer(self._read(self.rows, self.done * ROW.itemsize), ROW)
        self.end = int(rows["end"][-1]) if self.done else 0
        self.first_byte = len(header)
        self.images.seek(0)
        self.images.write(header)  # also where there are other images behind those that are done
        for file, end in ((self.images, self.first_byte + self.end), (self.rows, len(rows) * ROW.itemsize)):
            if os.fstat(file.fileno()).st_size < end and self.done:
                raise MixlabError(f"{self.where}: {self.folder} is damaged; remove it, and give the same command again")
            file.flush()
            file.truncate(end)
            file.seek(end)
        self.synced = time.monotonic()

    def _opened(self, name: str) -> Any:
        path = self.folder / name
        path.touch()
        return path.open("r+b", buffering=2**20)

    def _read(self, file: Any, num_bytes: int) -> bytes:
        file.seek(0)
        content: bytes = file.read(num_bytes)
        return content[: len(content) // ROW.itemsize * ROW.itemsize]

    def write(self, made: Sequence[Made]) -> None:
        """Write some images.  Raises: MixlabError: the disk is full; what is safe stays."""
        rows = []
        for one in made:
            self.end += len(one.content)
            colour = (*(one.colour or ()), 0, 0, 0)[:3]
            rows.append((self.end, one.height, one.width, one.digest, one.seen, one.colour is not None, colour))
        try:
            for one in made:
                self.images.write(one.content)
            self.rows.write(np.array(rows, ROW).tobytes())
            self.done += len(made)
            if time.monotonic() - self.synced > SYNC_S:
                self.sync()
        except OSError as error:
            raise self._failed(error) from error

    def sync(self) -> None:
        """Make what is written safe, and note how much that is.  Raises: OSError."""
        for file in self.files:
            file.flush()
            os.fsync(file.fileno())
        self._note_safe()

    def _note_safe(self) -> None:
        progress = {"question": self.question, "asked": self.asked, "done": self.done}
        replace(self.folder / PROGRESS, json.dumps(progress).encode())
        self.safe, self.synced = self.done, time.monotonic()

    def all_rows(self) -> Array:
        self.rows.flush()
        return np.fromfile(self.folder / ROWS, ROW)

    def save(self, name: str, array: Array) -> None:
        """Write a small file of the finished folder."""
        try:
            with (self.folder / name).open("wb") as file:
                np.save(file, array)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._failed(error) from error

    @contextmanager
    def safely(self) -> Iterator[None]:
        """Make safe what is written when it ends, however it does.  Raises: MixlabError: the disk is full."""
        try:
            yield
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise self._failed(error) from error
        finally:
            with suppress(OSError):
                if self.done:
                    self.sync()

    def publish(self, describe: Callable[[dict[str, int], dict[str, str]], Description]) -> None:
        """Write the description, the last file, and give the folder its name.

        Args: describe: of the bytes, and of the SHA-256 of small files, by file.
        """
        shutil.rmtree(self.folder / SCRATCH, ignore_errors=True)
        try:
            self.sync()
            paths = [self.folder / name for name in FILES]
            files = {path.name: path.stat().st_size for path in paths if path.exists()}
            small = [path for path in paths if path.exists() and path.name not in IMAGES.values()]
            sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in small}
            replace(self.folder / ABOUT, as_json(describe(files, sums)))
            self.folder.rename(self.out)
        except OSError as error:
            raise self._failed(error) from error
        for name in (ROWS, MARKS, PROGRESS, LOCK):
            (self.out / name).unlink(missing_ok=True)

    def _failed(self, error: OSError) -> MixlabError:
        kept = f"; {self.safe:,} images are done" if self.safe else ""
        more = "free space there" if error.errno in FULL else "mend that"
        goes_on = ": it goes on from there" if self.safe else ""
        return MixlabError(
            f"{self.where}: {self.out} cannot be written: {reason(error)}{kept}; {more}, and give the same command "
            f"again{goes_on}"
        )


def _header(shape: tuple[int, ...]) -> bytes:
    """The beginning of an .npy file of uint8."""
    from io import BytesIO

    file = BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()
