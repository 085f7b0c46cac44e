"""What the command line asks of the doctor, checked; no framework is imported, as that alone may hang."""

import argparse
from pathlib import Path

import backends
from backends import devices
from backends.errors import BackendMissing, MixlabError
from experiments.design.ablation import COMMAND_LINE
from experiments.doctor.check import Asked
from experiments.doctor.devices import FILES, present
from experiments.files import reason
from experiments.parity.pair import Side, read_pythons


def asked(arguments: argparse.Namespace) -> Asked:
    """The question of a command line.

    Raises: MixlabError: an option says something else than it may, or the folder cannot be made.
    """
    if arguments.backend == "":
        raise MixlabError(f"{COMMAND_LINE}: --backend: expected a backend, or several with commas, got nothing")
    folder, available = Path(arguments.out).absolute(), backends.names()
    pythons = read_pythons(arguments.python, [Side(name) for name in available])
    there = [name for name in available if name in pythons or _is_installed(name)]
    device = present_device() if arguments.device == "auto" else arguments.device
    kind = devices.read(device, f"{COMMAND_LINE}: --device")[0]
    if kind == "tpu" and not arguments.backend:
        there = [name for name in there if name != "torch"]  # which has no code for it
    names = tuple(arguments.backend.split(",") if arguments.backend else there)
    for name in names:
        backends.check(name)
    if not names:
        backends.check_installed(available[0])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MixlabError(f"{COMMAND_LINE}: --out: cannot make {folder}: {reason(error)}") from error
    missing = () if arguments.backend else tuple(name for name in available if name not in there)
    absent = tuple(name for name in missing if kind != "tpu" or name != "torch")
    return Asked(device, names, pythons, folder, folder, arguments.short, absent)


def _is_installed(name: str) -> bool:
    try:
        backends.check_installed(name)
    except BackendMissing:
        return False
    return True


def present_device() -> str:
    """The kind of device whose files are there."""
    return next(filter(present, FILES), "cpu")
