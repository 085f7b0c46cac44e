"""A report's files: the page, also as Markdown, the table in every format, the tidy frame, the figures."""

import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.figures import NAMES, draw_all
from analysis.figures.style import FORMATS as FIGURE_FORMATS
from analysis.figures.style import Drawn
from analysis.page.markdown import markdown_page
from analysis.page.page import page, section
from analysis.report import Report
from analysis.table.render import FORMATS as TABLE_FORMATS
from analysis.table.render import rendered_of
from experiments.files import store_errors, write_whole

PAGE, MARKDOWN = "report.html", "report.md"


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
        write_whole(folder / "tidy.csv", report.frame.to_csv(index=False).encode())
        write_whole(folder / "tidy.parquet", _parquet(report.frame))
        _write_figures(figures, folder / "figures")
        parts.append(section(report, rendered))
        write_whole(folder / PAGE, page(parts[-1:], [figures], command).encode())
        write_whole(folder / MARKDOWN, markdown_page(parts[-1], rendered, figures, command).encode())
    if len(reports) > 1:
        write_whole(common / PAGE, page(parts, drawn, command).encode())
    return (common if len(reports) > 1 else folders[0]) / PAGE


def _write_figures(figures: Sequence[Drawn], folder: Path) -> None:
    """Write the files of figures, and remove those of an earlier report that are no longer drawn, and no other file."""
    files = {f"{figure.name}.{kind}": content for figure in figures for kind, content in figure.files.items()}
    for name, content in files.items():
        write_whole(folder / name, content)
    with store_errors(folder):
        for name in {f"{name}.{kind}" for name in NAMES for kind in FIGURE_FORMATS} - files.keys():
            (folder / name).unlink(missing_ok=True)


def _parquet(frame: pd.DataFrame) -> bytes:
    """The frame as Parquet; columns of several types, such as an axis of words and numbers, become text."""
    buffer, made = io.BytesIO(), frame.copy()
    for name in made:
        if pd.api.types.is_object_dtype(made[name]) and made[name].dropna().map(type).nunique() > 1:
            made[name] = made[name].map(lambda value: None if value is None else str(value))
    made.to_parquet(buffer, index=False)
    return buffer.getvalue()
