"""Variables of the environment and home folders in paths and commands, by the shell's rules where it has one reading.

    $NAME, ${NAME}   the variable; one that is not set, or empty, is an error: a path would silently be another
    ~, ~/x, ~user/x  a home folder, at the beginning only
    $$               a dollar sign; one that no name follows stays as it is

Other forms of the shell, such as ${NAME:-x} and $(command), are refused. In YAML, `${...}` with a name in capitals is a
variable; every other `${...}` belongs to OmegaConf, and is a key of the file (see yaml_files.py).
"""

import os
import re
import shlex
from pathlib import Path

from backends.errors import MixlabError

VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<braced>[A-Za-z_]\w*)\}|(?P<bare>[A-Za-z_]\w*)|(?P<other>[{(]))", re.A)


def expand(text: str, where: str) -> str:
    """The text with its variables and its home folder in their place.

    Args:   where: what the error sentence begins with: file and key.
    Raises: MixlabError: a variable is not set, a user has no home, or the text holds another form of the shell.
    """
    if text[:1] != "~" and "$" not in text:
        return text
    expanded = VARIABLE.sub(lambda match: _variable(match, text, where), text)
    if not expanded.startswith("~"):
        return expanded
    try:
        return str(Path(expanded).expanduser())
    except RuntimeError as error:
        user = expanded[1:].partition("/")[0]
        who = f"there is no user {user!r} with a home folder" if user else "the home folder is not known"
        raise MixlabError(f"{where}: {text!r}: {who}; write the whole path, from '/' on") from error


def _variable(match: re.Match[str], text: str, where: str) -> str:
    """What stands in place of one match of VARIABLE.  Raises: MixlabError: see expand."""
    if match["dollar"]:
        return "$"
    if match["other"]:
        raise MixlabError(
            f"{where}: {text!r}: of the shell's forms only $NAME, ${{NAME}} and ~ are read here; "
            f"a dollar sign itself is written '$$'"
        )
    name = match["braced"] or match["bare"]
    if not (value := os.environ.get(name)):
        state = "is not set" if value is None else "is empty"
        raise MixlabError(f"{where}: {text!r}: the variable {name} {state}; a dollar sign itself is written '$$'")
    return value


def as_typed(path: Path | str) -> str:
    """A path as it is typed in a shell, so that `expand` makes this path of it."""
    return shlex.quote(str(path).replace("$", "$$"))
