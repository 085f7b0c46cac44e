"""Preparing: from a source to a folder of prepared data, whole or not at all, by several processes, to go on with."""

import dataclasses
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from typing import Any

import numpy as np

from backends.arrays import Array
from backends.errors import MixlabError, counted
from experiments.data import framing, known, opening, room, treating
from experiments.data.builtin import BUILT_IN
from experiments.data.checks import Watch
from experiments.data.damage import HASHES, LABELS, NAMES, OFFSETS, SIZES
from experiments.data.description import FORMAT, IMAGES, Description
from experiments.data.fingerprints import check_is_there, listing
from experiments.data.known import About
from experiments.data.opening import Unreadable
from experiments.data.pictures import Decoder
from experiments.data.pixels import decode, decoders
from experiments.data.prepared import Prepared, find
from experiments.data.progress import Bar
from experiments.data.raw import Raw, RawSource, name_of
from experiments.data.room import Request
from experiments.data.sources import HUB_FOLDER, read_source
from experiments.data.staging import MARK_BYTES, SCRATCH, Staging
from experiments.data.treating import ANEW, BLENDED, DEEP, FRAMES, Item, Made, Treatment, Workers
from experiments.data.tree import Tree, place
from experiments.files import stamp_of

MOST_BROKEN = 20  # images that cannot be read, after which no further ones are looked for


def prepare(request: Request, tree: Tree | None) -> Prepared:
    """Prepare a source; what is there already stays.

    Args:   tree: the files of the source; None: it is built in or comes from the hub.
    Raises: MixlabError: names the field at fault, or what is in the way.
    """
    if find(request.config.source, request.where):
        raise MixlabError(
            f"{request.where}: data.source: {request.config.source!r} is prepared already, and read as it is; to have "
            f"it in another form, prepare the source that it was made of"
        )
    framing.check(request.config, request.where)
    check_is_there(request.config, tree, request.cache, request.where)
    if tree and place(request.config.source).resolve() in request.out.resolve().parents:
        raise MixlabError(
            f"{request.where}: {request.out} lies in {request.config.source}, and would become a part of it; name a "
            f"folder beside it"
        )
    recipe = _recipe(request, listing(request.config, tree, request.cache, request.where), bool(tree))
    if held := _there(request, recipe):
        return held
    asked = {name: value for name, value in recipe.items() if name != "fingerprint"}
    with Staging(request.out, _digest(recipe), _digest(asked), request.where) as staging:
        if held := _there(request, recipe):  # another process was faster
            return held
        scratch = staging.folder / SCRATCH
        shutil.rmtree(scratch, ignore_errors=True)
        source = read_source(request.config, tree, scratch if tree else request.cache / HUB_FOLDER, request.where)
        _Making(request, source, tree, staging).run(recipe)
    held = find(str(request.out), request.where)
    assert held is not None
    return held


