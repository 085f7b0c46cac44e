"""The command `mixlab predict`."""

import argparse
import os
from pathlib import Path

from backends.errors import MixlabError
from mixlab.common import COMMAND_LINE, WEIGHTS, add_choice, add_store, read_weights

HELP = "Write the logits and features that weights give of images."
EXAMPLE = "mixlab predict --weights ViT-S_16.npz images.npy --out predictions.npz --backend jax"
IMAGES = (
    "a .npy or .npz file of images (number, height, width, channels), uint8 or floats in [-1, 1]; or the source of a "
    "data set, whose test examples are taken, and fields of it as data.<field>=value"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument(
        "--weights", required=True, metavar="FILE", help=f"{WEIGHTS}; or a done trial, as its folder or trial:ID"
    )
    add_choice(parser)
    parser.add_argument("overrides", nargs="*", default=[], metavar="IMAGES", help=IMAGES)
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="the .npz file to write")
    parser.add_argument("--array", metavar="NAME", help="of several arrays in an .npz, the images (default: images)")
    parser.add_argument("--batch", type=int, default=256, metavar="N", help="images at a time (default: 256)")
    parser.add_argument("--backend", default="torch", help="torch, jax or an installed one (default: torch)")
    parser.add_argument("--precision", choices=("float32", "float64"), default="float32", help="(default: float32)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ..., tpu (default: auto)")


def command(arguments: argparse.Namespace) -> int:
    from analysis.terminal.details import weights_lines
    from backends import devices
    from backends.specs import RunSpec
    from experiments import evaluation, prediction
    from experiments.results.store import Store
    from experiments.spec.expand import expand
    from experiments.weights import image_files, of_trials

    devices.read(arguments.device, f"{COMMAND_LINE}: --device")
    prediction.check_out(arguments.out)
    if arguments.batch < 1:
        raise MixlabError(f"{COMMAND_LINE}: --batch: expected 1 or more, got {arguments.batch}")
    if not arguments.overrides:
        raise MixlabError(f"{COMMAND_LINE}: IMAGES: expected a .npy or .npz file, or a source of data, got none")
    store = Store(arguments.store)
    path = of_trials.find(expand(arguments.weights, f"{COMMAND_LINE}: --weights"), store)
    weights, config = read_weights(path, arguments), None
    if _is_file(arguments.overrides):
        source = Path(expand(arguments.overrides[0], f"{COMMAND_LINE}: IMAGES"))
        images = image_files.read(source, arguments.array)
        weights = evaluation.sized(weights, images.pixels.shape[1])
        image_files.check_fit(source, images, weights)
    else:
        weights, config = evaluation.fitted(weights, arguments.overrides)
        store.check_folder()
        images = prediction.of_source(weights, config, store.data)
    order = prediction.order(weights, of_trials.trial_of(path), config)
    run = RunSpec(arguments.device, arguments.precision, threads=len(os.sched_getaffinity(0)))
    arrays = prediction.predict(weights, images, order, arguments.backend, run, arguments.batch)
    prediction.write(arguments.out, arrays)
    print("\n".join(weights_lines(weights)))
    print(f"wrote       {arguments.out}: {', '.join(f'{name} {x.shape}' for name, x in arrays.items())}")
    return 0


def _is_file(words: list[str]) -> bool:
    """Whether the images are a file of arrays. Raises: MixlabError: further words stand beside it."""
    if not words[0].lower().endswith((".npy", ".npz")) or words[0].startswith("data."):
        return False
    if len(words) > 1:
        raise MixlabError(f"{COMMAND_LINE}: {words[1]!r}: images of a file have no fields; expected the file alone")
    return True
