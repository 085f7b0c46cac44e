"""What tells, without decoding it, whether a source is one that was decoded before."""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from backends.errors import MixlabError, choices
from experiments.data import hub, memo
from experiments.data.builtin import BUILT_IN, SYNTHETIC_VERSION
from experiments.data.progress import tracked
from experiments.data.sources import HUB_FOLDER
from experiments.data.tree import Tree, place, read_tree
from experiments.spec.config import DataConfig
from experiments.spec.values import shown

HUB_ID = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?", re.ASCII)
WHY = 80  # letters of a reason that a sentence shows


def is_there(source: str) -> bool:
    """Whether a source can be read without asking a network."""
    return source in BUILT_IN or place(source).exists()


def source_tree(source: str, where: str) -> Tree | None:
    """The files of a source; None: it is built in, or there is nothing of that name.

    Raises: MixlabError: a folder cannot be listed, or has no end.
    """
    if source in BUILT_IN or not place(source).exists():
        return None
    where = f"{where}: data.source: {source!r}"
    try:
        return read_tree(place(source), where)
    except OSError as error:
        raise MixlabError(f"{where} cannot be read: {error.filename}: {error.strerror}") from error


def fingerprint(config: DataConfig, tree: Tree | None, cache: Path, where: str) -> str:
    """A text that is another for another content of the source.

    Raises: MixlabError: the source is not there or cannot be read.  OSError: the cache cannot be written.
    """
    if config.source in BUILT_IN:
        return SYNTHETIC_VERSION if config.source == "synthetic" else config.source
    if tree:
        return _files_fingerprint(tree, cache, f"{where}: data.source: {config.source!r}")
    return _hub_fingerprint(config.source, config.subset, cache, where)


def noted_fingerprint(config: DataConfig, tree: Tree | None, cache: Path) -> str | None:
    """The fingerprint that a listing tells; None: files would have to be read, or the hub asked."""
    if config.source in BUILT_IN:
        return SYNTHETIC_VERSION if config.source == "synthetic" else config.source
    noted = memo.recall(cache, _files_question(tree) if tree else _hub_question(config.source, config.subset))
    return str(noted) if noted else None


def hub_bytes(config: DataConfig, cache: Path) -> int | None:
    """What the hub said of the size of a data set when it was asked for its fingerprint; None: nothing."""
    noted = memo.recall(cache, ["hub bytes", config.source, config.subset])
    return noted if isinstance(noted, int) else None


def check_is_there(config: DataConfig, tree: Tree | None, cache: Path, where: str) -> None:
    """Check that there is a source.

    Raises: MixlabError: it is neither built in, nor a file or folder, nor known to the hub.
    """
    if tree is None and config.source not in BUILT_IN:
        _hub_fingerprint(config.source, config.subset, cache, where)


def _files_fingerprint(tree: Tree, cache: Path, where: str) -> str:
    """The SHA-256 over the names and contents of the files; files that were seen before are only listed."""
    names = [name for name, _ in tree.all_files()]
    if not names:
        raise MixlabError(f"{where} is an empty folder; put Parquet, Arrow or image files there")
    question = _files_question(tree)
    digest = memo.recall(cache, question)
    if not digest:
        try:
            digest = _hash_files(tree.path, names)
        except OSError as error:
            raise MixlabError(f"{where} cannot be read: {error.filename}: {error.strerror}") from error
        memo.remember(cache, question, digest)
    return str(digest)


def _files_question(tree: Tree) -> memo.Hashed:
    """The question by which a folder's fingerprint is kept: its listing, with the size and time of each file.

    The text is that of a list as JSON, which is hashed part by part: of a million names it would take a GiB.
    """
    if tree.digest is None:
        total = hashlib.sha256(f'["folder",{json.dumps(str(tree.path.resolve()))},['.encode())
        for number, part in enumerate(_listed(tree)):
            total.update(("," * (number > 0) + part).encode())
        total.update(b"]]")
        tree.digest = total.hexdigest()
    return memo.Hashed(tree.digest)


def _listed(tree: Tree) -> Iterator[str]:
    """The files of each folder as JSON: [name, bytes, time], with commas between."""
    for below, folder in tree.walk():
        if folder.files:
            yield ",".join(f"[{json.dumps(below + name)},{size},{time}]" for name, (size, time) in folder.files.items())


def listing(config: DataConfig, tree: Tree | None, cache: Path, where: str) -> str:
    """A text that is another for another listing of the source's files, which are not read."""
    return _files_question(tree).digest if tree else fingerprint(config, tree, cache, where)


def _hub_question(source: str, subset: str | None) -> list[Any]:
    """The question by which the fingerprint of a data set on the hub is kept."""
    return ["hub", source, subset]


def _hub_fingerprint(source: str, subset: str | None, cache: Path, where: str) -> str:
    """The id of a data set with the commit that its files come from; it stays what it was when it was first asked for.

    Raises: MixlabError: there is no such data set, or the hub cannot be reached.
    """
    question = _hub_question(source, subset)
    if noted := memo.recall(cache, question):
        return str(noted)
    # Without a network, asking the hub takes half a minute: it is not asked for what can be no id, such as a path.
    folder = place(source)
    why = f"there is no folder {folder}"
    home = source.split("/")[0]
    if home.startswith("~") and home in folder.parts:
        why = f"the home of {home} is not known"
    in_a_folder = "/" in source and folder.parent.is_dir()
    is_path = source.startswith(("/", ".", "~")) or in_a_folder or not HUB_ID.fullmatch(source)
    if not is_path and not get_close_matches(source, BUILT_IN, cutoff=0.7):
        print(f"mixlab: asking the hub for {source}", file=sys.stderr, flush=True)
        try:
            builder = hub.library().load_dataset_builder(source, subset, cache_dir=str(cache / HUB_FOLDER))
            answer = f"hub:{source}:{subset}:{builder.hash}"
            memo.remember(cache, ["hub bytes", source, subset], _download_bytes(builder))
            memo.remember(cache, question, answer)
            return answer
        except Exception as error:  # the library documents no common type
            hub.raise_if_full(error)
            why = hub.reason(error)
    beside = [path.name for path in folder.parent.iterdir() if path.name[0] != "."] if in_a_folder else []
    near = [str(folder.parent / name) for name in get_close_matches(folder.name, beside, n=3)]
    allowed = choices(source, (*BUILT_IN, *near, "an existing folder", "the id of a data set on the hub"))
    raise MixlabError(
        f"{where}: data.source: {shown(source)} is neither an existing folder nor a data set reachable on the hub "
        f"({why[:WHY]}); {allowed}"
    )


def _download_bytes(builder: Any) -> int | None:
    """The size of a download that the card of a data set gives; None: it gives none, as many do."""
    num_bytes = getattr(getattr(builder, "info", None), "download_size", None)
    return num_bytes if isinstance(num_bytes, int) else None


def _hash_files(folder: Path, names: list[str]) -> str:
    """The SHA-256 over the names and contents of files, in this order.  Raises: OSError: one cannot be read."""
    total = hashlib.sha256()
    for name in tracked(names, len(names), f"reading {folder} "):
        with (folder / name).open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{name}\0{content}\n".encode())
    return total.hexdigest()
