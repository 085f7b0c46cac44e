"""The command `mixlab data prepare`."""

import argparse
import os
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from backends.errors import MixlabError
from mixlab.common import COMMAND_LINE, data_cache

if TYPE_CHECKING:
    from experiments.data.description import Description
    from experiments.data.known import About
    from experiments.results.store import Store
    from experiments.spec.config import DataConfig

MOST_JOBS = 4  # processes for each core
NEEDS_OUT = ("resize", "keep", "encode", "jobs", "cluster")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="ABLATION|SOURCE", help="an ablation's YAML file, or a source of data")
    parser.add_argument("--resize", type=int, metavar="N", help="to N x N pixels, as data.image_size=N frames images")
    parser.add_argument("--keep", action="store_true", help="keep the files as they are, of any sizes")
    parser.add_argument("--encode", choices=("png", "jpeg"), help="as files of this kind, not as pixels")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes that decode (default: one a core)")
    parser.add_argument("--cluster", type=Path, metavar="FILE", help="as a job of this Slurm cluster")
    words = "the folder to prepare it in, and fields to set, as key=value"
    parser.add_argument("overrides", nargs="*", default=[], metavar="OUT, key=value", help=words)
    parser.usage = "%(prog)s [options] ABLATION|SOURCE [OUT] [key=value ...]"


def command(arguments: argparse.Namespace) -> int:
    from experiments.results.store import Store

    folders = [word for word in arguments.overrides if not re.match(r"[\w.]+=", word)]
    arguments.overrides = [word for word in arguments.overrides if word not in folders]
    if len(folders) > 1:
        raise MixlabError(f"{COMMAND_LINE}: expected one folder to prepare data in, got {' and '.join(folders)}")
    store = Store(arguments.store)
    store.check_folder()
    cache, where, configs = _asked(arguments, store)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):  # Slurm warns with one of the last two
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # so that what is half-made is put away
    if folders:
        return _into(folders[0], arguments, cache, where, configs)
    if option := next((name for name in NEEDS_OUT if getattr(arguments, name) not in (None, False)), None):
        raise MixlabError(f"{COMMAND_LINE}: --{option} needs a folder, as in: mixlab data prepare SOURCE OUT")
    from experiments import data
    from experiments.data import prepared

    for config in configs:
        if held := prepared.find(config.source, where):
            print(f"{config.source}: {_held(held.description)}, prepared already", flush=True)
            continue
        print(_prepared(config.source, data.prepare(config, cache, where), cache), flush=True)
    return 0


def _into(folder: str, arguments: argparse.Namespace, cache: Path, where: str, configs: "list[DataConfig]") -> int:
    """Prepare one source in a folder."""
    from experiments.data.builtin import BUILT_IN
    from experiments.data.fingerprints import source_tree
    from experiments.data.preparing import prepare
    from experiments.data.room import Request
    from experiments.spec.expand import expand

    if len(configs) != 1:
        raise MixlabError(f"{where}: its trials have {len(configs)} data sets; name one source and its fields")
    if folder in BUILT_IN:
        raise MixlabError(
            f"{COMMAND_LINE}: OUT: {folder} is the name of data that is built in, which data.source={folder} would "
            f"read; name another folder"
        )
    config, form = _form(arguments, configs[0])
    out = Path(expand(folder, f"{COMMAND_LINE}: OUT")).absolute()
    out = out.resolve() if out.is_symlink() else out  # the folder is made beside what a link leads to, and renamed
    if arguments.cluster:
        return _send(out, arguments, config.source)
    jobs = len(os.sched_getaffinity(0)) if arguments.jobs is None else arguments.jobs
    if jobs < 1:
        raise MixlabError(f"{COMMAND_LINE}: --jobs: expected 1 or more, got {jobs}")
    if jobs > (most := MOST_JOBS * len(os.sched_getaffinity(0))):  # more would only start processes for minutes
        raise MixlabError(f"{COMMAND_LINE}: --jobs: expected at most {most}, {MOST_JOBS} a core, got {jobs}")
    held = prepare(Request(config, out, form, jobs, cache, where), source_tree(config.source, where))
    print(f"{config.source}: {_held(held.description)} in {out}", flush=True)
    return 0


