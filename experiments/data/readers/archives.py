"""Zip and tar files, read as the folders that they hold. Images are taken from them one by one; other files, such as
tables, are unpacked into a folder for working files.

An archive is read where archives are all that a folder holds, tables aside: one that is alone stands for its content,
several stand for folders of their names. Of a folder and an archive side by side, the folder is read.
"""

import re
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from backends.errors import MixlabError, counted
from experiments.data.raw import Found, Named, Raw, RawSplit
from experiments.data.readers import tars, webdataset
from experiments.data.table_files import format_of
from experiments.data.tree import JUNK, Tree
from experiments.data.words import canonical, is_image, listed
from experiments.spec.config import DataConfig

KIND = "zip or tar files"
DOCUMENT = re.compile(r".*\.(txt|md|rst|html|pdf)|(readme|licen[cs]e)(\.\w+)?", re.IGNORECASE)
OTHERS = (".rar", ".7z", ".tar.zst", ".tzst", ".tar.lz4")


@dataclass(frozen=True)
class Member:
    """The place of an image in an archive. offset: in a tar; in a zip it is found by name."""

    archive: Path
    name: str
    offset: int
    size: int


@dataclass(eq=False)
class Unpacked:
    """Archives as a tree, in which images are only names."""

    tree: Tree
    images: dict[str, Member] = field(default_factory=dict)  # by the path that they have in the tree
    links: list[str] = field(default_factory=list)


def finds(tree: Tree) -> bool:
    """Tell whether archives are what is to be read."""
    archives = [name for name in tree.files if _is_archive(name)]
    others = [name for name in tree.files if name not in archives and format_of(name) is None]
    if not archives or any(is_image(name) for name in others) or any(one.holds for one in tree.folders.values()):
        return False
    return not webdataset.finds(tree)


def read(tree: Tree, config: DataConfig, scratch: Path, where: str) -> Found:
    """Read archives as the folders that they hold, as raw.py asks of a reader."""
    from experiments.data.sources import find  # which asks this reader

    names = [name for name in tree.files if _is_archive(name)]
    root = scratch / "unpacked" / str(len(list(scratch.glob("unpacked/*"))))
    root.mkdir(parents=True)
    held = Unpacked(Tree(root))
    for name in names:
        alone, stem = len(tree.files) == 1, _stem(name)
        prefix = f"{where}: data.source: {tree.path / name}"
        _unpack(tree.path / name, root if alone else root / stem, held, scratch, prefix)
        if not alone and stem in held.tree.folders:
            held.tree.folders[stem] = _without_its_name(stem, held.tree.folders[stem])
    for name in tree.files:
        if name not in names and (len(names) > 1 or format_of(name)):
            (root / name).symlink_to(tree.path / name)
            held.tree.files[name] = tree.files[name]
    _sort(held.tree)
    inner, passed = _without_wrappers(held.tree)
    try:
        found = find(config, inner, scratch, where)
    except MixlabError as error:  # speaks of the folder for working files, which nobody knows
        archive = str(tree.path / names[0] if len(names) == 1 else tree.path)
        raise MixlabError(str(error).replace(str(root), archive)) from error
    splits = {name: partial(_through, split, held.images) for name, split in found.splits.items()}
    notes = [f"{counted(len(held.links), 'link')} in archives ignored: {listed(held.links)}"] if held.links else []
    notes += [f"{counted(len(passed), 'name')} beside {inner.path.name} ignored: {listed(passed)}"] if passed else []
    notes = [f"read from {listed(names)} as from a folder", *notes, *held.tree.notes(), *found.notes]
    return replace(found, splits=splits, notes=tuple(notes))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in JUNK


def _sort(tree: Tree) -> None:
    """Sort the names of a tree, as a folder is listed."""
    for held in (tree.files, tree.folders):
        in_order = sorted(held.items())
        held.clear()
        held.update(in_order)  # type: ignore[arg-type]
    for folder in tree.folders.values():
        _sort(folder)


def _is_archive(name: str) -> bool:
    return tars.is_tar(name) or name.lower().endswith((".zip", *OTHERS))


def _stem(name: str) -> str:
    stem = name.rpartition(".")[0]
    return stem.removesuffix(".tar")


