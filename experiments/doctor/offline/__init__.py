"""A folder that runs the doctor on a machine without a network: the code, the wheels that it lacks, and one script.

machine.txt lists the packages that such a machine has; doctor.sh is the script, and says how it is called.
"""

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from backends.errors import MixlabError, first_line, listed
from experiments.doctor.packages import canonical, that_count
from experiments.files import store_errors
from experiments.machine.environment import ROOT, environment

HERE = Path(__file__).parent
# What the machine runs; wheels of older systems run on newer ones, but pip takes each name by itself.
PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
CODE = ("analysis", "backends", "experiments", "mixlab", "slurm", "pyproject.toml", "constraints.txt", "LICENSE")
NO_CODE = "analysis/results/"
MOST_BYTES = 32 * 2**20  # a folder that is larger is copied to no machine in passing


def make(folder: Path) -> list[str]:
    """Make the folder anew; returns the names of its wheels.

    Raises: MixlabError: it is another folder of somebody's, a wheel cannot be had, or all is too large.
    """
    if folder.exists() and not (folder / "doctor.sh").is_file() and any(folder.iterdir()):
        raise MixlabError(f"make gpu: {folder} is not a folder that this command made; name another with GPU_DIR=")
    with store_errors(folder):
        for name in ("code", "wheels", "site"):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "wheels").mkdir(parents=True)
        _copy_code(folder / "code")
        shutil.copy(HERE / "doctor.sh", folder)
        commit = f"{environment()['commit']}{' and changes' if environment()['dirty'] else ''}"
        (folder / "commit.txt").write_text(f"{commit}\n")
    _download(lacking(), folder / "wheels")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > MOST_BYTES:
        raise MixlabError(f"make gpu: {folder} has {size / 2**20:.0f} MiB; expected at most {MOST_BYTES >> 20}")
    return sorted(path.name for path in (folder / "wheels").iterdir())


def on_the_machine() -> set[str]:
    """The packages that the machine has."""
    lines = (HERE / "machine.txt").read_text().splitlines()
    return {canonical(line) for line in lines if line and not line.startswith("#")}


def lacking(asks: Iterable[str] | None = None) -> list[str]:
    """Packages to bring, pinned as in constraints.txt: what is asked for, and what that asks for, less the machine's.

    Args:   asks: requirements; none: those of pyproject.toml.
    Raises: MixlabError: one has no pin.
    """
    there, needed = on_the_machine(), {canonical(name) for name in _needed(list(_asks() if asks is None else asks))}
    pins = _pins()
    if unpinned := sorted(needed - there - pins.keys()):
        raise MixlabError(f"constraints.txt: expected a version of {listed(unpinned)}, which the doctor's folder needs")
    return sorted(f"{name}=={pins[name]}" for name in needed - there)


def _asks() -> list[str]:
    """What pyproject.toml asks for, with both frameworks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras: Mapping[str, list[str]] = project["optional-dependencies"]
    return [*project["dependencies"], *extras["torch"], *extras["jax"]]


def _needed(asks: list[str]) -> set[str]:
    """The packages that requirements lead to. Where the machine has one, it has what that one needs too."""
    there, found = on_the_machine(), set[str]()
    surroundings: dict[str, Any] = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0"}
    while asks:
        for requirement in that_count([asks.pop()], (), surroundings):
            name = canonical(requirement.name)
            if name not in found | there:
                asks += requires(name) or ()
            found.add(name)
    return found


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {canonical(name): version for name, _, version in (line.partition("==") for line in lines) if version}


def _copy_code(folder: Path) -> None:
    """Copy what git tracks of the code, as it is on the disk now."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--", *CODE]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise MixlabError(f"make gpu: expected a git repository in {ROOT}: {first_line(error)}") from error
    for name in listing.split("\0"):
        if name and not name.startswith(NO_CODE) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def _download(pinned: Iterable[str], folder: Path) -> None:
    """Raises: MixlabError: pip finds no wheel."""
    target = ["--python-version", PYTHON, "--implementation", "cp", "--only-binary=:all:", "--no-deps"]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *target, *platforms, "--dest", str(folder), *pinned]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR")]
        raise MixlabError(f"make gpu: pip brought no wheel: {(errors or [done.stdout.strip()[-200:]])[0]}")
