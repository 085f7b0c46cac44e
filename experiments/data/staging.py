"""The folder beside prepared data in which it is made: written by one process, and gone on with after a kill.

images.*       as they will be, in order
rows.bin       of each image that is written: see ROW
files.bin      of each image that was looked at, by which its file is known again: see mark; zeros: it has none
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


class Staging:
    """The folder in which `out` is made. Entered, it is locked and holds what was done by then."""

    def __init__(self, out: Path, question: str, asked: str, where: str):
        """Args: question: all that decides what is written.    asked: what the user says of it, without the files."""
        self.out, self.question, self.asked, self.where = out, question, asked, where
        self.folder = out.with_name(f".{out.name}.preparing")
        self.has_changed = False  # whether files of the source are others than when it was begun
        self.done = self.safe = 0  # images that are written, and those of them that a loss of power leaves

    def __enter__(self) -> "Staging":
        self.is_locked = True
        try:
            self.lock = self._locked()
        except BlockingIOError as error:
            raise MixlabError(f"{self.where}: {self.out} is being prepared by another process; wait for it") from error
        except OSError as error:
            raise self._failed(error) from error
        self.files: list[Any] = []
        return self

    def _locked(self) -> int:
        """The lock, once this process has it.  Raises: BlockingIOError: another one has it.    OSError."""
        path = self.folder / LOCK
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                raise
            except OSError:
                self.is_locked = False
                told = "cannot be locked on this file system: see to it that no two processes prepare it"
                print(f"mixlab: {self.out} {told}", file=sys.stderr, flush=True)
                return lock
            with suppress(FileNotFoundError):
                if os.fstat(lock).st_ino == path.stat().st_ino:
                    return lock
            os.close(lock)  # who had it has removed it meanwhile

    def __exit__(self, *_: object) -> None:
        for file in self.files:
            with suppress(OSError):  # of a full disk, once more: what it holds back was not counted as safe
                file.close()
        if self.is_locked and not (self.folder / PROGRESS).exists():  # nothing is there to go on with
            with suppress(OSError):
                self._clear(SCRATCH)
                (self.folder / LOCK).unlink()
                self.folder.rmdir()
        os.close(self.lock)

    def look(self, marks: Callable[[], Iterable[bytes | None]]) -> int:
        """How many images are there already, up to the first whose file has changed since.

        Args:   marks: of the files of the images, in order, as they are now; None: an image is not known by a file.
        Raises: MixlabError: what is there is of another source, or of other options.
        """
        held = self._progress()
        done: int = held["done"]
        if held["question"] == self.question:
            self.done = self.safe = done
            return done
        if done and held["asked"] != self.asked:
            raise MixlabError(
                f"{self.where}: {self.folder} holds {done:,} images of another source, or with other "
                f"options; give those again to go on, name another folder, or remove it"
            )
        self.has_changed = bool(done)
        self.done = self._num_unchanged(done, marks()) if done else 0
        if self.done:
            self._note_safe()
        else:
            self._clear()
        return self.done

    def _progress(self) -> dict[str, Any]:
        """What progress.json says; of one that is not there, or cannot be read, that nothing is done."""
        path = self.folder / PROGRESS
        try:
            held = json.loads(path.read_text("utf-8"))
            # An earlier version did not write what was asked.
            return {"question": held["question"], "asked": held.get("asked", self.asked), "done": int(held["done"])}
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, KeyError):
            print(f"mixlab: {path} cannot be read: {self.out} is begun anew", file=sys.stderr, flush=True)
        return {"question": None, "asked": None, "done": 0}

    def _num_unchanged(self, done: int, marks: Iterable[bytes | None]) -> int:
        """How many of the first images are of files that are what they were.  Args: done: that are safe."""
        paths = [self.folder / name for name in (MARKS, ROWS)]
        if not all(path.exists() for path in paths):
            return 0
        held, seen, num = paths[0].read_bytes(), np.fromfile(paths[1], ROW, done)["seen"].tolist(), 0
        for bits, now in zip(seen, marks, strict=False):
            at = num * MARK_BYTES
            if now is None or now != held[at : at + MARK_BYTES] or bits & DEEP:  # of 16 bits: all files decide a range
                break
            num += 1
        return num

    def _clear(self, *more: str) -> None:
        """Remove what was begun.  Args: more: to remove beside it; what the source was unpacked to is in use."""
        (self.folder / PROGRESS).unlink(missing_ok=True)  # first: it speaks of the others
        for path in self.folder.iterdir():
            if path.name not in {LOCK, SCRATCH}.difference(more):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def mark(self, *what: object) -> bytes:
        """Bytes by which an image's file is known again.

        Args: what: all that decides what is made of the image, beside what the user has asked for.
        """
        text = repr((self.asked, *what)).encode(errors="surrogateescape")
        return hashlib.blake2b(text, digest_size=MARK_BYTES).digest()

    def open(self, images: str, shape: tuple[int, ...] | None) -> None:
        """Open the files behind what is done.  Args: images: their file.    shape: of an array; None: encoded."""
        self.image_bytes = int(np.prod(shape[1:])) if shape else None
        header = b"" if shape is None else _header(shape)
        self.files = [self._opened(images), self._opened(ROWS), self._opened(MARKS)]
        self.images, self.rows, self.marks = self.files
        rows = np.frombuffer(self._read(self.rows, self.done * ROW.itemsize), ROW)
        self.end = int(rows["end"][-1]) if len(rows) else 0
        self.first_byte = len(header)
        self.images.seek(0)
        self.images.write(header)  # also where there are other images behind those that are done
        for file, end in ((self.images, self.first_byte + self.end), (self.rows, self.done * ROW.itemsize)):
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
