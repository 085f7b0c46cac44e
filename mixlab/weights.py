"""The commands `mixlab weights inspect` and `mixlab weights convert`."""

import argparse
from pathlib import Path

from backends.errors import MixlabError
from mixlab.common import WEIGHTS, add_choice, read_weights

HELP = "Print what a file of weights holds, or convert it to another format."
EXAMPLE = "mixlab weights convert Mixer-B_16.npz mixer_b16.safetensors --to timm"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    inspect = actions.add_parser("inspect", help="print the format, the model and how many parameters it has")
    convert = actions.add_parser("convert", help="write the same numbers in another format")
    for action in (inspect, convert):
        action.add_argument("file", type=Path, metavar="FILE", help=WEIGHTS)
        add_choice(action)
    convert.add_argument("out", type=Path, metavar="OUT", help="the .npz or .safetensors file to write")
    convert.add_argument(
        "--to",
        choices=("official", "timm", "mixlab"),
        help="(default: official in .npz, mixlab in .safetensors)",
    )


def command(arguments: argparse.Namespace) -> int:
    from analysis.terminal.details import origin_lines, weights_lines
    from experiments.weights import weight_files

    weights = read_weights(arguments.file, arguments)
    if arguments.action == "inspect":
        print("\n".join(weights_lines(weights)))
        return 0
    if arguments.out.resolve() == arguments.file.resolve():
        raise MixlabError(f"command line: OUT: expected another file than FILE, got {arguments.out} for both")
    target, differences = weight_files.write(arguments.out, weights, arguments.to)
    print("\n".join([f"wrote {arguments.out} in the format {target}", *origin_lines(weights)]))
    if differences:
        print(f"note: the code of {target} computes differently: {'; '.join(differences)}")
    return 0
