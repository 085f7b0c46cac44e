"""A report's files: the page, also as Markdown, the table in every format, the tidy frame, the figures."""

import contextlib
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.figures import draw_all
from analysis.figures.style import Drawn
from analysis.page.markdown import markdown_page
from analysis.page.page import page, section
from analysis.report import Report
from analysis.table.render import FORMATS as TABLE_FORMATS
from analysis.table.render import rendered_of
from experiments.files import store_errors, write_json, write_whole
from experiments.spec.fields import text

PAGE, MARKDOWN = "report.html", "report.md"
DRAWN = ".drawn.json"  # in the folder of figures: the files that reports wrote there


def write_reports(reports: Sequence[Report], folders: Sequence[Path], common: Path, command: str) -> Path:
    """Write each report into its folder, and the page of all of them; returns the page.

    Args:   common: folder of the page of several.    command: the one that makes them again.
    Raises: StoreError: a file cannot be written; those that could are whole.
    """
    drawn = [list(draw_all(report)) for report in reports]
    parts = []
    for report, figures, folder in zip(reports, drawn, folders, strict=True):
        rendered = rendered_of(report)
        for style, ending in TABLE_FORMATS.items():
            write_whole(folder / f"table.{ending}", rendered.text(style).encode())
        told = _told(report.frame)
        write_whole(folder / "tidy.csv", told.to_csv(index=False).encode())
        write_whole(folder / "tidy.parquet", _parquet(told))
        _write_figures(figures, folder / "figures")
        parts.append(section(report, rendered))
        write_whole(folder / PAGE, page(parts[-1:], [figures], command).encode())
        write_whole(folder / MARKDOWN, markdown_page(parts[-1], rendered, figures, command).encode())
    if len(reports) > 1:
        write_whole(common / PAGE, page(parts, drawn, command).encode())
    return (common if len(reports) > 1 else folders[0]) / PAGE


def _write_figures(figures: Sequence[Drawn], folder: Path) -> None:
    """Write the files of figures, and remove those that an earlier report wrote and this one no longer draws.

    DRAWN lists what reports wrote here, so that no other file is removed, nor one that somebody has changed since.
    """
    files = {f"{figure.name}.{kind}": content for figure in figures for kind, content in figure.files.items()}
    before = {name: key for name, key in _drawn(folder).items() if name not in files and (folder / name).is_file()}
    # First, so that what is killed meanwhile leaves no file that nobody remembers.
    write_json(folder / DRAWN, before | {name: _key(content) for name, content in files.items()})
    for name, content in files.items():
        write_whole(folder / name, content)
    with store_errors(folder):
        for name, key in before.items():
            if _key((folder / name).read_bytes()) == key:
                (folder / name).unlink()


def _drawn(folder: Path) -> dict[str, str]:
    """The files that reports wrote into a folder, and keys of their contents; none where the list is damaged."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found = json.loads((folder / DRAWN).read_bytes())
        return {name: str(key) for name, key in found.items() if name == Path(name).name}
    return {}


def _key(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _told(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its lists as tables show them."""
    told = frame.copy()
    for name in told:
        if pd.api.types.is_object_dtype(told[name]):
            told[name] = told[name].map(lambda value: text(value) if isinstance(value, tuple) else value)
    return told


def _parquet(frame: pd.DataFrame) -> bytes:
    """The frame as Parquet; columns of several types, such as an axis of words and numbers, become text."""
    buffer, made = io.BytesIO(), frame.copy()
    for name in made:
        if pd.api.types.is_object_dtype(made[name]) and made[name].dropna().map(type).nunique() > 1:
            made[name] = made[name].map(lambda value: None if value is None else str(value))
    made.to_parquet(buffer, index=False)
    return buffer.getvalue()
