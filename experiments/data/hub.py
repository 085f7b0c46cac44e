"""A data set on the Hugging Face hub, through the library `datasets`."""

import logging
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from backends.errors import MixlabError, first_line
from experiments.data import rows
from experiments.data.raw import Found
from experiments.data.table_files import BATCH_ROWS, Table, class_names
from experiments.data.words import canonical
from experiments.files import FULL
from experiments.spec.config import DataConfig

KIND = "a data set of the hub"  # of what was read: its source is a name that the hub knows


def library() -> ModuleType:
    """The library `datasets`, set to print nothing."""
    import datasets

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    module: ModuleType = datasets
    return module


def read(config: DataConfig, scratch: Path, where: str) -> Found:
    """The splits of a data set on the hub. Files of the library go to `scratch`.

    Raises: OSError: `scratch` is full.
    """
    try:
        opened = dict(library().load_dataset(config.source, config.subset, cache_dir=str(scratch)))
    except Exception as error:  # the library documents no common type
        raise_if_full(error)
        raise MixlabError(
            f"{where}: data.source: {config.source!r} cannot be read from the hub: {reason(error)}"
        ) from error
    tables = {canonical(str(name)) or str(name): cache(partial(_table, part)) for name, part in opened.items()}
    return rows.found(KIND, tables, config, where)


def _table(part: Any) -> Table:
    schema = part.features.arrow_schema

    def batches(column: str) -> Iterator[Any]:
        for table in part.select_columns([column]).with_format("arrow").iter(batch_size=BATCH_ROWS):
            yield table[column]

    return Table(Path.cwd(), schema, class_names(schema), batches)


def raise_if_full(error: BaseException | None) -> None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            raise error
        error = error.__cause__ or error.__context__


def reason(error: BaseException) -> str:
    """The first line of the error that began it: the library's own outermost ones say only that something failed."""
    while error.__cause__:
        error = error.__cause__
    return first_line(error)[:200]
