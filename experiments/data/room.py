"""Room on a disk for data that is to be prepared."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from backends.errors import MixlabError
from experiments.data import opening
from experiments.data.opening import Unreadable
from experiments.data.raw import RawSource
from experiments.data.treating import CHUNK, Item, Made, Treatment, Workers
from experiments.data.tree import Tree
from experiments.data.words import is_image
from experiments.spec.config import DataConfig

GIB = 2**30
SAMPLE = 2 * CHUNK  # images by whose bytes those of all are estimated
NOTES_BYTES = 128  # of the small files, for each image

LESS = {  # what needs less room, by the form that was asked for
    "array": "give a smaller --resize or --encode jpeg",
    "png": "give a smaller --resize or --encode jpeg",
    "jpeg": "give a smaller --resize",
    "keep": "give --resize in place of --keep",
}


@dataclass(frozen=True)
class Request:
    """What is to be prepared. form: of treating.FORMS."""

    config: DataConfig
    out: Path
    form: str
    jobs: int
    cache: Path  # for what comes from the hub
    where: str

    @property
    def kind(self) -> str:
        """The form of the folder."""
        return "array" if self.form == "array" else "encoded"


def check(
    request: Request, treatment: Treatment, source: RawSource, tree: Tree | None, left: int, folder: Path
) -> None:
    """Check that the disk has room for the images that are left. Raises: MixlabError: gives both numbers."""
    each, how = _bytes_of_one(request, treatment, source, tree)
    needed, free = left * (each + NOTES_BYTES), shutil.disk_usage(folder).free
    if needed > free:
        raise MixlabError(
            f"{request.where}: {request.out}: {left:,} images take {needed / GIB:,.2f} GiB{how}, and "
            f"{free / GIB:,.2f} GiB are free there; free more, or {LESS[request.form]}"
        )


def _bytes_of_one(request: Request, treatment: Treatment, source: RawSource, tree: Tree | None) -> tuple[float, str]:
    """Bytes of an image, and by what they are estimated."""
    if request.form == "array":
        return treatment.decoder.size**2 * treatment.decoder.channels, ""
    if request.form == "keep" and tree:
        sizes = [num_bytes for name, (num_bytes, _) in tree.all_files() if is_image(name)]
        if sizes:
            return sum(sizes) / len(sizes), " by the mean of the files"
    sample = list(islice(_sample(source), SAMPLE))
    with Workers(treatment, 1) as workers:
        found = [one for made in workers.made(sample) for one in made]
    sizes = [len(one.content) for one in found if isinstance(one, Made)]
    if not sizes:
        raise opening.all_unreadable([one for one in found if isinstance(one, Unreadable)], SAMPLE, request.where)
    return sum(sizes) / len(sizes), f" by the mean of {len(sizes)} of them"


def _sample(source: RawSource) -> Iterator[Item]:
    """Some images: from all of the source where they are files of their own, else the first."""
    step = max(1, sum(len(split.labels) for split in source.splits) // SAMPLE)
    for split in source.splits:
        for row, raw in enumerate(split.images()):
            if not isinstance(raw, str) or row % step == 0:
                yield Item(split.name, row, raw)
