"""Tables of images and classes: Parquet, Arrow, CSV or JSON files, and images that lie beside a table of their names.

- The files are those at the first level, else those in a folder `data`, else those in folders that are named by
  splits, else those in the only folder that has any. Several formats, or folders, are a question.
- The split of a file is the split word in its name (train-00000-of-00002.parquet, my_test.csv), else that of its
  folder. Where no name holds one, all are the training split; a column `split` of split words cuts it (with other
  words in it, it is refused), and so do paths that all begin with a folder named by a split.
- Beside a file metadata.csv, .jsonl or .parquet, other tables are ignored.
- Paths in a column are relative to the table's folder. Every image there must have a row, and every row an image; an
  image of several rows must have one class.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from backends.errors import MixlabError, counted
from experiments.data import columns, rows
from experiments.data.raw import Found, RawSplit
from experiments.data.table_files import Table, format_of, open_table
from experiments.data.tree import Tree, place
from experiments.data.words import canonical, is_image, listed, splits_in
from experiments.spec.config import DataConfig

KIND = "Parquet, Arrow, CSV or JSON files"
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
NO_TABLE = re.compile(r"(dataset_infos?|dataset_dict|state|package|config|info)\.json", re.IGNORECASE)


def finds(tree: Tree) -> bool:
    """Tell whether there is a table anywhere in the folder."""
    return in_folder(tree) or any(finds(folder) for folder in tree.folders.values())


def in_folder(tree: Tree) -> bool:
    """Tell whether a table lies in the folder itself."""
    return any(map(_is_table, tree.files))


def name_images(tree: Tree, where: str) -> list[str]:
    """The tables in the folder itself that have a column of images; files that are no tables after all do not count."""
    naming = []
    for name in filter(_is_table, tree.files):
        try:
            table = open_table([tree.path / name], where)
        except MixlabError:
            continue
        if any(columns.is_embedded(table, one) or columns.is_path(table, one) for one in table.schema.names):
            naming.append(name)
    return naming


def read(tree: Tree, config: DataConfig, scratch: Path, where: str) -> Found:
    """Read tables of images and classes, as raw.py asks of a reader."""
    prefix = f"{where}: data.source: {config.source!r}"
    folders, notes = _folders(tree, prefix)
    return _found(folders, config, where, [*notes, *_outside(tree, list(folders.values()))])


def read_split(name: str, folder: Tree, config: DataConfig, where: str) -> RawSplit:
    """Read one split whose images lie beside a table of their classes."""
    return _found({name: folder}, config, where, []).splits[name]()


def _found(folders: Mapping[str, Tree], config: DataConfig, where: str, notes: Sequence[str]) -> Found:
    prefix = f"{where}: data.source: {config.source!r}"
    files: dict[str, list[Path]] = {}
    notes = list(notes)
    for split, folder in folders.items():
        of_folder, ignored = _files(split, folder, prefix)
        files |= of_folder
        notes += ignored
    tables = {split: cache(partial(open_table, paths, prefix)) for split, paths in files.items()}
    formats = {format_of(paths[0].name) for paths in files.values()}
    found = rows.found(f"{' and '.join(map(str, formats))} files", tables, config, where)
    for folder in folders.values():
        inside = [opens for split, opens in tables.items() if files[split][0].parent == folder.path]
        notes += _unlisted(folder, [opens() for opens in inside], rows.image_of(tables, config, where), config, prefix)
    return replace(found, notes=(*notes, *found.notes))


def _folders(tree: Tree, where: str) -> tuple[dict[str, Tree], list[str]]:
    """The folders whose tables count, by the split of those that have no split word in their names; and notes.

    Raises: MixlabError: several folders have tables.
    """
    if in_folder(tree):
        return {"train": tree}, []
    if "data" in tree.folders and in_folder(tree.folders["data"]):
        return {"train": tree.folders["data"]}, []
    holding = {name: folder for name, folder in tree.folders.items() if finds(folder)}
    splits = {canonical(name): folder for name, folder in holding.items() if in_folder(folder)}
    if None not in splits and len(splits) == len(holding):
        return {name: folder for name, folder in splits.items() if name}, []
    if len(holding) == 1:
        folder = next(iter(holding.values()))
        folders, notes = _folders(folder, where)
        return folders, [f"the tables are those in {folder.path}", *notes[1:]]
    raise MixlabError(
        f"{where} has tables in several folders: {listed(list(holding))}; name one of them with data.subset"
    )


def _outside(tree: Tree, folders: Sequence[Tree]) -> Iterator[str]:
    """A note on images and tables that lie in none of the folders whose tables are read."""
    inside = {id(one) for folder in folders for _, one in folder.walk()}
    others = {
        below or "./": number
        for below, one in tree.walk()
        if id(one) not in inside and (number := sum(is_image(name) or _is_table(name) for name in one.files))
    }
    if others:
        yield f"{sum(others.values()):,} images and tables in other folders ignored: {listed(list(others))}"


def _files(split: str, folder: Tree, where: str) -> tuple[dict[str, list[Path]], list[str]]:
    """The tables of a folder by split, and notes.

    Args:   split: of tables that have no split word in their names.
    Raises: MixlabError: some have one and others have none, or the formats differ.
    """
    names = [name for name in folder.files if _is_table(name)]
    own = [name for name in names if name.lower() in METADATA]
    ignored = [name for name in names if name not in own] if own else []
    names = own or names
    if len(formats := {format_of(name) for name in names}) > 1:
        raise MixlabError(
            f"{where}: {folder.path} has tables of several formats ({', '.join(sorted(map(str, formats)))}): "
            f"{listed(names)}; keep one format there"
        )
    words = {name: splits_in(name) for name in names}
    open_names = [name for name in names if len(words[name]) > 1 or (not words[name] and any(words.values()))]
    if open_names:
        raise MixlabError(
            f"{where}: {folder.path}: the split of {listed(open_names)} is not clear beside {listed(names, 3)}; one of "
            f"the words train, validation or test must stand in each name, or in none"
        )
    by_split: dict[str, list[Path]] = {}
    for name in names:
        by_split.setdefault(next(iter(words[name]), split), []).append(folder.path / name)
    notes = [f"{counted(len(ignored), 'table')} beside {own[0]} ignored: {listed(ignored)}"] if ignored else []
    return by_split, notes


def _unlisted(folder: Tree, tables: Sequence[Table], column: str, config: DataConfig, where: str) -> Iterator[str]:
    """Compare the image files of a folder with the rows of its tables.

    Raises: MixlabError: an image has no row, or a row has no image.
    """
    files = {name for name, _ in folder.all_files() if is_image(name)}
    if not any(columns.holds_text(table, column) for table in tables if column in table.schema.names):
        if files:
            yield f"{counted(len(files), 'image file')} beside the tables ignored: {listed(sorted(files), 3)}"
        return
    if (source := place(config.source)).is_file() and source.parent == folder.path:
        raise MixlabError(f"{where} is a table of paths; name the folder that holds it and the images")
    paths = [path for table in tables for path in table.values(column) if isinstance(path, str)]
    inside = {path: _relative(path, folder.path) for path in paths}
    rowless = sorted(files - set(inside.values()))
    outside = [path for path in paths if inside[path] not in files]
    missing = [path for path in outside if not (folder.path / path).is_file()]
    if missing:
        raise MixlabError(
            f"{where}: {len(missing):,} of {len(paths):,} rows of the table name images that are not there, the first "
            f"{missing[0]!r}; paths are relative to {folder.path}{_meant(missing[0], files)}"
        )
    if rowless and any(map(is_image, names := [name for table in tables for name in table.schema.names])):
        raise MixlabError(f"{where}: the table begins without a header, with {listed(names, 3)}; add one: file,label")
    if rowless:
        raise MixlabError(
            f"{where}: {len(rowless):,} of {len(files):,} images have no row in the table: {listed(rowless, 3)}; add "
            f"rows, or move these images away"
        )
    if more := len(paths) - len(set(inside.values())):
        yield f"{counted(more, 'row')} of the table name an image that an earlier row names"
    if outside:
        yield f"{counted(len(outside), 'image')} outside {folder.path}: a change there is not noticed"


def _meant(path: str, files: Collection[str]) -> str:
    """The end of an error: the image that may be meant by a path that leads nowhere."""
    name = path.replace("\\", "/").rpartition("/")[2]
    endings = (name, Path(name).stem)
    near = [file for file in files if Path(file).name == name] or [file for file in files if Path(file).stem in endings]
    return f"; did you mean {near[0]!r}?" if len(near) == 1 else ""


def _relative(path: str, folder: Path) -> str:
    path = os.path.normpath(path)
    return os.path.relpath(path, folder) if os.path.isabs(path) else path  # noqa: PTH117 - of a million paths


def _is_table(name: str) -> bool:
    return format_of(name) is not None and not NO_TABLE.fullmatch(name)
