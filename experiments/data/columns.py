"""Columns of a table that hold the images and the classes: the one that is named, or the only candidate.

- Images: a column of encoded images; where there is none, one in which every value is a path with an image's suffix.
- Classes: a column that the file itself notes as classes; else one of whole numbers, also where they are stored as
  fractions or as text, or one of words. A column is no candidate beside a better one where its name says that it counts
  rows (id, index, ...), where its values are true and false, all the same, or nearly all distinct.
- Two candidates are a question.
"""

import re
from collections.abc import Iterable
from typing import Any

from backends.errors import MixlabError, choices
from experiments.data.table_files import Table
from experiments.data.words import is_image, listed
from experiments.spec.config import DataConfig

COUNTING = re.compile(r"(|id|ids|index|idx|row|no|nr|uid|uuid|guid|key|hash|md5|sha\d*|unnamed.*|__index_level_\d+__)")
THING_ID = re.compile(r"(image|img|sample|example|file|photo|picture|row|record|item|user|patient|lesion)s?[ _-]?id")
NEARLY_ALL = 0.9  # distinct values among all: so many are no classes
MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*", b"P5", b"P6", b"\0\0\0\x0cjP")


def image_column(table: Table, config: DataConfig, where: str) -> str:
    """The column of images. Raises: MixlabError: no column holds images, or several do."""
    where = f"{where}: data.image_column: "
    if config.image_column is not None:
        column = _named(config.image_column, table, where)
        if not is_embedded(table, column) and not isinstance(_first(table, column), str | None):
            raise MixlabError(f"{where}expected a column of images or of their paths, got {column!r}")
        return column
    embedded = [field.name for field in table.schema if is_embedded(table, field.name)]
    candidates: list[str] = embedded or [field.name for field in table.schema if is_path(table, field.name)]
    if len(candidates) > 1:
        raise MixlabError(f"{where}several columns hold images: {', '.join(candidates)}; name one of them")
    if not candidates and table.schema.names and not any(len(batch) for batch in table.batches(table.schema.names[0])):
        raise MixlabError(f"{where}the table has the columns {listed(table.schema.names, 10)} and no rows; add rows")
    if not candidates:
        raise MixlabError(
            f"{where}expected a column of images, or of their files' names with suffixes such as .png, among the "
            f"columns {listed(table.schema.names, 10)}; name one of them, or keep image files in one folder for each "
            f"class, of which there must be two"
        )
    return candidates[0]


def label_column(table: Table, config: DataConfig, image: str, where: str) -> tuple[str, list[str]]:
    """The column of classes, and those that could hold some but for their names or values.

    Raises: MixlabError: no column can hold the classes, or several can.
    """
    where = f"{where}: data.label_column: "
    if config.label_column is not None:
        column = _named(config.label_column, table, where)
        if classes(table, column) is None:
            fit = [name for name in table.schema.names if name != image and classes(table, name) is not None]
            raise MixlabError(
                f"{where}expected a column of classes, whole numbers or words, got {column!r}; {choices(column, fit)}"
            )
        return column, []
    noted = [name for name in table.names if name in table.schema.names and name != image]
    if len(noted) == 1:
        return noted[0], []
    others = [name for name in noted or table.schema.names if name != image and not is_path(table, name)]
    usable = {name: values for name in others if (values := classes(table, name)) is not None}
    candidates = [name for name, values in usable.items() if noted or not is_weak(name, values)] or list(usable)
    if len(candidates) == 1:
        return candidates[0], [name for name in usable if name != candidates[0]]
    if candidates:
        shown = [f"{name} ({_examples(usable[name], table.names.get(name))})" for name in candidates]
        raise MixlabError(f"{where}several columns can hold the classes: {listed(shown, 4)}; name one of them")
    raise MixlabError(
        f"{where}expected a column of classes, whole numbers or words, among the columns "
        f"{listed(table.schema.names, 10)}; name one of them"
    )


def classes(table: Table, column: str) -> list[Any] | None:
    """The values of a column with whole numbers as int; None: they can be no classes."""
    import pyarrow as pa

    kind = table.schema.field(column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return table.values(column)
    if pa.types.is_floating(kind):
        values = table.values(column)
        return values if all(value is None or value != value or value.is_integer() for value in values) else None
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _numbers_in(table.values(column))
    return None


def is_embedded(table: Table, column: str) -> bool:
    """Tell whether a column holds encoded images."""
    import pyarrow as pa

    kind = table.schema.field(column).type
    if pa.types.is_struct(kind):
        fields = {kind.field(row).name for row in range(kind.num_fields)}
        return "bytes" in fields and fields <= {"bytes", "path"}
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return bool((_first(table, column) or b"").startswith(MAGIC))
    return False


def holds_text(table: Table, column: str) -> bool:
    return isinstance(_first(table, column), str)


def is_path(table: Table, column: str) -> bool:
    """Tell whether all values of a column end as the names of image files do."""
    import pyarrow as pa

    kind = table.schema.field(column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)) or not is_image(_first(table, column) or ""):
        return False
    return all(is_image(value or "") for value in table.values(column))


def _named(name: str, table: Table, where: str) -> str:
    if name not in table.schema.names:
        raise MixlabError(f"{where}there is no column {name!r}; {choices(name, table.schema.names)}")
    return name


def _first(table: Table, column: str) -> Any:
    """The first value of a column that is not missing."""
    return next((value for batch in table.batches(column) for value in batch.to_pylist() if value), None)


def is_weak(name: str, values: list[Any]) -> bool:
    """Tell whether a column is no candidate beside a better one."""
    word = name.strip().lower()
    if COUNTING.fullmatch(word) or THING_ID.fullmatch(word):
        return True
    seen = {value for value in values if value is not None and value == value}
    return len(seen) < 2 or is_truth(values) or len(seen) > NEARLY_ALL * len(values)


def is_truth(values: list[Any]) -> bool:
    """Tell whether all values that are there are true or false, in CSV as words."""
    seen = {value.lower() if isinstance(value, str) else value for value in values if value is not None}
    return bool(seen) and all(isinstance(value, bool) or value in ("true", "false") for value in seen)


def _numbers_in(texts: list[Any]) -> list[Any]:
    """Texts that are all whole numbers as they print (7 or 7.0; not 007) as int; else the texts."""
    try:
        return [_whole(text) for text in texts]
    except ValueError:
        return texts


def _whole(text: str | None) -> int | None:
    """Read a whole number; None if the text stands for no value. Raises: ValueError: it is another text."""
    if not text or text.lower() == "nan":
        return None
    number = float(text)
    if number.is_integer() and text in (repr(number), str(int(number))):
        return int(number)
    raise ValueError(text)


def _examples(values: Iterable[Any], names: tuple[str, ...] | None) -> str:
    """Three values of a column, as the file calls them."""
    seen = list(dict.fromkeys(value for value in values if value is not None))[:3]
    if names:
        seen = [names[value] if isinstance(value, int) and 0 <= value < len(names) else value for value in seen]
    return ", ".join(str(value)[:20] for value in seen) + (", ..." if len(seen) == 3 else "")
