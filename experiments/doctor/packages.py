"""Packages of an interpreter against what pyproject.toml asks for, and what those ask for in turn."""

import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import backends
from backends.errors import BackendMissing, listed
from experiments.doctor.check import Asked, Verdict, differs, not_run, ok
from experiments.machine.environment import PACKAGES, ROOT

if TYPE_CHECKING:
    from packaging.requirements import Requirement


def look(backend: str, asked: Asked) -> Verdict:
    """The packages that a backend needs ("": what all need, but for `packages` of a backend with this interpreter)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = backend if backend in project["optional-dependencies"] else ""
    command = install(extra)
    try:
        from packaging.specifiers import SpecifierSet
    except ModuleNotFoundError:
        return differs(f"the package packaging is missing; in {ROOT}: {command}")
    python = ".".join(map(str, sys.version_info[:3]))
    if not SpecifierSet(project["requires-python"]).contains(python, prereleases=True):
        return differs(f"{sys.executable} is Python {python}; expected {project['requires-python']}", python=python)
    asks = [*project["dependencies"], *(project["optional-dependencies"][extra] if extra else [])]
    found = Found()
    found.look(asks, "mixlab")
    if found.faults:
        return differs(f"{listed(found.faults)}; in {ROOT}: {command}", python=python, faults=found.faults)
    main = [f"{name} {found.versions[name]}" for name in PACKAGES if name in found.versions]
    return ok(f"Python {python}; {', '.join(main)}", python=python, packages=found.versions)


def install(extra: str) -> str:
    """The command that installs what an extra of the project asks for ("": what all need) into this interpreter."""
    return f"{sys.executable} -m pip install -c constraints.txt -e '.{f'[{extra}]' if extra else ''}'"


def look_at_absent(backend: str) -> Verdict:
    """That a backend is not installed, which is no fault where nobody asked for it."""
    try:
        backends.check_installed(backend)
    except BackendMissing as error:
        return not_run(str(error))
    return not_run(f"backend: {backend!r} has been installed by now")


class Found:
    """The versions that were found, by name, and a sentence for each package that is missing or out of range."""

    def __init__(self) -> None:
        self.versions: dict[str, str] = {}
        self.faults: list[str] = []
        self._seen: set[tuple[str, frozenset[str]]] = set()

    def look(self, asks: Iterable[str], whose: str, extras: Iterable[str] = ()) -> None:
        """Look at requirements, and at those of the packages that meet them.

        Args: asks: lines as in pyproject.toml.    whose: the package that has them.    extras: those of it.
        """
        for requirement in that_count(asks, extras):
            name = canonical(requirement.name)
            try:
                there = distribution(requirement.name)
            except PackageNotFoundError:
                self._fault(f"{name} is missing", requirement, whose)
                continue
            self.versions[name] = there.version
            if not requirement.specifier.contains(there.version, prereleases=True):
                self._fault(f"{name} is {there.version}", requirement, whose)
            key = name, frozenset(requirement.extras)
            if key not in self._seen:
                self._seen.add(key)
                self.look(there.requires or (), name, requirement.extras)

    def _fault(self, what: str, requirement: "Requirement", whose: str) -> None:
        self.faults.append(f"{what} ({whose} asks for {requirement.name}{requirement.specifier})")


def that_count(
    asks: Iterable[str], extras: Iterable[str], surroundings: Mapping[str, Any] = MappingProxyType({})
) -> "Iterator[Requirement]":
    """The requirements that hold for one of the extras.  Args: surroundings: in place of this interpreter's own."""
    from packaging.requirements import Requirement

    each = [{**surroundings, "extra": extra} for extra in ("", *extras)]
    for ask in asks:
        requirement = Requirement(ask)
        if not requirement.marker or any(requirement.marker.evaluate(one) for one in each):
            yield requirement


def canonical(name: str) -> str:
    """A package's name as it is compared."""
    from packaging.utils import canonicalize_name

    return str(canonicalize_name(name))
