"""From the source of a trial to its labels and raw images. Nothing heavy is imported before a source has to be read."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from backends.errors import MixlabError
from experiments.data import builtin
from experiments.data.numbering import number
from experiments.data.raw import Found, RawSource
from experiments.data.tree import Tree
from experiments.spec import DataConfig

HUB_FOLDER = "hub"  # in the data cache: what came over the network is kept
# Modules of this package that read files, as raw.py says. The files of a source are of one kind: where two readers
# find theirs, the source is refused.
READERS = ("folders",)


def read_source(config: DataConfig, tree: Tree | None, scratch: Path, where: str) -> RawSource:
    """Labels and raw images of both splits.

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
    """What a source holds, before splits are chosen and classes numbered."""
    if config.source == "digits":
        return builtin.digits()
    if config.source == "synthetic":
        return builtin.synthetic(config)
    if tree is None:
        from experiments.data import folders

        return folders.read_hub(config, scratch, where)
    found: Found = _reader(tree, config, where).read(tree, config, scratch, where)
    return found


def _reader(tree: Tree, config: DataConfig, where: str) -> Any:
    readers = [import_module(f"experiments.data.{name}") for name in READERS]
    fit = [reader for reader in readers if reader.finds(tree)]
    if len(fit) == 1:
        return fit[0]
    kinds = ", ".join(reader.KIND for reader in fit or readers)
    found = "holds files of several kinds; keep one of" if fit else "holds no data of a known kind; expected one of"
    raise MixlabError(f"{where}: data.source: {config.source!r} {found}: {kinds}")
