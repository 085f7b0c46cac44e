"""Sources: from that of a trial to its labels and raw images. Nothing heavy is imported before one has to be read."""

from collections import Counter
from importlib import import_module
from pathlib import Path

import numpy as np

from backends.errors import MixlabError, choices, counted
from experiments.data import builtin, layout
from experiments.data.numbering import number
from experiments.data.raw import Found, RawSource
from experiments.data.tree import Tree
from experiments.data.words import is_image, listed
from experiments.spec.config import DataConfig

HUB_FOLDER = "hub"  # in the data cache: what came over the network is kept
# Readers of the files in which well-known data sets are handed on.
READERS = (
    "readers.webdataset",
    "readers.archives",
    "readers.cifar",
    "readers.idx",
    "readers.arrays",
    "readers.pixel_rows",
)
# Modules of this package that read files, as raw.py says. The first that finds its files reads.
IN_ORDER = ("saved", "layout", *READERS, "tables")


def read_source(config: DataConfig, tree: Tree | None, scratch: Path, where: str) -> RawSource:
    """The labels and raw images of both splits.

    Args:   tree: the files of the source; None: it has none here.
            scratch: folder for working files, which must outlive the result.
    Raises: MixlabError: the source, a split or a column is missing or of no use.  OSError: `scratch` is full.
    """
    source = number(find(config, tree, scratch, where), config, where)
    for split in source.splits:
        if not len(split.labels):
            raise MixlabError(f"{where}: data.source: split {split.name!r} of {config.source!r} has no examples")
    if len(np.unique(source.train.labels)) < 2:
        raise MixlabError(
            f"{where}: data.source: all examples of split {source.train.name!r} of {config.source!r} are of one "
            f"class; at least 2 classes are needed"
        )
    return source


def find(config: DataConfig, tree: Tree | None, scratch: Path, where: str) -> Found:
    """The findings of the reader that knows a source, before splits are chosen and classes numbered."""
    if config.source == "digits":
        return builtin.digits()
    if config.source == "synthetic":
        return builtin.synthetic(config)
    if tree is None:
        from experiments.data import hub

        return hub.read(config, scratch, where)
    narrowed = tree.folders.get(config.subset or "")
    tree = narrowed or tree
    for name in ("readers.archives", "layout") if config.layout else IN_ORDER:
        reader = import_module(f"experiments.data.{name}")
        if (config.layout and name == "layout") or reader.finds(tree):
            if config.subset and not narrowed and name not in READERS:
                raise MixlabError(
                    f"{where}: data.subset: {config.source!r} has no folder {config.subset!r}; "
                    f"{choices(config.subset, tree.folders)}"
                )
            found: Found = reader.read(tree, config, scratch, where)
            return found
    raise _unknown(tree, config, where)


def _unknown(tree: Tree, config: DataConfig, where: str) -> MixlabError:
    files = [name for name, _ in tree.all_files()]
    images = sum(map(is_image, files))
    types = Counter(Path(name).suffix or "no suffix" for name in files)
    held = listed([f"{suffix} ({number:,})" for suffix, number in types.most_common()])
    if images:
        why = f"holds {counted(images, 'image')}, but neither two class folders nor a table of classes"
        why += layout.hint(tree)
    else:
        why = "holds no data of a known kind, such as images in one folder for each class, Parquet or CSV"
    return MixlabError(f"{where}: data.source: {config.source!r} {why}; found: {held or 'nothing'}")
