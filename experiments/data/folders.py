"""A folder, or a data set on the Hugging Face hub, as a raw source.

A folder holds Parquet or Arrow files, what `Dataset.save_to_disk` wrote, or image files in one folder a class.
"""

import errno
import logging
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from backends.errors import MixlabError, choices
from experiments.data.raw import Found, Raw, RawSplit
from experiments.data.tree import Tree
from experiments.spec import DataConfig

BATCH_ROWS = 256
FULL = (errno.ENOSPC, errno.EDQUOT)


KIND = "Parquet or Arrow files, a saved data set, or image files in one folder for each class"


def finds(tree: Tree) -> bool:
    return any(True for _ in tree.all_files())


def read(tree: Tree, config: DataConfig, scratch: Path, where: str) -> Found:
    return read_hub(config, scratch, where)


def read_hub(config: DataConfig, scratch: Path, where: str) -> Found:
    """See sources.read_source."""
    opened = _open(config.source, config.subset, scratch, where)
    first = opened.get(config.train_split) or next(iter(opened.values()))
    image_column = _image_column(config, first.features, where)
    label_column = _label_column(config, first.features, where)

    def read_split(name: str) -> RawSplit:
        part = opened[name]
        if any(part.features.get(column) != first.features[column] for column in (image_column, label_column)):
            raise MixlabError(
                f"{where}: data.test_split: columns {image_column!r} and {label_column!r} of split {name!r} are not as "
                f"in the training split; its columns: {', '.join(part.column_names)}"
            )
        images = _Images(part, image_column, f"{where}: data.image_column")
        return RawSplit(name, _values(part, label_column), images, label_column)

    feature = first.features[label_column]
    classes = tuple(feature.names) if _label_kind(feature) == "class" else None
    return Found("data set", {name: partial(read_split, name) for name in opened}, classes)


def _values(part: Any, column: str) -> list[Any]:
    values: list[Any] = part.select_columns([column]).with_format("arrow")[:][column].to_pylist()
    return values


class _Images:
    """The raw images of a split, at each call anew."""

    def __init__(self, part: Any, column: str, where: str):
        import datasets

        try:
            self.part = part.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        except Exception as error:  # pyarrow raises many types
            raise MixlabError(f"{where}: {column!r} does not hold images: {reason(error)}") from None
        self.column = column

    def __call__(self) -> Iterator[Raw]:
        for table in self.part.with_format("arrow").iter(batch_size=BATCH_ROWS):
            for value in table[self.column].to_pylist():
                yield None if value is None else value["bytes"] or value["path"]


def library() -> ModuleType:
    """The library, told to print nothing."""
    import datasets

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    module: ModuleType = datasets
    return module


def _open(source: str, subset: str | None, scratch: Path, where: str) -> Mapping[str, Any]:
    """The splits by name. Working files go to `scratch`.

    Raises: OSError: `scratch` is full.
    """
    datasets, folder = library(), Path(source).expanduser().resolve()
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            saved = datasets.load_from_disk(str(folder))
            return saved if isinstance(saved, datasets.DatasetDict) else {"train": saved}
        path = str(folder) if folder.is_dir() else source
        return dict(datasets.load_dataset(path, subset, cache_dir=str(scratch)))
    except Exception as error:  # the library documents no common type
        raise_if_full(error)
        raise MixlabError(
            f"{where}: data.source: {source!r} cannot be read as Parquet, Arrow, saved data set or image folder: "
            f"{reason(error)}"
        ) from None


def raise_if_full(error: BaseException | None) -> None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            raise error
        error = error.__cause__ or error.__context__


def reason(error: BaseException) -> str:
    """The first line of the error that began it: the library's own outermost ones say only that something failed."""
    while error.__cause__:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _image_column(config: DataConfig, features: Mapping[str, Any], where: str) -> str:
    import datasets

    def is_image(feature: Any) -> bool:
        # Parquet that other tools wrote has the struct of an image without the note that it is one.
        return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})

    found = [name for name, feature in features.items() if is_image(feature)]
    return _one_column(config.image_column, found, features, f"{where}: data.image_column: ", "of images")


def _label_column(config: DataConfig, features: Mapping[str, Any], where: str) -> str:
    kinds = {name: _label_kind(feature) for name, feature in features.items()}
    found: list[str] = []
    for kind in ("class", "integer", "string"):
        found = found or [name for name in features if kinds[name] == kind]
    where = f"{where}: data.label_column: "
    column = _one_column(config.label_column, found, features, where, "of classes, whole numbers or words")
    if kinds[column] is None:
        usable = [name for name in features if kinds[name]]
        raise MixlabError(f"{where}{column!r} holds no classes, whole numbers or words; {choices(column, usable)}")
    return column


def _label_kind(feature: Any) -> str | None:
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return "class"
    dtype = feature.dtype if isinstance(feature, datasets.Value) else ""
    if dtype.startswith(("int", "uint", "bool")):
        return "integer"
    return "string" if dtype in ("string", "large_string") else None


def _one_column(given: str | None, found: list[str], features: Mapping[str, Any], where: str, what: str) -> str:
    if given is not None:
        if given not in features:
            raise MixlabError(f"{where}there is no column {given!r}; {choices(given, features)}")
        return given
    if len(found) == 1:
        return found[0]
    if found:
        raise MixlabError(f"{where}several columns {what}: {', '.join(found)}; name one of them")
    raise MixlabError(
        f"{where}no column {what} among the columns: {', '.join(features) or 'none'}; name one of them, or keep "
        f"image files in one folder for each class, of which there must be two"
    )
