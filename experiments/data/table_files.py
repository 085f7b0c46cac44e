"""Files of rows as a table: Parquet, Arrow, CSV, JSON. Each file is opened by its own path, never by a pattern."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from backends.errors import MixlabError, first_line

FORMATS = {
    "parquet": "Parquet",
    "arrow": "Arrow",
    "feather": "Arrow",
    "csv": "CSV",
    "tsv": "CSV",
    "jsonl": "JSON",
    "json": "JSON",
}
BATCH_ROWS = 256
HEADER_CHARS = 2**20  # of a CSV file: a file without lines is not read whole to find that out


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of one split. folder: what paths in its columns are relative to.

    names:   the classes of a column, in order, where the file says them.
    batches: the rows of one column, a batch of BATCH_ROWS at a time.
    """

    folder: Path
    schema: Any  # pyarrow.Schema
    names: dict[str, tuple[str, ...]]
    batches: Callable[[str], Iterator[Any]]

    def without(self, column: str) -> "Table":
        return replace(self, schema=self.schema.remove(self.schema.get_field_index(column)))

    def values(self, column: str) -> list[Any]:
        return [value for batch in self.batches(column) for value in batch.to_pylist()]


def format_of(name: str) -> str | None:
    """Parquet, Arrow, CSV or JSON by the suffix of a file's name; None: another."""
    return FORMATS.get(name.rpartition(".")[2].lower())


def open_table(paths: Sequence[Path], where: str) -> Table:
    """The rows of all files, which are of one format.

    Raises: MixlabError: a file cannot be read, or has other columns than the first.
    """
    kind = format_of(paths[0].name) or "Arrow"
    parts = []
    for path in paths:
        parts.append(_guarded(path, kind, where, partial(READERS[kind], path)))
        if parts[-1][0].names != parts[0][0].names:
            raise MixlabError(
                f"{where}: {path} has the columns {', '.join(parts[-1][0].names)[:100]} and {paths[0].name} has "
                f"{', '.join(parts[0][0].names)[:100]}; keep files of the same columns in a split"
            )

    def batches(column: str) -> Iterator[Any]:
        for path, (_, read) in zip(paths, parts, strict=True):
            rows = read(column)
            while (batch := _guarded(path, kind, where, partial(next, rows, None))) is not None:
                yield batch

    schema = parts[0][0]
    return Table(paths[0].parent, schema, class_names(schema), batches)


def class_names(schema: Any) -> dict[str, tuple[str, ...]]:
    """Names of classes by column, as the library `datasets` notes them in a file's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: tuple(one["names"]) for name, one in features.items() if one.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _guarded(path: Path, kind: str, where: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except MixlabError as error:
        raise MixlabError(f"{where}: {path} {error}") from error
    except Exception as error:  # pyarrow raises many types
        reason = first_line(error)[:150]
        if "invalid UTF8" in reason:
            reason += "; save it as UTF-8"
        raise MixlabError(f"{where}: {path} cannot be read as {kind}: {reason}") from error


Part = tuple[Any, Callable[[str], Iterator[Any]]]  # the schema, and the batches of a column


def _parquet(path: Path) -> Part:
    import pyarrow.parquet as pq

    def batches(column: str) -> Iterator[Any]:
        for batch in pq.ParquetFile(path).iter_batches(BATCH_ROWS, columns=[column]):
            yield batch.column(column)

    return pq.ParquetFile(path).schema_arrow, batches


def _arrow(path: Path) -> Part:
    import pyarrow as pa

    source = pa.memory_map(str(path))
    try:
        table = pa.ipc.open_file(source).read_all()
    except pa.ArrowInvalid:
        table = pa.ipc.open_stream(source).read_all()
    return _whole(table)


def _csv(path: Path) -> Part:
    """Read a CSV file, every column as text, so that no value changes; columns.py decides which texts are numbers."""
    from pyarrow import csv, string

    with path.open(encoding="utf-8-sig", errors="replace") as file:
        header = file.readline(HEADER_CHARS).rstrip("\r\n")
    if "\0" in header:
        raise MixlabError("begins with zeros, as a download that broke off; fetch it again")
    marks = [mark for mark in "\t;," if mark in header]
    parse = csv.ParseOptions(delimiter=marks[0] if len(marks) == 1 else ",", newlines_in_values=True)
    with csv.open_csv(str(path), parse_options=parse) as reader:
        names = reader.schema.names
    if len(set(names)) < len(names):
        raise MixlabError(f"has two columns of one name: {', '.join(names)[:100]}; rename one")
    convert = csv.ConvertOptions(column_types=dict.fromkeys(names, string()), strings_can_be_null=False)
    return _whole(csv.read_csv(str(path), parse_options=parse, convert_options=convert))


def _json(path: Path) -> Part:
    import pyarrow as pa

    text = path.read_text("utf-8")
    if path.suffix.lower() == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    else:
        rows = json.loads(text)
    if isinstance(rows, dict) and all(isinstance(values, list) for values in rows.values()):
        return _whole(pa.table(rows))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise MixlabError("holds no list of rows, each an object of columns; write one")
    names = dict.fromkeys(name for row in rows for name in row)
    return _whole(pa.table({name: [row.get(name) for row in rows] for name in names}))


def _whole(table: Any) -> Part:
    def batches(column: str) -> Iterator[Any]:
        for batch in table.select([column]).to_batches(BATCH_ROWS):
            yield batch.column(0)

    return table.schema, batches


READERS: dict[str, Callable[[Path], Part]] = {"Parquet": _parquet, "Arrow": _arrow, "CSV": _csv, "JSON": _json}
