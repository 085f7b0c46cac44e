"""WebDataset: tar files whose members of one name, up to its first dot, are one sample: 0007.jpg and 0007.cls or .json.

The class is what .cls holds, else a field of .json: that of CLASS_FIELDS, else the only one that can be a class, or the
one that data.label_column names. The split of a tar is the split word in its name, else in that of its folder.
"""

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

from backends.errors import MixlabError, counted
from experiments.data import rows
from experiments.data.raw import Found
from experiments.data.readers import tars
from experiments.data.readers.places import split_of
from experiments.data.table_files import BATCH_ROWS, Table
from experiments.data.tree import Tree
from experiments.data.words import is_image, listed
from experiments.spec.config import DataConfig

KIND = "WebDataset tar files"
CLASS_FIELDS = ("label", "cls", "class", "class_id", "class_name", "label_name", "category", "target", "fine_label")
Member = tuple[str, int, int]  # a file in a tar: its name, and the offset and size of its content
NONE: Member = ("", 0, -1)
LOOKED_AT = 16  # first files of a tar that show whether it is of this kind


@dataclass(eq=False)
class Images:
    """The images of one kind, sample by sample: their names and places. size -1: the sample has none."""

    names: list[str] = field(default_factory=list)
    tars: "array[int]" = field(default_factory=lambda: array("q"))
    offsets: "array[int]" = field(default_factory=lambda: array("q"))
    sizes: "array[int]" = field(default_factory=lambda: array("q"))

    def add(self, name: str, tar: int, offset: int, size: int) -> None:
        self.names.append(name)
        for numbers, value in ((self.tars, tar), (self.offsets, offset), (self.sizes, size)):
            numbers.append(value)


@dataclass(eq=False)
class Samples:
    """The samples in the tars of a split: images by kind, and each sample's text of .cls and fields of .json."""

    paths: list[Path] = field(default_factory=list)
    images: dict[str, Images] = field(default_factory=dict)
    texts: list[str | None] = field(default_factory=list)
    fields: list[dict[str, Any]] = field(default_factory=list)
    without: list[str] = field(default_factory=list)  # names of samples that have no image


def finds(tree: Tree) -> bool:
    for _, folder in tree.walk():
        named = [name for name in folder.files if tars.is_tar(name)]
        if named:
            return _is_of_samples(folder.path / named[0])
    return False


def read(tree: Tree, config: DataConfig, scratch: Path, where: str) -> Found:
    """Read WebDataset's tar files, as raw.py asks of a reader."""
    prefix = f"{where}: data.source: {config.source!r}"
    files: dict[str, list[Path]] = {}
    others = []
    for name, _ in tree.all_files():
        if tars.is_tar(name):
            files.setdefault(split_of(name, prefix) or "", []).append(tree.path / name)
        else:
            others.append(name)
    if "" in files and len(files) > 1:
        names = listed([path.name for path in files[""]], 3)
        raise MixlabError(f"{prefix}: no split word is in the names of {names}; rename them, as in train-0000.tar")
    tables = {name or "train": cache(partial(_table, paths, config, scratch, prefix)) for name, paths in files.items()}
    found = rows.found(KIND, tables, config, where)
    notes = [f"{counted(len(others), 'file')} beside the tar files ignored: {listed(others)}"] if others else []
    return Found(KIND, found.splits, found.classes, (*notes, *found.notes))


def _is_of_samples(path: Path) -> bool:
    """Tell whether one of the first files lies beside an image of the same name and can hold its class."""
    names = [_parts(name) for name in tars.first_names(path, LOOKED_AT)]
    keys = {key for key, kind in names if is_image(f".{kind}")}
    return any(key in keys and kind in ("cls", "json", "txt") for key, kind in names)


def _parts(name: str) -> tuple[str, str]:
    """The sample that a member belongs to, and its kind: 'a/0007', 'seg.png'."""
    folder, slash, last = name.rpartition("/")
    key, _, kind = last.partition(".")
    return folder + slash + key, kind.lower()


def _table(paths: Sequence[Path], config: DataConfig, scratch: Path, where: str) -> Table:
    """A row a sample: its images, and what can be its class."""
    import pyarrow as pa

    samples = Samples()
    for path in paths:
        _collect(samples, tars.plain(path, scratch, where), where)
    if samples.without:
        without = f"{counted(len(samples.without), 'sample')} without an image: {listed(samples.without, 3)}"
        raise MixlabError(f"{where}: {without}; remove them")
    images = _one_column_if_possible(samples.images)
    labels = pa.table(_classes(samples, config, where))
    of_image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([*((name, of_image) for name in images), *labels.schema])

    def batches(column: str) -> Iterator[Any]:
        if column not in images:
            yield from (batch.column(0) for batch in labels.select([column]).to_batches(BATCH_ROWS))
            return
        contents = _contents(samples.paths, images[column])
        while batch := list(islice(contents, BATCH_ROWS)):
            yield pa.array(batch, of_image)

    return Table(Path(), schema, {}, batches)


