"""Layout of rows of strings as lines of text or of Markdown."""

import re


def aligned(layout: list[list[str]]) -> list[str]:
    """Lines of a table for a terminal; the first row is the header."""
    widths = [max(map(len, column)) for column in zip(*layout, strict=True)]
    rule = ["-" * width for width in widths]
    rows = [layout[0], rule, *layout[1:]]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def paragraph(line: str) -> str:
    """A line as a paragraph of Markdown."""
    shown = plain(line)
    return re.sub(r"^(?=[-+=>#])|^(\d+)(?=[.)](\s|$))", r"\1\\", shown) + "\n"


def markdown(layout: list[list[str]]) -> list[str]:
    """Lines of a Markdown table; the first row is the header."""
    lines = [f"| {' | '.join(map(plain, row))} |" for row in layout]
    return [lines[0], "|" + "---|" * len(layout[0]), *lines[1:]]


def plain(text: str) -> str:
    """Text on one line that Markdown prints as it is; an underscore within a word needs no care, nor does a bracket."""
    line = re.sub(r"[\\`*|~$]|(?<!\w)_|_(?!\w)|(?<=\])\(", r"\\\g<0>", " ".join(text.split()))
    return re.sub("<(?=[A-Za-z/!?])", "&lt;", re.sub(r"&(?=#?\w+;)", "&amp;", line))
