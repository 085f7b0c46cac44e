"""The command `mixlab init`."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.errors import MixlabError, choices
from mixlab.common import COMMAND_LINE

if TYPE_CHECKING:
    from experiments.design.first import Answers

HELP = "Write a first ablation: from a few questions, or --like one that Mixlab ships."
EXAMPLE = "mixlab init my_question.yaml --like tying"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="FILE", help="the file to write, which must not be there yet")
    parser.add_argument("--like", metavar="NAME", help="begin with a copy of this one, and ask nothing")


def command(arguments: argparse.Namespace) -> int:
    from experiments.design import first

    path: Path = arguments.path
    if path.suffix not in (".yaml", ".yml"):
        raise MixlabError(f"{COMMAND_LINE}: expected a file that ends in .yaml, got {str(path)!r}")
    if path.exists() or path.is_symlink():  # which first.write looks at too: here it is before the questions
        raise MixlabError(f"{path}: it is there already, and is left as it is; give another name")
    if arguments.like is not None:
        text = first.like(arguments.like, path)
    elif sys.stdin.isatty():
        try:
            text = first.text(_ask(path), path)
        except EOFError as error:
            raise MixlabError(f"{COMMAND_LINE}: the questions ended without an answer; nothing was written") from error
    else:
        raise MixlabError(
            f"{COMMAND_LINE}: there is no terminal to ask on; give --like NAME; {choices('', first.shipped())}"
        )
    first.write(path, text)
    print(f"wrote {path}; next: mixlab plan {path}")
    return 0


def _ask(path: Path) -> "Answers":
    """Put the questions, each with a default, until the answer can be used."""
    from rich.console import Console
    from rich.prompt import Prompt

    from experiments.design.first import QUESTIONS, Answers

    console = Console(stderr=True)
    given: dict[str, Any] = {}
    console.print(f"A first ablation, {path}. Enter takes what stands in brackets.", markup=False)
    for question in QUESTIONS:
        while True:
            default = question.default_after(given)
            answer = Prompt.ask(question.text, console=console, default=default, show_default=bool(default))
            try:
                given[question.name] = question.read(answer, given)
                break
            except MixlabError as error:
                console.print(str(error), markup=False)
    return Answers(**given)
