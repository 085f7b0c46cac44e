"""What a backend's trials run in: lines of shell, a Python, and a container around it."""

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
    """An image, and what is seen in it."""

    runtime: str  # pyxis, which is srun's (enroot); or the command apptainer, or singularity
    image: str  # a file, or an address such as docker://...
    mounts: tuple[str, ...] = ()  # from:to, or one path for both; Mixlab adds the store, caches and the working folder
    options: tuple[str, ...] = ()  # further words for srun, or for `apptainer exec`


@dataclass(frozen=True)
class EnvironmentSpec:
    """What the trials of a backend run in."""

    python: tuple[str, ...] = ()  # words of a command; none: the Python that submits, or python3 of the container
    setup: tuple[str, ...] = ()  # lines of shell before it, such as module load cuda
    container: Container | None = None


def python_words(given: Any, where: str) -> tuple[str, ...]:
    """The words of a command that ends with a Python: a list of them, or a text that is a file, or else is parted as a
    shell would part it.

    Raises: MixlabError: no words, a quote that does not end, or a text that is more than one command.
    """
    if isinstance(given, list) and given and all(isinstance(word, str) and word for word in given):
        return tuple(map(str, given))
    if not isinstance(given, str) or not given.strip():
        raise MixlabError(f"{where}: {shown(given)} came where a path, a command or a list of its words is allowed")
    if _is_file(expand(given, where)):
        return (str(given),)
    words = _split(given, where)
    if found := [word for word in words if word in OPERATORS or word.endswith(";")]:
        raise MixlabError(
            f"{where}: {found[0]!r} makes it more than one command; what comes before it belongs to 'setup'"
        )
    return tuple(words)


def _split(text: str, where: str) -> list[str]:
    """The words of a text, as a shell would part it. Raises: MixlabError: a quote that does not end."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise MixlabError(f"{where}: {shown(text)} has a quote that does not end; allowed: a list of words") from error


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # longer than a path can be
        return False


def lines(given: Any, where: str) -> tuple[str, ...]:
    """Lines of shell: a list, or a text, of which each line is one."""
    if isinstance(given, str):
        return tuple(line for line in given.splitlines() if line.strip())
    if isinstance(given, list) and all(isinstance(line, str) for line in given):
        return tuple(map(str, given))
    raise MixlabError(f"{where}: {shown(given)} came where a list of lines of shell, or one line, is allowed")


def container(given: Any, where: str) -> Container:
    """Raises: MixlabError: names the key, what came and what is allowed."""
    if not isinstance(given, Mapping):
        example = "{runtime: apptainer, image: torch.sif}"
        raise MixlabError(f"{where}: {shown(given)} came where a mapping such as {example} is allowed")
    names = ("runtime", "image", "mounts", "options")
    for key in given:
        if key not in names:
            raise MixlabError(f"{where}: {shown(key)} is not a key of it; {choices(key, names)}")
    for key in ("runtime", "image"):
        if not isinstance(given.get(key), str) or not given[key]:
            raise MixlabError(f"{where}: {key}: {shown(given.get(key))} came where text is allowed; it must be given")
    if given["runtime"] not in RUNTIMES:
        near = "; enroot runs by pyxis" if given["runtime"] == "enroot" else ""
        raise MixlabError(
            f"{where}: runtime: {given['runtime']!r} is not known; {choices(given['runtime'], RUNTIMES)}{near}"
        )
    lists = {key: _words(given.get(key), f"{where}: {key}") for key in ("mounts", "options")}
    if isinstance(given.get("options"), str):
        lists["options"] = tuple(_split(given["options"], f"{where}: options"))
    if wrong := [mount for mount in lists["mounts"] if not re.fullmatch(r"/[^:,]*(:/[^:,]*(:[^:,]+)?)?", mount)]:
        raise MixlabError(f"{where}: mounts: {wrong[0]!r} came where /from, /from:/to or /from:/to:ro is allowed")
    if bare := [word for word in lists["options"] if word in BARE]:
        raise MixlabError(f"{where}: options: {bare[0]!r} hides from a job which one it is; leave it out")
    return Container(str(given["runtime"]), str(given["image"]), **lists)


def _words(given: Any, where: str) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, str):
        return (str(given),)
    if isinstance(given, (list, tuple)) and all(isinstance(word, str) and word for word in given):
        return tuple(map(str, given))
    raise MixlabError(f"{where}: {shown(given)} came where a list of texts is allowed")


def mounts(container: Container, seen: Iterable[Path]) -> list[str]:
    """What is mounted: the container's own mounts, and paths that stand at the same place inside.

    Raises: MixlabError: a path that no mount can name.
    """
    own = [mount if ":" in mount else f"{mount}:{mount}" for mount in container.mounts]
    there = {Path(mount.partition(":")[0]) for mount in own if mount == ":".join(2 * [mount.partition(":")[0]])}
    found = []
    for path in sorted({path.absolute() for path in seen}):
        if path == Path(path.anchor) or there & {path, *path.parents}:
            continue  # the whole machine is no place for a container, and what lies in a mount is mounted
        if set(":,") & set(str(path)):
            raise MixlabError(f"container: {str(path)!r} cannot be mounted; allowed: a path without ':' and ','")
        there.add(path)
        found.append(f"{path}:{path}")
    return own + found


def srun_options(container: Container, seen: Iterable[Path], folder: Path) -> list[str]:
    """What srun is told where pyxis makes the container of a task.

    Source: https://github.com/NVIDIA/pyxis, Usage.
    """
    image = f"--container-image={container.image}"
    inside = [f"--container-mounts={','.join(found)}"] if (found := mounts(container, seen)) else []
    return [image, *inside, f"--container-workdir={folder}", *container.options]


def run_words(container: Container, seen: Iterable[Path], folder: Path, gpus: int) -> list[str]:
    """The command that runs another one in a container of apptainer."""
    binds = [word for mount in mounts(container, seen) for word in ("--bind", mount)]
    nv = ["--nv"] if gpus and not GPU_OPTIONS & set(container.options) else []
    return [container.runtime, "exec", *nv, *binds, "--pwd", str(folder), *container.options, container.image]


def inside(python: Sequence[str], snapshot: Path) -> list[str]:
    """A command in a container, with the snapshot's modules before any other."""
    return ["sh", "-c", INSIDE, str(snapshot), *python]