def _send(out: Path, arguments: argparse.Namespace, source: str) -> int:
    """Have a job of a cluster do it, and say how to follow it."""
    from experiments.data.tree import place
    from experiments.results.store import Store
    from slurm import preparation
    from slurm.client import SlurmError
    from slurm.cluster_file import read_cluster

    if arguments.jobs is not None:
        raise MixlabError(f"{COMMAND_LINE}: --jobs: a job has the cores that the cluster file gives; leave it out")
    words = ["data", "prepare", arguments.source, str(out), *arguments.overrides]
    words += [f"--resize={arguments.resize}"] * bool(arguments.resize) + ["--keep"] * arguments.keep
    words += [f"--encode={arguments.encode}"] * bool(arguments.encode) + [f"--store={arguments.store.absolute()}"]
    folders = [out.parent, *([place(source)] if place(source).exists() else [])]
    try:
        job, log = preparation.send(read_cluster(arguments.cluster), Store(arguments.store), words, folders)
    except SlurmError as error:
        raise MixlabError(f"{arguments.cluster}: {error}; mixlab cluster check says what the cluster has") from error
    print(f"job {job} prepares {source} in {out}; it has ended well when {out / 'about.json'} is there")
    print(f"next: squeue -j {job}; tail -F {log}/{job}_0_log.err; scancel {job}, after which the same command goes on")
    return 0


def _form(arguments: argparse.Namespace, config: "DataConfig") -> "tuple[DataConfig, str]":
    """The data as --resize has it, and in what form it is to be stored.  Raises: MixlabError: options contradict."""
    size = arguments.resize
    if size is not None and size < 1:
        raise MixlabError(f"{COMMAND_LINE}: --resize: expected 1 or more pixels, got {size}")
    if size is not None and config.image_size not in (None, size):
        raise MixlabError(f"{COMMAND_LINE}: --resize {size} and data.image_size={config.image_size}: leave one out")
    config = replace(config, image_size=size or config.image_size)
    if not arguments.keep:
        return config, arguments.encode or "array"
    if arguments.encode or config.image_size:
        other = f"--encode {arguments.encode}" if arguments.encode else f"a size ({config.image_size})"
        raise MixlabError(f"{COMMAND_LINE}: --keep keeps the files as they are, so {other} cannot be; leave one out")
    return config, "keep"


def _held(held: "Description") -> str:
    from experiments.data.prepared import NOTES_OF_FORM

    channels = held.image_channels
    size = f"{held.image_size} x {held.image_size} x {channels}" if held.image_size else _several(channels)
    num_bytes = sum(held.files.values())
    what = f"{held.num:,} images of {size} in {held.num_classes:,} classes"
    return f"{what}, {NOTES_OF_FORM[held.form]}, {num_bytes / 2**20:,.2f} MiB"


def _several(channels: int) -> str:
    return f"several sizes, in {'grey' if channels == 1 else 'colour'},"


def _prepared(source: str, about: "About", cache: Path) -> str:
    from experiments.data import decoded_bytes

    num, size = about.num_train + about.num_test, about.image_size
    held = f"{num:,} images of {size} x {size} x {about.image_channels} in {about.num_classes:,} classes"
    return f"{source}: {held}, {decoded_bytes(about) / 2**20:,.2f} MiB in {cache / about.content}"


def _asked(arguments: argparse.Namespace, store: "Store") -> "tuple[Path, str, list[DataConfig]]":
    """The cache, what errors begin with, and the data."""
    from experiments import evaluation
    from experiments.design import ablation as ablations
    from experiments.design.trials import data_configs
    from experiments.spec.expand import expand

    if arguments.source.endswith((".yaml", ".yml")):
        path = Path(expand(arguments.source, f"{ablations.COMMAND_LINE}: ablation"))
        ablation = ablations.load_ablation(path, arguments.overrides)
        return data_cache(ablation, store), ablation.where, data_configs(ablation)
    config = evaluation.read_data([arguments.source, *arguments.overrides])
    return store.data, ablations.COMMAND_LINE, [config]
