"""What a leader and the processes of its group tell each other; see group.py."""

from collections.abc import Mapping
from dataclasses import dataclass

from backends.arrays import Array
from experiments.spec.trial import Trial


@dataclass(frozen=True)
class Join:
    """Where the backend's processes meet."""

    address: str


@dataclass(frozen=True)
class Open:
    """Open a program for a trial."""

    trial: Trial


@dataclass(frozen=True, eq=False)
class Load:
    """Take this state, and train from this step on."""

    state: Mapping[str, Array]
    first_step: int
    last_step: int


@dataclass(frozen=True)
class Fed:
    """Answer whether the pixels of so many steps are there, soon."""

    num: int


@dataclass(frozen=True)
class Waits:
    """What one that evaluates says while it waits for images."""


@dataclass(frozen=True)
class Steps:
    """Take some optimizer steps."""

    first: int
    num: int


@dataclass(frozen=True, eq=False)
class Say:
    """Send what the program says of some examples: of the batches of PREDICT_BATCH that are this process's share."""

    step: int  # of the leader's state
    indices: Array


@dataclass(frozen=True)
class States:
    """Give what this process alone holds of the state."""


@dataclass(frozen=True)
class Halt:
    """Say no more of the examples; the answer is the same word."""


def other_step(expected: int, found: int) -> str:
    """Why a process is out of step: it would train on, or evaluate, beside the others."""
    return f"expected a state of step {expected}, as the others', got one of step {found}"
