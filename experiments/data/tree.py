"""A listing of a folder: every file and folder below it, read once; links are followed, hidden names are left out."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISFIFO, S_ISSOCK

from backends.errors import MixlabError, counted
from experiments.data.words import listed
from experiments.files import identity

# Names that programs leave beside data; they and names that begin with a dot hold no data.
JUNK = ("__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir")


@dataclass(eq=False)
class Tree:
    """A folder. files: bytes and time of change in ns, by name; folders, by name; both in the order of names.

    hidden: names that are left out.   broken: links that lead nowhere.   digest: of the listing, once it is known.
    """

    path: Path
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    folders: "dict[str, Tree]" = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    digest: str | None = None

    def walk(self, below: str = "") -> "Iterator[tuple[str, Tree]]":
        """Walk this folder and all below it, each with its path relative to this one ("" or "a/b/")."""
        yield below, self
        for name, folder in self.folders.items():
            yield from folder.walk(f"{below}{name}/")

    def all_files(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Path relative to this folder, and bytes and time of change, of each file."""
        for below, folder in self.walk():
            for name, stat in folder.files.items():
                yield below + name, stat

    @property
    def holds(self) -> bool:
        """Tell whether there is a file in it or below."""
        return bool(self.files) or any(folder.holds for folder in self.folders.values())

    def notes(self) -> Iterator[str]:
        """Notes on what in the folder holds no data, counted and named."""
        folders = list(self.walk())
        yield from _note("hidden name", [below + name for below, one in folders for name in one.hidden])
        yield from _note("dead link", [below + name for below, one in folders for name in one.broken])
        yield from _note("empty folder", [below for below, one in folders if not one.files and not one.folders])


def _note(what: str, names: list[str]) -> Iterator[str]:
    if names:
        yield f"{counted(len(names), what)} ignored: {listed(names)}"


def place(source: str) -> Path:
    """The absolute path of a source. A home that is not known stays as it is written, and is found nowhere."""
    return Path(source).absolute()


def read_tree(source: Path, where: str) -> Tree:
    """The tree of a folder; of a file, a tree of that file alone.

    Raises: MixlabError: links lead in a circle.   OSError: a folder cannot be listed.
    """
    if source.is_file():
        stat = source.stat()
        return Tree(source.parent, {source.name: (stat.st_size, stat.st_mtime_ns)})
    return _list(source, (), where)


def _list(path: Path, above: tuple[tuple[int, int], ...], where: str) -> Tree:
    """List a folder. Args: above: files.identity of the folders that hold this one."""
    above = (*above, identity(path))
    tree = Tree(path)
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name in JUNK:
                tree.hidden.append(entry.name)
                continue
            try:
                stat = entry.stat()
            except FileNotFoundError:
                tree.broken.append(entry.name)
                continue
            if S_ISFIFO(stat.st_mode) or S_ISSOCK(stat.st_mode):
                tree.hidden.append(entry.name)
            elif not entry.is_dir():
                tree.files[entry.name] = (stat.st_size, stat.st_mtime_ns)
            elif entry.is_symlink() and identity(path / entry.name) in above:
                raise MixlabError(
                    f"{where}: {path / entry.name} is a link to a folder that holds it, so the folder has no end; "
                    f"remove the link"
                )
            else:
                tree.folders[entry.name] = _list(path / entry.name, above, where)
    return tree
