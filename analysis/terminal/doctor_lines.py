"""What the doctor found, for the terminal and as a page in Markdown."""

import time
from collections.abc import Sequence
from pathlib import Path

from experiments.doctor.results import Found, Line
from experiments.files import write_whole

PAGE = "doctor.md"


def line(one: Line) -> str:
    """A line of the terminal."""
    return f"  {one.name}: {one.verdict}"


def summary(parts: Sequence[Found]) -> str:
    """How many checks have which verdict, in one sentence."""
    words = [one.verdict.word for found in parts for one in found.lines]
    faults = sum(found.num_faults for found in parts)
    counts = ", ".join(f"{words.count(word)} {word}" for word in ("ok", "differs", "not run") if word in words)
    return f"{len(words)} checks: {counts}; {faults or 'no'} fault{'' if faults == 1 else 's'}"


def write_page(folder: Path, parts: Sequence[Found]) -> None:
    """Write the page of all parts that a folder holds.  Raises: StoreError."""
    write_whole(folder / PAGE, page(parts).encode())


def page(parts: Sequence[Found]) -> str:
    """The page: a heading a part, under it a row for each check."""
    return "\n".join(
        ["# What mixlab doctor found", "", f"{summary(parts)}.", *(row for f in parts for row in _part(f))]
    )


def _part(found: Found) -> list[str]:
    about = found.about
    begun = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.started))
    machine = f"{about['device']}, {about['processor']}, {about['cores']} cores, {about['host']}"
    code = f"commit {str(about['commit'])[:12]}{' and changes' if about['dirty'] else ''}, Python {about['python']}"
    rows = [
        f"| {one.name} | {one.verdict.word} | {_escaped(one.verdict.text)} | {one.seconds:.0f} |" for one in found.lines
    ]
    title = [f"## {found.part.capitalize()}", "", f"{machine}; {code}; {begun}{'; short form' * about['short']}.", ""]
    return ["", *title, "| check | verdict | | s |", "|---|---|---|---|", *rows]


def _escaped(text: str) -> str:
    """The text of a cell: in one line, its bars escaped."""
    return " ".join(text.split()).replace("|", "\\|")
