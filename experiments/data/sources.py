"""From the source of a trial to its labels and raw images. Nothing heavy is imported before a source has to be read."""

from pathlib import Path

import numpy as np

from backends.errors import MixlabError
from experiments.data import builtin
from experiments.data.raw import RawSource
from experiments.spec import DataConfig

HUB_FOLDER = "hub"  # in the data cache: what came over the network is kept


def read_source(config: DataConfig, scratch: Path, where: str) -> RawSource:
    """Labels and raw images of both splits.

    Args:   scratch: folder for working files, which must outlive the result.
    Raises: MixlabError: the source, a split or a column is missing or of no use.  OSError: `scratch` is full.
    """
    if config.source == "digits":
        source = builtin.digits(config, where)
    elif config.source == "synthetic":
        source = builtin.synthetic(config, where)
    else:
        from experiments.data import folders

        source = folders.read(config, scratch, where)
    for split in source.splits:
        if not len(split.labels):
            raise MixlabError(f"{where}: data.source: split {split.name!r} of {config.source!r} has no examples")
    if len(np.unique(source.train.labels)) < 2:
        raise MixlabError(
            f"{where}: data.source: all examples of split {source.train.name!r} of {config.source!r} are of one "
            f"class; at least 2 classes are needed"
        )
    return source
