"""The frameworks that can train a trial: `names()` lists them, `load(name)` imports one."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.errors import BackendMissing, choices

if TYPE_CHECKING:  # the command line must be able to say a sentence before NumPy is there
    from importlib.metadata import EntryPoint

    from backends.bench import Ceilings, Devices, Loaders, Peers
    from backends.contract import Backend
    from backends.graphs import Graphs
    from backends.targets import Targets

_GROUP = "mixlab.backends"


def names() -> list[str]:
    """Every backend by name, installed or not: folders beside this file, then entry points."""
    return list(_names(tuple(sys.path)))


@cache
def _names(path: tuple[str, ...]) -> tuple[str, ...]:
    """Every backend by name, kept for each search path.

    Looking through all that is installed takes milliseconds, and a large grid asks once for each of its trials.
    """
    own = _folders()
    return (*own, *sorted(set(_external()) - set(own)))


def _external() -> "dict[str, EntryPoint]":
    """Backends that other packages bring."""
    from importlib.metadata import entry_points  # a tenth of a second, which most commands need not wait for

    return {point.name: point for point in entry_points(group=_GROUP)}


@cache
def _folders() -> tuple[str, ...]:
    """Names of the backends of this project; a grid asks for each of its trials."""
    return tuple(sorted(path.parent.name for path in Path(__file__).parent.glob("*/program.py")))


def check(name: str) -> None:
    """Check that a backend has this name; imports nothing.  Raises: BackendMissing: none has."""
    if name not in _folders() and name not in names():
        raise BackendMissing(f"backend: expected the name of a backend, got {name[:80]!r}; {choices(name, names())}")


@cache
def load(name: str) -> "Backend":
    """Import a backend.

    Raises: MixlabError: no backend has that name, or its framework is not installed.
    """
    check(name)
    with _import_errors(name):
        if name not in _folders():
            return _external()[name].load()  # type: ignore[no-any-return]
        return importlib.import_module(f"backends.{name}").BACKEND  # type: ignore[no-any-return]


def add_over_ranks(name: str, value: float, index: int, size: int, address: str) -> float:
    """The sum of one number of each of several processes; see backends/*/ranks.py.

    Args:   name: of the backend.    value: this process's number.    index: of this process, from 0.
            size: number of processes.    address: host:port where process 0 waits for the others.
    Raises: MixlabError: the backend's framework is not installed.
    """
    with _import_errors(name):
        module = importlib.import_module(f"backends.{name}.ranks")
    return float(module.add_over_ranks(value, index, size, address))


def load_peers(name: str) -> "Peers":
    """The module with other people's models in a backend's framework; see backends/*/peers.py.

    Raises: MixlabError: no backend of this project has that name, or its framework is not installed.
    """
    return _load_part(name, "peers")  # type: ignore[no-any-return]


def load_loader(name: str) -> "Loaders":
    """The module with the loader of images that a backend's framework brings; see backends/*/loader.py.

    Raises: MixlabError: the backend has none, or its framework is not installed.
    """
    return _load_part(name, "loader")  # type: ignore[no-any-return]


def load_ceilings(name: str) -> "Ceilings":
    """The module that measures what the machine can do at most in a backend's framework; see backends/*/ceilings.py.

    Raises: MixlabError: no backend of this project has that name, or its framework is not installed.
    """
    return _load_part(name, "ceilings")  # type: ignore[no-any-return]


def load_devices(name: str) -> "Devices":
    """The module that says which devices a backend's framework sees; see backends/*/devices.py.

    Raises: MixlabError: no backend of this project has that name, or its framework is not installed.
    """
    return _load_part(name, "devices")  # type: ignore[no-any-return]


def load_targets(name: str) -> "Targets":
    """The module that compiles for devices which are not here, in a backend's framework; see backends/*/targets.py.

    Raises: MixlabError: the backend has none, or its framework is not installed.
    """
    return _load_part(name, "targets")  # type: ignore[no-any-return]


def load_graphs(name: str) -> "Graphs":
    """The module that writes a model as a graph for other programs, in a backend's framework; see backends/*/onnx.py.

    Raises: MixlabError: the backend has none, or its framework is not installed.
    """
    return _load_part(name, "onnx")  # type: ignore[no-any-return]


def _load_part(name: str, part: str) -> Any:
    """A module of a backend's folder.  Raises: MixlabError: see load_peers."""
    if name not in _folders():
        raise BackendMissing(f"backend: expected one of this project, got {name!r}; {choices(name, _folders())}")
    with _import_errors(name):
        return importlib.import_module(f"backends.{name}.{part}")


@contextmanager
def _import_errors(name: str) -> Iterator[None]:
    """Turn what goes wrong in an import into a sentence.  Raises: MixlabError."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise _not_installed(name, str(error.name)) from error
    except (ImportError, OSError) as error:
        raise BackendMissing(f"backend: {name!r} is installed but does not load: {error}") from error


def packages(name: str) -> tuple[str, ...]:
    """Packages that must be installed for a backend of this project; () for a backend of another package."""
    return (name,) if name in _folders() else ()


def check_installed(name: str) -> None:
    """Check that the framework of a backend of this project is installed; imports nothing.

    Raises: BackendMissing: it is not.
    """
    for package in packages(name):
        if find_spec(package) is None:
            raise _not_installed(name, package)


def _not_installed(name: str, package: str) -> BackendMissing:
    how = f"; install it with: pip install -c constraints.txt -e '.[{name}]'" if name in _folders() else ""
    return BackendMissing(f"backend: {name!r} needs the package {package!r}, which is not installed{how}")
