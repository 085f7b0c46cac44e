"""Surroundings of a backend's trials: lines of shell, a Python, and a container around it."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.errors import MixlabError, choices
from experiments.spec.expand import expand
from experiments.spec.values import shown

PYXIS = "pyxis"
RUNTIMES = ("apptainer", "singularity", PYXIS)
BARE = {"-e", "--cleanenv", "-C", "--containall"}  # options that take a job's variables away
GPU_OPTIONS = {"--nv", "--nvccli", "--rocm"}
OPERATORS = {"&&", "||", ";", "|", "&", "<", ">"}
KEYS = ("python", "setup", "container")
# In a container the snapshot comes first, whatever the image sets; the arguments are the snapshot and a command.
INSIDE = 'export PYTHONPATH="$0${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1; exec "$@"'


@dataclass(frozen=True)
class Container:
    """An image, and the folders that are mounted in it."""

    runtime: str  # pyxis, which is srun's (enroot); or the command apptainer, or singularity
    image: str  # a file, or an address such as docker://...
    mounts: tuple[str, ...] = ()  # from:to, or one path for both; Mixlab adds the store, caches and the working folder
    options: tuple[str, ...] = ()  # further words for srun, or for `apptainer exec`


@dataclass(frozen=True)
class EnvironmentSpec:
    """The setup, Python and container that a backend's trials run in."""

    python: tuple[str, ...] = ()  # words of a command; none: the Python that submits, or python3 of the container
    setup: tuple[str, ...] = ()  # lines of shell before it, such as module load cuda
    container: Container | None = None


def python_words(value: Any, where: str) -> tuple[str, ...]:
    """The words of a command that ends with a Python: a list of them, or a text that is a file, or else is parted as a
    shell would part it.

    Raises: MixlabError: no words, a quote that does not end, or a text that is more than one command.
    """
    if isinstance(value, list) and value and all(isinstance(word, str) and word for word in value):
        return tuple(map(str, value))
    if not isinstance(value, str) or not value.strip():
        raise MixlabError(f"{where}: expected a path, a command or a list of its words, got {shown(value)}")
    if _is_file(expand(value, where)):
        return (str(value),)
    words = _split(value, where)
    if operators := [word for word in words if word in OPERATORS or word.endswith(";")]:
        raise MixlabError(
            f"{where}: expected one command, but {operators[0]!r} makes it several; 'setup' is for what comes before"
        )
    return tuple(words)


def _split(text: str, where: str) -> list[str]:
    """The words of a text, as a shell would part it. Raises: MixlabError: a quote that does not end."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise MixlabError(
            f"{where}: {shown(text)} has a quote that does not end; write a list of words instead"
        ) from error


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # longer than a path can be
        return False


def lines(value: Any, where: str) -> tuple[str, ...]:
    """Lines of shell: a list, or a text, of which each line is one."""
    if isinstance(value, str):
        return tuple(line for line in value.splitlines() if line.strip())
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return tuple(map(str, value))
    raise MixlabError(f"{where}: expected a list of lines of shell, or one line, got {shown(value)}")


def container(value: Any, where: str) -> Container:
    """Read the key `container`. Raises: MixlabError: names the key, what was expected and what was found."""
    if not isinstance(value, Mapping):
        example = "{runtime: apptainer, image: torch.sif}"
        raise MixlabError(f"{where}: expected a mapping such as {example}, got {shown(value)}")
    names = ("runtime", "image", "mounts", "options")
    for key in value:
        if key not in names:
            raise MixlabError(f"{where}: {shown(key)} is not a key of it; {choices(key, names)}")
    for key in ("runtime", "image"):
        if not isinstance(value.get(key), str) or not value[key]:
            raise MixlabError(f"{where}: {key}: expected text, got {shown(value.get(key))}; the key is required")
    if value["runtime"] not in RUNTIMES:
        near = "; pyxis runs enroot" if value["runtime"] == "enroot" else ""
        raise MixlabError(
            f"{where}: runtime: {value['runtime']!r} is not known; {choices(value['runtime'], RUNTIMES)}{near}"
        )
    lists = {key: _words(value.get(key), f"{where}: {key}") for key in ("mounts", "options")}
    if isinstance(value.get("options"), str):
        lists["options"] = tuple(_split(value["options"], f"{where}: options"))
    if wrong := [mount for mount in lists["mounts"] if not re.fullmatch(r"/[^:,]*(:/[^:,]*(:[^:,]+)?)?", mount)]:
        raise MixlabError(f"{where}: mounts: expected /from, /from:/to or /from:/to:ro, got {wrong[0]!r}")
    if bare := [word for word in lists["options"] if word in BARE]:
        raise MixlabError(
            f"{where}: options: {bare[0]!r} hides Slurm's variables from a job, which needs them; leave it out"
        )
    return Container(str(value["runtime"]), str(value["image"]), **lists)


def _words(value: Any, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (str(value),)
    if isinstance(value, (list, tuple)) and all(isinstance(word, str) and word for word in value):
        return tuple(map(str, value))
    raise MixlabError(f"{where}: expected a list of texts, got {shown(value)}")


def mounts(container: Container, seen: Iterable[Path]) -> list[str]:
    """Mounts of a container: its own, and paths that have the same place inside.

    Raises: MixlabError: a path that no mount can name.
    """
    own = [mount if ":" in mount else f"{mount}:{mount}" for mount in container.mounts]
    there = {Path(mount.partition(":")[0]) for mount in own if mount == ":".join(2 * [mount.partition(":")[0]])}
    added = []
    for path in sorted({path.absolute() for path in seen}):
        if path == Path(path.anchor) or there & {path, *path.parents}:
            continue  # the whole machine is no place for a container, and what lies in a mount is mounted
        if set(":,") & set(str(path)):
            raise MixlabError(f"container: expected a path without ':' and ',' to mount, got {str(path)!r}")
        there.add(path)
        added.append(f"{path}:{path}")
    return own + added


def srun_options(container: Container, seen: Iterable[Path], folder: Path) -> list[str]:
    """Options of srun with which pyxis makes the container of a task.

    Source: https://github.com/NVIDIA/pyxis, Usage.
    """
    image = f"--container-image={container.image}"
    inside = [f"--container-mounts={','.join(mounted)}"] if (mounted := mounts(container, seen)) else []
    return [image, *inside, f"--container-workdir={folder}", *container.options]


def run_words(container: Container, seen: Iterable[Path], folder: Path, gpus: int) -> list[str]:
    """The command that runs another one in a container of apptainer."""
    binds = [word for mount in mounts(container, seen) for word in ("--bind", mount)]
    nv = ["--nv"] if gpus and not GPU_OPTIONS & set(container.options) else []
    return [container.runtime, "exec", *nv, *binds, "--pwd", str(folder), *container.options, container.image]


def inside(python: Sequence[str], snapshot: Path) -> list[str]:
    """A command in a container, with the snapshot's modules before any other."""
    return ["sh", "-c", INSIDE, str(snapshot), *python]
