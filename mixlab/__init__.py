"""The command line of Mixlab. A command is a module of this package, named in COMMANDS."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from backends.errors import DEBUG, MixlabError, show_chain
from mixlab import (
    bench,
    cancel,
    clean,
    cluster,
    compare,
    data,
    diff,
    doctor,
    evaluate,
    export,
    fields,
    init,
    logs,
    parity,
    plan,
    predict,
    report,
    retry,
    run,
    show,
    status,
    submit,
    weights,
)
from mixlab.common import STOPPED, USER_ERROR, expand_paths


class Command(Protocol):
    """The module of a command. It imports what is heavy inside `command`, since the help must not wait for it."""

    HELP: str  # one sentence
    EXAMPLE: str  # a whole command, as a user would type it

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's options; those that several commands share are in mixlab/common.py."""

    def command(self, arguments: argparse.Namespace) -> int:
        """Run the command, and return its exit code; a mistake of the user's is raised as MixlabError."""


# In the order of the help.
COMMANDS: Mapping[str, Command] = {
    "init": init,
    "plan": plan,
    "run": run,
    "submit": submit,
    "status": status,
    "logs": logs,
    "cancel": cancel,
    "retry": retry,
    "cluster": cluster,
    "report": report,
    "export": export,
    "compare": compare,
    "show": show,
    "diff": diff,
    "fields": fields,
    "data": data,
    "clean": clean,
    "weights": weights,
    "evaluate": evaluate,
    "predict": predict,
    "parity": parity,
    "bench": bench,
    "doctor": doctor,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    try:
        arguments = _parse(argv)
        expand_paths(arguments)
        return int(arguments.command(arguments))
    except MixlabError as error:
        show_chain(error)
        print(f"mixlab: {error}", file=sys.stderr)
        return USER_ERROR
    except ModuleNotFoundError as error:
        show_chain(error)
        lacks = f"{sys.executable} lacks the package {error.name}, which mixlab needs"
        print(f"mixlab: {lacks}; in its folder: pip install -c constraints.txt -e .", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
        return 0
    except KeyboardInterrupt:
        print("mixlab: stopped", file=sys.stderr)
        return STOPPED
    except MemoryError as error:
        show_chain(error)
        print(
            f"mixlab: the machine ran out of memory ({error}); choose smaller sizes, or a machine with more",
            file=sys.stderr,
        )
        return USER_ERROR
    except OSError as error:
        show_chain(error)
        print(f"mixlab: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return USER_ERROR


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; overrides may stand among the options, where argparse alone does not look for them."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    words = getattr(arguments, "overrides", getattr(arguments, "ablations", None))
    if unknown := [word for word in rest if word.startswith("-") or words is None]:
        hint = "" if words is None else "; a field is set as key=value, several values as 'key=[a, b]'"
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    if words is not None:
        words += rest
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mixlab",
        description="The ablation bench for MLP-Mixer.",
        epilog=f"With {DEBUG}=1 in its environment, a command prints the causes of an error before its sentence.",
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        sub = subparsers.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=f"Example: {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=module.command)
        module.add_arguments(sub)
    return parser
