"""Data sets that the library `datasets` saved: one Arrow stream or several for each split, with the columns' kinds."""

import json
from functools import cache, partial
from pathlib import Path

from backends.errors import MixlabError
from experiments.data import rows
from experiments.data.raw import Found
from experiments.data.table_files import open_table
from experiments.data.tree import Tree
from experiments.data.words import canonical
from experiments.spec.config import DataConfig

KIND = "a saved data set"
STATE, INFO, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"


def finds(tree: Tree) -> bool:
    return SPLITS in tree.files or {STATE, INFO} <= set(tree.files)


def read(tree: Tree, config: DataConfig, scratch: Path, where: str) -> Found:
    """Read a saved data set, as raw.py asks of a reader."""
    prefix = f"{where}: data.source: {config.source!r}"
    try:
        paths = _paths(tree, prefix)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MixlabError(f"{prefix} is a saved data set that is not whole ({error!r}); save it again") from error
    return rows.found(
        KIND, {name: cache(partial(open_table, files, prefix)) for name, files in paths.items()}, config, where
    )


def _paths(tree: Tree, where: str) -> dict[str, list[Path]]:
    if SPLITS not in tree.files:
        return {"train": _files(tree, where)}
    names = json.loads((tree.path / SPLITS).read_text("utf-8"))["splits"]
    return {canonical(name) or name: _files(tree.folders[name], where) for name in names}


def _files(folder: Tree, where: str) -> list[Path]:
    """The files of a split. Raises: MixlabError: a second file chooses rows, as in old versions."""
    state = json.loads((folder.path / STATE).read_text("utf-8"))
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise MixlabError(f"{where}: {folder.path} was saved by an old `datasets`; save it again with a new one")
    return [folder.path / one["filename"] for one in state["_data_files"]]