def _collect(samples: Samples, path: Path, where: str) -> None:
    """Add the samples of a tar, in which the members of a sample lie together."""
    samples.paths.append(path)
    current, members = None, dict[str, Member]()
    with path.open("rb") as file:
        for member in tars.members(path, where):
            key, kind = _parts(member.name)
            if not member.isfile() or not key.rpartition("/")[2]:
                continue
            if key != current:
                _add(samples, current, members, file, where)
                current, members = key, {}
            members[kind] = (member.name, member.offset_data, member.size)
        _add(samples, current, members, file, where)


def _add(samples: Samples, key: str | None, members: Mapping[str, Member], file: Any, where: str) -> None:
    if key is None:
        return
    kinds = [kind for kind in members if is_image(f".{kind}")]
    if not kinds:
        samples.without.append(key)
        return
    for kind in kinds:
        if kind not in samples.images:  # those before it have none
            samples.images[kind] = Images()
            for _ in samples.texts:
                samples.images[kind].add(NONE[0], -1, *NONE[1:])
    for kind, images in samples.images.items():
        name, *place = members.get(kind, NONE)
        images.add(name, len(samples.paths) - 1, *place)
    cls, fields = (_content(file, *members[kind][1:]) if kind in members else None for kind in ("cls", "json"))
    samples.texts.append(None if cls is None else cls.decode("utf-8", "replace").strip())
    samples.fields.append(_fields(fields, key, where))


def _one_column_if_possible(images: Mapping[str, Images]) -> Mapping[str, Images]:
    """The images as one column, if each sample has one image, of whatever kind; else as they are."""
    if len(images) < 2:
        return images
    merged = Images()
    of_kinds = (zip(one.names, one.tars, one.offsets, one.sizes, strict=True) for one in images.values())
    for places in zip(*of_kinds, strict=True):
        there = [place for place in places if place[3] >= 0]
        if len(there) > 1:
            return images
        merged.add(*there[0])
    return {"image": merged}


def _classes(samples: Samples, config: DataConfig, where: str) -> dict[str, Any]:
    """Columns that can hold the classes: the one that is asked for, else .cls, else fields of .json by their names."""
    fields = _single_fields(samples.fields)
    if any(text is not None for text in samples.texts):
        fields = {"cls": samples.texts, **{name: values for name, values in fields.items() if name != "cls"}}
    if config.label_column is not None:
        return fields
    usual = [name for name in fields if name.lower() in CLASS_FIELDS]
    names = ["cls"] if "cls" in fields else usual or list(fields)
    if not names:
        raise MixlabError(
            f"{where} holds samples without a class; put it into a file .cls, or into a field of .json such as label"
        )
    return {name: fields[name] for name in names}


def _single_fields(fields: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The fields whose values are numbers or words, all of one kind."""
    kinds: dict[str, set[type]] = {}
    for row in fields:
        for name, value in row.items():
            kinds.setdefault(name, set()).add(type(value))
    one_kind = ({int}, {float}, {str}, {bool}, {int, float})
    names = [name for name, types in kinds.items() if types - {type(None)} in one_kind]
    return {name: [row.get(name) for row in fields] for name in names}


def _fields(content: bytes | None, key: str, where: str) -> dict[str, Any]:
    try:
        held = json.loads(content) if content else {}
    except ValueError as error:
        raise MixlabError(f"{where}: the .json of sample {key!r} cannot be read: {error}") from error
    return held if isinstance(held, dict) else {"json": held}


def _contents(paths: Sequence[Path], images: Images) -> Iterator[dict[str, Any] | None]:
    opened, file = -1, None
    try:
        for name, tar, offset, size in zip(images.names, images.tars, images.offsets, images.sizes, strict=True):
            if size < 0:
                yield None
                continue
            if tar != opened:
                if file:
                    file.close()
                opened, file = tar, paths[tar].open("rb")
            yield {"bytes": _content(file, offset, size), "path": name}
    finally:
        if file:
            file.close()


def _content(file: Any, offset: int, size: int) -> bytes:
    file.seek(offset)
    content: bytes = file.read(size)
    return content
