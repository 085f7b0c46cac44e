"""Images on their way into prepared data: decoded, checked and hashed, in processes beside the one that writes."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError
from experiments.data import opening
from experiments.data.beside import Killed, Pool
from experiments.data.checks import colour_of, digest_of
from experiments.data.opening import Unreadable
from experiments.data.pictures import Decoder, NeedsRange
from experiments.data.pixels import decode
from experiments.data.raw import Raw
from experiments.machine import malloc

if TYPE_CHECKING:  # Pillow takes part only where a source is read
    from PIL.Image import Image

FORMS = ("array", "keep", "png", "jpeg")  # pixels; the files' own bytes; encoded anew
JPEG = {"quality": 95, "subsampling": 0}  # of what is encoded anew; 0: colour has the resolution of brightness
CHUNK = 32  # images that go to a process at a time
BLOCKS = 8  # of Pillow's memory that are kept for the next image; it gives them back otherwise, at half the speed
PLAIN = ("JPEG", "PNG")
# What was seen of an image: bits.
BLENDED, FRAMES, DEEP, ANEW = 1, 2, 4, 8


@dataclass(frozen=True)
class Item:
    """An image of a source, and where it stands there."""

    split: str
    row: int
    raw: Raw


@dataclass(frozen=True)
class Made:
    """An image as it is stored.

    content: pixels, or the bytes of a file.   pixels: where the content is not they, and they are asked for.
    seen:    BLENDED, FRAMES, DEEP: as of Decoder.notes; ANEW: a file's own bytes could not be kept.
    colour:  that of all its pixels; None: there are several.
    """

    content: bytes
    height: int
    width: int
    digest: bytes
    pixels: bytes | None
    seen: int
    colour: tuple[int, ...] | None


@dataclass(frozen=True)
class Treatment:
    """What is done to each image. form: of FORMS; wants_pixels: beside what is stored."""

    decoder: Decoder
    form: str
    wants_pixels: bool

    def chunk(self, items: list[Item]) -> "list[Made | Unreadable]":
        """Treat some images; of one that cannot be read the error stands in its place.

        Raises: MixlabError: one is too large, or does not fit the fields; NeedsRange: see Decoder.
        """
        found: list[Made | Unreadable] = []
        for item in items:
            try:
                found.append(self._one(item))
            except Unreadable as error:
                found.append(error)
        return found

    def _one(self, item: Item) -> Made:
        try:
            raw = Path(item.raw).read_bytes() if isinstance(item.raw, str) else item.raw
            image = opening.opened(raw)
        except Exception as error:  # Pillow's decoders raise many types
            raise opening.unreadable(item.split, item.row, item.raw, error, self.decoder.where) from error
        with image:
            is_plain = isinstance(raw, bytes) and _is_plain(image)
            blended, framed, deep = self.decoder.blended, self.decoder.framed, self.decoder.deep
            pixels = self.decoder.decode(item.split, item.row, item.raw, image)
        seen = BLENDED * (self.decoder.blended - blended) + FRAMES * (self.decoder.framed - framed)
        seen += DEEP * (self.decoder.deep - deep)
        height, width = pixels.shape[:2]
        if self.form == "array":
            content = pixels.tobytes()
        elif self.form == "keep" and is_plain:
            assert isinstance(raw, bytes)
            content = raw
        else:
            self._check_size(item, height, width)
            seen += ANEW * (self.form == "keep")
            content = encode(pixels, "jpeg" if self.form == "jpeg" else "png")
            pixels = decode(content, pixels.shape[-1]) if self.form == "jpeg" else pixels
        wanted = pixels.tobytes() if self.wants_pixels and self.form != "array" else None
        return Made(content, height, width, digest_of(pixels), wanted, seen, colour_of(pixels))

    def _check_size(self, item: Item, height: int, width: int) -> None:
        if max(height, width) > np.iinfo(np.uint16).max:
            raise MixlabError(
                f"{self.decoder.where}: data.source: image {item.row} of split {item.split!r} is {width:,} x "
                f"{height:,} pixels; expected at most {np.iinfo(np.uint16).max:,} a side; give --resize"
            )


def _is_plain(image: "Image") -> bool:
    """Tell whether a file's own bytes can stand for it: every reader takes them for the same pixels."""
    several = getattr(image, "is_animated", False)
    return (
        image.format in PLAIN
        and not several
        and not opening.is_deep(b"", image)
        and not opening.may_be_transparent(image)
    )


def encode(pixels: Array, kind: str) -> bytes:
    """The file, png or jpeg, of pixels uint8 (h, w, c)."""
    from PIL import Image

    file = BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
        file, kind, **JPEG if kind == "jpeg" else {}
    )
    return file.getvalue()


def chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    held: list[Item] = []
    for item in items:
        held.append(item)
        if len(held) == CHUNK:
            yield held
            held = []
    if held:
        yield held


class Workers:
    """Processes that treat images, in order; one alone is this one.

    Two threads took 0.93 ms of the CPU for a JPEG of 500 pixels, two processes 1.05; but of that 0.2 ms hold the
    interpreter's lock, so threads would come to their end at five cores. A decoder that crashes ends its process alone.
    """

    def __init__(self, treatment: Treatment, jobs: int):
        self.treatment, self.jobs = treatment, jobs
        self.wants_pixels = treatment.wants_pixels  # of what is sent from now on
        self.pool: Pool | None = None

    def __enter__(self) -> "Workers":
        keep_memory()
        if self.jobs > 1:
            self.pool = Pool(self.jobs, _begin)
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool:
            self.pool.end()

    def made(self, items: Iterable[Item]) -> Iterator[list[Made | Unreadable]]:
        """The images as they are stored, in order; a few chunks a process are read ahead.

        Raises: MixlabError: an image does not fit, or a process was killed.
        """
        waiting: deque[tuple[list[Item], Future[list[Made | Unreadable]] | None]] = deque()
        try:
            for chunk in chunks(items):
                self.treatment = replace(self.treatment, wants_pixels=self.wants_pixels)
                waiting.append((chunk, self.pool.submit(self.treatment.chunk, chunk) if self.pool else None))
                if len(waiting) > 2 * self.jobs or not self.pool:
                    yield self._result(*waiting.popleft())
            while waiting:
                yield self._result(*waiting.popleft())
        except Killed as error:
            raise MixlabError(
                f"{self.treatment.decoder.where}: a process that decodes images was killed, perhaps for want of "
                f"memory; give the same command again, with fewer --jobs, and it goes on"
            ) from error

    def _result(self, chunk: list[Item], future: "Future[list[Made | Unreadable]] | None") -> list[Made | Unreadable]:
        try:
            return future.result() if future else self.treatment.chunk(chunk)
        except NeedsRange:
            decoder = self.treatment.decoder
            decoder.range = decoder.find_range()  # those that are sent from now on know it
            return self.treatment.chunk(chunk)


def keep_memory() -> None:
    """Keep the memory of one image for the next."""
    from PIL import Image

    malloc.keep_freed()
    Image.core.set_blocks_max(BLOCKS)  # type: ignore[attr-defined]


def _begin() -> None:
    """Begin a process: its parent alone answers to a terminal, and it does not outlive its parent."""
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    keep_memory()
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
