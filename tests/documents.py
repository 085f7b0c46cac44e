"""The READMEs as the tests read them: their fenced blocks, their commands, their links."""

import re
import shlex
from pathlib import Path

from tests.conftest import ROOT

ROOMS = ("", ".github", "analysis", "backends", "experiments", "slurm", "tests")
DOCUMENTS = sorted(
    {
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in (ROOT / room).glob("*.md" if not room else "**/*.md")
        if "results" not in path.parts
    }
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def text_of(document: str) -> str:
    return (ROOT / document).read_text()


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [block for name, block in FENCE.findall(text_of(document)) if name == language]


def commands(document: str) -> list[list[str]]:
    """Every command of the shell blocks as its words, in order; `a && b` are two."""
    lines = [line for block in blocks(document, "bash") for line in block.splitlines()]
    joined = [part for line in lines for part in _without_comment(line).split("&&")]
    return [words for part in joined if (words := shlex.split(part))]


def _without_comment(line: str) -> str:
    return re.sub(r"(^|\s)#.*", "", line)


def spans(document: str) -> list[str]:
    """What stands in `code` within the text."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", text_of(document)))


def links(document: str) -> list[str]:
    """Targets inside the repository, relative to its root, without what follows `#`."""
    found = re.findall(r"\]\((?!http)([^)#]*)(?:#[^)]*)?\)", FENCE.sub("", text_of(document)))
    folder = (ROOT / document).parent
    return [Path(folder / link).resolve().relative_to(ROOT.resolve()).as_posix() for link in found if link]
