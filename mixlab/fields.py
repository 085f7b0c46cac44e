"""`mixlab fields`."""

import argparse

HELP = (
    "Print every field that YAML and the command line may set: values, default, meaning, whether an id depends on it."
)
EXAMPLE = "mixlab fields train"
HEADER = ("field", "allowed", "default", "meaning", "in the id")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="such as model or data.augment (default: all)")


def command(arguments: argparse.Namespace) -> int:
    from analysis.table.layout import markdown
    from backends.errors import MixlabError, choices
    from experiments.spec.fields import names
    from experiments.spec.reference import rows

    sections = dict.fromkeys(name.rpartition(".")[0] for name in names() if "." in name)
    for wanted in arguments.sections:
        if not any(_is_in(name, wanted) for name in names()):
            raise MixlabError(
                f"command line: {wanted!r} is no field or section; {choices(wanted, (*sections, *names()))}"
            )
    chosen = [row for row in rows() if not arguments.sections or any(_is_in(row.name, s) for s in arguments.sections)]
    lines = [[row.name, row.allowed, row.default, row.meaning, row.in_id] for row in chosen]
    print("\n".join(markdown([list(HEADER), *lines])))
    return 0


def _is_in(name: str, section: str) -> bool:
    return name == section or name.startswith(f"{section}.")
