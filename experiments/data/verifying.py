"""Prepared data, image by image, held against the hashes that were noted when it was prepared."""

import os
from concurrent.futures import ThreadPoolExecutor

from backends.errors import MixlabError
from experiments.data.checks import digest_of
from experiments.data.pixels import DataLost, Pixels
from experiments.data.prepared import Prepared
from experiments.data.progress import Bar

PART = 64  # images that a thread looks at
MOST = 5  # images that are named


def check(held: Prepared) -> str:
    """Read all that a prepared folder holds; returns a sentence without a stop.

    Raises: MixlabError: a file has changed; tells how many images have, and the first of them.
    """
    num, pixels = held.description.num, held.pixels()
    for name in ("labels", "names", "sizes", "hashes"):
        getattr(held, name)  # raises where its bytes have changed
    parts = [range(first, min(first + PART, num)) for first in range(0, num, PART)]
    changed: list[int] = []
    with Bar(f"checking {held.folder} ", num) as bar, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for part, found in zip(parts, pool.map(lambda part: _changed(held, pixels, part), parts), strict=True):
            changed += found
            bar.advance(len(part))
    if not changed:
        return f"all {num:,} images, and the files beside them, are as they were prepared"
    first = ", ".join(map(str, changed[:MOST])) + (", ..." if len(changed) > MOST else "")
    raise MixlabError(
        f"{held.where}: data.source: the prepared data {held.folder} is damaged: {len(changed):,} of {num:,} images "
        f"are not what they were ({first}); copy it anew, or prepare it anew"
    )


def _changed(held: Prepared, pixels: Pixels, numbers: range) -> list[int]:
    return [number for number in numbers if not _is_as_made(held, pixels, number)]


def _is_as_made(held: Prepared, pixels: Pixels, number: int) -> bool:
    try:
        return bool(int.from_bytes(digest_of(pixels.read(number))[:8], "little") == held.hashes[number])
    except DataLost:
        return False