def _without_its_name(stem: str, tree: Tree) -> Tree:
    """The folder in an archive that repeats the archive's name, as train/ in train.zip, else the archive's own."""
    name, folder = next(iter(tree.folders.items()), ("", tree))
    repeats = name == stem or (canonical(name) is not None and canonical(name) == canonical(stem))
    return folder if repeats and len(tree.folders) == 1 and not tree.files else tree


def _without_wrappers(tree: Tree) -> tuple[Tree, list[str]]:
    """The folder in which the content of an archive begins, and the files beside it, such as a README."""
    passed: list[str] = []
    while len(tree.folders) == 1 and all(map(DOCUMENT.fullmatch, tree.files)):
        passed += tree.files
        tree = next(iter(tree.folders.values()))
    return tree, passed


def _unpack(path: Path, root: Path, held: Unpacked, scratch: Path, where: str) -> None:
    if path.name.lower().endswith(OTHERS):
        raise MixlabError(f"{where} is an archive of a kind that Mixlab does not read; unpack it and name the folder")
    if tars.is_tar(path.name):
        _unpack_tar(tars.plain(path, scratch, where), root, held, where)
    else:
        _unpack_zip(path, root, held, where)


def _unpack_tar(path: Path, root: Path, held: Unpacked, where: str) -> None:
    with path.open("rb") as file:
        for member in tars.members(path, where):
            if member.issym() or member.islnk():
                held.links.append(member.name)
            elif member.isfile():
                place = Member(path, member.name, member.offset_data, member.size)
                if made := _place(place, root, held, where):
                    file.seek(member.offset_data)
                    _copy(file, made, member.size)


def _unpack_zip(path: Path, root: Path, held: Unpacked, where: str) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.is_dir():
                    continue
                if info.flag_bits & 1:
                    raise MixlabError(f"{where} is locked with a password; unpack it and name the folder")
                if stat.S_ISLNK(info.external_attr >> 16):
                    held.links.append(info.filename)
                elif made := _place(Member(path, info.filename, 0, info.file_size), root, held, where):
                    with archive.open(info) as file:
                        _copy(file, made, info.file_size)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise MixlabError(f"{where} cannot be read: {error}; fetch it again, or unpack it") from error


def _place(member: Member, root: Path, held: Unpacked, where: str) -> Path | None:
    """Enter a file into the tree; returns where to unpack it, or None if it stays in the archive.

    Raises: MixlabError: it would lie outside.
    """
    parts = [part for part in PurePosixPath(member.name.replace("\\", "/")).parts if part != "."]
    if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0]:
        raise MixlabError(
            f"{where} holds {member.name!r}, which would lie outside of it; unpack it where that is harmless"
        )
    folder = held.tree
    for part in (*root.relative_to(held.tree.path).parts, *parts[:-1]):
        if _is_hidden(part):
            if part not in folder.hidden:
                folder.hidden.append(part)
            return None
        folder = folder.folders.setdefault(part, Tree(folder.path / part))
    if _is_hidden(parts[-1]):
        folder.hidden.append(parts[-1])
        return None
    folder.files[parts[-1]] = (member.size, 0)
    path = folder.path / parts[-1]
    if is_image(parts[-1]):
        held.images[str(path)] = member
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _copy(file: IO[bytes], path: Path, size: int) -> None:
    with path.open("wb") as made:
        while size and (content := file.read(min(size, 2**20))):
            made.write(content)
            size -= len(content)


def _through(split: Callable[[], RawSplit], images: dict[str, Member]) -> RawSplit:
    held = split()
    return replace(held, images=lambda: _read(held.images(), images))


def _read(raws: Iterator[Raw], images: dict[str, Member]) -> Iterator[Raw]:
    """The same images; those that lie in an archive as the bytes that it holds."""
    archive, opened = None, None
    try:
        for raw in raws:
            member = images.get(raw) if isinstance(raw, str) else None
            if member is None:
                yield raw
                continue
            if member.archive != archive:
                if opened:
                    opened.close()
                archive = member.archive
                opened = zipfile.ZipFile(archive) if member.archive.suffix.lower() == ".zip" else archive.open("rb")
            assert opened is not None
            if isinstance(opened, zipfile.ZipFile):
                content = opened.read(member.name)
            else:
                opened.seek(member.offset)
                content = opened.read(member.size)
            yield Named.of(content, member.name.removeprefix("./"))
    finally:
        if opened:
            opened.close()
