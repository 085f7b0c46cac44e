"""The command `mixlab compare`."""

import argparse
from typing import TYPE_CHECKING

from backends.errors import MixlabError
from experiments.results.metrics import DEFAULT, full
from mixlab.common import add_store, noting_a_look

if TYPE_CHECKING:  # a table takes half a second to import
    from analysis.run_sets import RunSet

HELP = "Compare the same trials in two stores, or under two commits of the project; or the frameworks within one."
EXAMPLE = "mixlab compare runs /scratch/their/runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    words = "a results directory, a commit of --store, or DIRECTORY@COMMIT"
    parser.add_argument("first", metavar="RUN_SET_A", help=words)
    parser.add_argument("second", metavar="RUN_SET_B", nargs="?", help="likewise; none: the frameworks of the first")
    words = "compare the bits of the same trials' last states; end with 1 where any differ, or there are none"
    parser.add_argument("--bits", action="store_true", help=words)
    parser.add_argument("--metric", type=full, default=DEFAULT, help=f"(default: {DEFAULT})")


def command(arguments: argparse.Namespace) -> int:
    from analysis.run_sets import read_run_set
    from analysis.terminal.compare import compare_lines, set_lines
    from experiments.design import seen
    from experiments.results import metrics
    from experiments.results.store import Store
    from experiments.spec.expand import expand

    named = [text for text in (arguments.first, arguments.second) if text is not None]
    first, *rest = [read_run_set(expand(text, "command line: run set"), arguments.store) for text in named]
    if arguments.bits:
        return _bits(first, rest)
    lines = compare_lines(first, rest[0], arguments.metric) if rest else set_lines(first, arguments.metric)
    print("\n".join(lines))
    if metrics.parse(arguments.metric).split == metrics.TEST:
        for side in (first, *rest):
            with noting_a_look():
                seen.note(Store(side.root), side.records)
    return 0


def _bits(first: "RunSet", rest: "list[RunSet]") -> int:
    """Print what is equal to the bit.  Raises: MixlabError: there is no second set."""
    from analysis.terminal.bits import SAME, bits_lines, verdicts

    if not rest:
        raise MixlabError("command line: --bits: expected two sets of runs, got one; name a second one")
    print("\n".join(bits_lines(first, rest[0])))
    return 0 if set(verdicts(first, rest[0]).values()) == {SAME} else 1