def _digest(recipe: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _recipe(request: Request, fingerprint: str, is_files: bool) -> dict[str, Any]:
    """All that decides what is written."""
    config = request.config
    names: tuple[str, ...] = (*known.COMMON_FIELDS, *known.LATER_FIELDS)
    names += known.SYNTHETIC_FIELDS if config.source == "synthetic" else ()
    return {
        "source": str(place(config.source)) if is_files else config.source,
        "fingerprint": fingerprint,
        **{name: getattr(config, name) for name in names},
        "form": request.form,
        "jpeg": treating.JPEG if request.form == "jpeg" else None,
        **decoders(),
        "decoding": known.LAYOUT,
    }


def _there(request: Request, recipe: dict[str, Any]) -> Prepared | None:
    """The prepared folder, where it is of this recipe; None: there is none. Raises: MixlabError: it is another."""
    out = request.out
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    held = None if str(out) in BUILT_IN else find(str(out), request.where)
    if held and held.description.recipe == json.loads(json.dumps(recipe)):
        return held
    what = "prepared data of another source, or with other options" if held else "something else"
    raise MixlabError(f"{request.where}: {out} is there and is {what}; name another folder, or remove it")


class _Making:
    """Prepared data on its way: the images of a source, one after the other, into a folder."""

    def __init__(self, request: Request, source: RawSource, tree: Tree | None, staging: Staging):
        self.request, self.source, self.tree, self.staging = request, source, tree, staging
        self.broken: list[Unreadable] = []
        self.labels = np.concatenate([split.labels for split in source.splits])
        self.decoder = Decoder(source, request.config, request.where, keep=request.form == "keep")
        num_test = len(source.test.labels) if source.test else 0
        counts = (len(source.train.labels), num_test, len(source.classes))
        self.about = About("", *counts, self.decoder.size, self.decoder.channels)
        # Of the pixels of images of one size; of others each image's own digest counts.
        self.stream: Any = _hash_of(self.about)

    def run(self, recipe: dict[str, Any]) -> None:
        """Write what is not there yet, and publish the folder."""
        staging, total, done = self.staging, len(self.labels), self.staging.look(self._marks)
        if staging.has_changed:
            what = f"{counted(done, 'image')} before the first of them stay" if done else "it is begun anew"
            told = f"mixlab: {staging.folder} was begun before files of the source changed: {what}"
            print(told, file=sys.stderr, flush=True)
        treatment = Treatment(self.decoder, self.request.form, wants_pixels=True)
        shape = (total, *[self.decoder.size] * 2, self.decoder.channels) if self.request.form == "array" else None
        staging.open(IMAGES[self.request.kind], shape)  # which frees the room of what is made anew
        room.check(self.request, treatment, self.source, self.tree, total - done, staging.folder)
        self._read_back()
        bar = Bar(f"preparing {self.request.config.source}", total, done)
        with Workers(treatment, self.request.jobs) as workers, bar, staging.safely():
            for found in workers.made(islice(self._items(), done, None)):
                made = [one for one in found if isinstance(one, Made)]
                self.broken += [one for one in found if isinstance(one, Unreadable)]
                if len(self.broken) >= MOST_BROKEN:
                    break
                if self.broken:  # the rest is looked at alone, so that all are told at once
                    bar.advance(len(found))
                    continue
                self._hash(made)
                workers.wants_pixels = self.stream is not None
                staging.write(made)
                bar.advance(len(made))
        if self.broken:
            raise opening.all_unreadable(self.broken, MOST_BROKEN, self.request.where)
        self._finish(recipe)

    def _marks(self) -> Iterator[bytes | None]:
        """By which the files of the images are known again; no image is read behind the first that is in no file."""
        for split in self.source.splits:
            for raw in split.images():
                yield self._mark(raw)
                if not isinstance(raw, str):
                    return

    def _mark(self, raw: Raw) -> bytes | None:
        if not isinstance(raw, str):
            return None
        stamp = stamp_of(raw)  # before it is read: of a file that changes meanwhile it is another the next time
        return self.staging.mark(self.decoder.size, self.decoder.channels, raw, stamp) if stamp else None

    def _items(self) -> Iterator[Item]:
        """The images of the source, those of the training split first; their files are noted on the way."""
        root, path = f"{place(self.request.config.source)}/", self.staging.folder / NAMES
        with path.open("w", encoding="utf-8", errors="surrogateescape") as names:
            self.named = 0
            for split in self.source.splits:
                for row, raw in enumerate(split.images()):
                    if (name := name_of(raw)) is not None:
                        names.write(name.removeprefix(root).replace("\n", "\\n") + "\n")
                        self.named += 1
                    self.staging.marks.write(self._mark(raw) or bytes(MARK_BYTES))
                    yield Item(split.name, row, raw)

    def _hash(self, made: list[Made]) -> None:
        """Add to the hash of the pixels; there is none any more where an image is of another size."""
        if self.stream and not all(one.height == one.width == self.decoder.size for one in made):
            self.stream = None
        for one in made if self.stream else ():
            self.stream.update(one.content if one.pixels is None else one.pixels)

    def _read_back(self) -> None:
        """Hash the pixels of the images that are there already."""
        rows, size, path = self.staging.all_rows(), self.decoder.size, self.staging.folder
        if not ((rows["height"] == size) & (rows["width"] == size)).all():
            self.stream = None
            return
        path, ends = path / IMAGES[self.request.kind], rows["end"].tolist()
        with path.open("rb") as file:
            file.seek(self.staging.first_byte)
            for start, end in zip([0, *ends], ends, strict=False):
                content = file.read(end - start)
                is_array = self.request.kind == "array"
                self.stream.update(content if is_array else decode(content, self.decoder.channels).tobytes())

    def _finish(self, recipe: dict[str, Any]) -> None:
        """Write the small files and the description, and give the folder its name."""
        staging, rows = self.staging, self.staging.all_rows()
        if self.stream:
            total = self.stream
        else:
            total = hashlib.sha256(
                json.dumps(dataclasses.astuple(dataclasses.replace(self.about, image_size=0))).encode()
            )
            total.update(rows["digest"].tobytes())
        total.update(self.labels.tobytes())
        staging.save(LABELS, self.labels)
        staging.save(HASHES, np.frombuffer(rows["digest"].tobytes(), "<u8")[::2])
        if self.request.kind == "encoded":
            staging.save(OFFSETS, np.concatenate([[0], rows["end"]]))
            staging.save(SIZES, np.stack([rows["height"], rows["width"]], 1))
        if self.named != len(self.labels):
            (staging.folder / NAMES).unlink()
        about, notes = self.about, (*self.source.notes, *self._notes(rows))
        notes = (*(self.tree.notes() if self.tree else ()), *notes)
        staging.publish(
            lambda files, sums: Description(
                format=FORMAT,
                form=self.request.kind,
                content=total.hexdigest()[:24],
                num_train=about.num_train,
                num_test=about.num_test,
                num_classes=about.num_classes,
                image_size=about.image_size if self.stream else None,
                image_channels=about.image_channels,
                kind=self.source.kind,
                classes=self.source.classes,
                notes=notes,
                recipe=recipe,
                files=files,
                mixlab=_own_version(),
                sums=sums,
                splits=tuple(split.name for split in self.source.splits),
            )
        )

    def _notes(self, rows: Array) -> Iterator[str]:
        """Sentences on what was seen of the images."""
        decoder, watch, seen = self.decoder, Watch(self.labels), rows["seen"]
        decoder.blended, decoder.framed, decoder.deep = (int((seen & bit > 0).sum()) for bit in (BLENDED, FRAMES, DEEP))
        decoder.total = len(rows)
        if decoder.deep and not decoder.range:
            decoder.range = decoder.find_range()  # it went on with what had been written
        yield from decoder.notes()
        if anew := int((seen & ANEW > 0).sum()):
            yield (
                f"{anew:,} of {len(rows):,} images are kept as PNG, since in the source they are no JPEG or PNG of 8 "
                f"bits a channel, one frame and no transparency"
            )
        for row in np.flatnonzero(rows["is_constant"]).tolist():
            watch.note(row, tuple(rows["colour"][row][: decoder.channels].tolist()))
        yield from watch.notes(self.source.classes)


def _hash_of(about: About) -> Any:
    return hashlib.sha256(json.dumps(dataclasses.astuple(about)).encode())


def _own_version() -> str:
    try:
        return version("mixlab")
    except PackageNotFoundError:  # the code of a snapshot
        return "unknown"
