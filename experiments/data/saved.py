"""What the library `datasets` saved: one Arrow stream or several for each split, with the columns' kinds in them."""

import json
from functools import cache, partial
from pathlib import Path

from backends.errors import MixlabError
from experiments.data import rows
from experiments.data.raw import Found
from experiments.data.table_files import open_table
from experiments.data.tree import Tree
from experiments.data.words import canonical
from experiments.spec import DataConfig

KIND = "a saved data set"
STATE, SPLITS = "state.json", "dataset_dict.json"


def finds(tree: Tree) -> bool:
    return STATE in tree.files or SPLITS in tree.files


def read(tree: Tree, config: DataConfig, scratch: Path, where: str) -> Found:
    """See raw.py."""
    said = f"{where}: data.source: {config.source!r}"
    if STATE in tree.files:
        paths = {"train": _files(tree, said)}
    else:
        names = json.loads((tree.path / SPLITS).read_text("utf-8"))["splits"]
        paths = {canonical(name) or name: _files(tree.folders[name], said) for name in names}
    return rows.found(
        KIND, {name: cache(partial(open_table, files, said)) for name, files in paths.items()}, config, where
    )


def _files(folder: Tree, where: str) -> list[Path]:
    """Raises: MixlabError: rows are chosen by a second file, as old versions of the library did."""
    state = json.loads((folder.path / STATE).read_text("utf-8"))
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise MixlabError(f"{where}: {folder.path} was saved by an old `datasets`; save it again with a new one")
    return [folder.path / one["filename"] for one in state["_data_files"]]
