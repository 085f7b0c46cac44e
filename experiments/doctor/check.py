"""What a check is, what it can say, and what was asked of all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from backends import devices

Word = Literal["ok", "differs", "not run"]


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    text: what was seen; what differs from what; or why it was not run, and the command that mends it.
    figures: numbers by name, for scripts.    is_fault: whether a machine in order would not say this.
    """

    word: Word
    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    is_fault: bool = False

    def __str__(self) -> str:
        return f"{self.word}: {self.text}" if self.text else self.word


def ok(text: str = "", **figures: Any) -> Verdict:
    """All is as it should be."""
    return Verdict("ok", text, figures)


def differs(text: str, **figures: Any) -> Verdict:
    """Something is not as it should be."""
    return Verdict("differs", text, figures, is_fault=True)


def not_run(text: str, is_fault: bool = False, **figures: Any) -> Verdict:
    """Nothing was found out.  Args: is_fault: it was asked for, and this machine should have been able to."""
    return Verdict("not run", text, figures, is_fault)


@dataclass(frozen=True)
class Check:
    """One line of the page.

    name: as the page has it; unique within its part.    look: finds the verdict, and may raise a MixlabError instead,
    which is then a fault that names why nothing was found out.    limit_s: what it may take at most; a check that
    takes longer hangs.    backend: whose interpreter runs it; "": the doctor's own.    enough_s: what a machine in
    order needs; a check that its part's time cuts off after so long may hang as well, and counts as a fault.
    unlocks: the backend whose checks are in vain where this one finds a fault.
    """

    name: str
    look: Callable[[], Verdict]
    limit_s: float = 60.0
    backend: str = ""
    enough_s: float = 60.0
    unlocks: str = ""

    def needs(self, backend: str) -> bool:
        """Tell whether it uses a backend's device: its name says which backends it is of."""
        return f"{backend}:" in self.name


@dataclass(frozen=True)
class Asked:
    """What the checks are made of.

    device: as run.device has it, but never `auto`.    backends: in their order.    absent: backends that nobody asked
    for by name, and that are not installed.    pythons: the interpreter of a backend, where it is not the doctor's own.
    folder: where the page goes, on the disk that is measured.
    work: a folder for what the checks write, removed at the end.    short: fewer settings of each kind.
    """

    device: str
    backends: tuple[str, ...]
    pythons: Mapping[str, str]
    folder: Path
    work: Path
    short: bool = False
    absent: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The kind of the device: cpu, cuda or tpu."""
        return devices.read(self.device)[0]

    @property
    def is_cpu(self) -> bool:
        return self.kind == "cpu"

    @property
    def is_cuda(self) -> bool:
        return self.kind == "cuda"
