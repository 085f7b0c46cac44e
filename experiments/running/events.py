"""What a worker and its parent tell each other, over a pipe: a worker events, its parent orders.

`Stepped`, `Evaluated` and `Noted` are told by the training itself, which knows no workers: see training/events.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from experiments.running.failures import Failure
from experiments.spec.trial import Trial
from experiments.training.events import Evaluated, Noted, Stepped

__all__ = [
    "Beat",
    "End",
    "Ended",
    "Evaluated",
    "Event",
    "How",
    "Lost",
    "Noted",
    "Order",
    "Returned",
    "Spent",
    "Started",
    "Stepped",
    "Stop",
    "Told",
    "Train",
]

How = Literal["done", "failed", "crashed", "paused", "stopped", "busy", "error"]


@dataclass(frozen=True)
class Started:
    """A worker begins with a trial.

    Told before anything that may take the process down. Of several that it was sent together, only the first is told
    then, and each of the others as the steps of its program begin: one that has waited for others was not begun.
    """

    trial_id: str
    step: int  # of its newest checkpoint; 0: it has none


@dataclass(frozen=True)
class Ended:
    """A worker has let go of a trial.

    how: done; failed; crashed: failed by an unexpected error, after which the process is not used again; paused: it has
         come as far as it is trained for now, and the state is saved; stopped: it was asked to, and the state is saved;
         busy: another process has the trial; error: a mistake that concerns the whole run.
    """

    trial_id: str
    how: How
    failure: Failure | None = None  # of a trial that failed or crashed, and of an error


@dataclass(frozen=True)
class Spent:
    """What a worker has done with its time since it last told: seconds by phase, see pool.PHASES."""

    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Beat:
    """The first process of a group lives: told every second while it has trials."""


@dataclass(frozen=True)
class Lost:
    """Why the first process of a group is about to end, in the midst of what it waits for."""

    failure: Failure


@dataclass(frozen=True)
class Returned:
    """A worker gives a trial back, whose state is as it was: it waits again.

    most: how many trials like it go through one program here. 1 after a program of several has failed as a whole:
          alone, a failure is a trial's own.
    """

    trial_id: str
    most: int
    failure: Failure | None = None  # of the program of several, which was noted once for all of them
    crashed: bool = False  # the process is not used again


Event = Started | Returned | Stepped | Evaluated | Noted | Ended  # of a trial
Told = Event | Spent | Beat | Lost


@dataclass(frozen=True)
class Train:
    """Train trials that can be replicas, as one program as far as they fit, or one alone."""

    trials: tuple[Trial, ...]
    until: int | None = None  # the step at which all of them pause; None: to the end


@dataclass(frozen=True)
class Stop:
    """Save the trials in hand and let go of them; take no other."""


@dataclass(frozen=True)
class End:
    """End when the trials in hand have ended."""


Order = Train | Stop | End
