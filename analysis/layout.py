"""Rows of strings as lines."""

import re


def aligned(layout: list[list[str]]) -> list[str]:
    """Lines of a table for a terminal; the first row is the header."""
    widths = [max(map(len, column)) for column in zip(*layout, strict=True)]
    rule = ["-" * width for width in widths]
    rows = [layout[0], rule, *layout[1:]]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def paragraph(line: str) -> str:
    """A line as a paragraph of Markdown."""
    return f"{_plain(line)}\n"


def markdown(layout: list[list[str]]) -> list[str]:
    """Lines of a Markdown table; the first row is the header."""
    escaped = [[_plain(cell).replace("|", "\\|") for cell in row] for row in layout]
    lines = ["| " + " | ".join(row) + " |" for row in escaped]
    return [lines[0], "|" + "---|" * len(layout[0]), *lines[1:]]


def _plain(text: str) -> str:
    """Without what Markdown would take for a tag of HTML."""
    return re.sub("<(?=[A-Za-z/!?])", "&lt;", text)
