"""What the training of one trial tells whoever watches it. What a worker adds to these: running/events.py."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Stepped:
    """A chunk of steps is done."""

    trial_id: str
    step: int  # steps done
    num_steps: int  # of the whole training
    loss: float  # of the last step
    images_per_s: float  # of this trial by the clock, whatever trains with it; 0: not measured, as the chunk compiled
    waiting: float = 0.0  # share of the time of its last steps in which the device waited for pixels


@dataclass(frozen=True)
class Evaluated:
    """A point of the curve is known.

    scores: by split (train, validation, test), each metric by its name; None: the split has no examples.
    """

    trial_id: str
    step: int
    loss: float  # mean over the steps since the point before
    learning_rate: float
    scores: Mapping[str, Mapping[str, float] | None]


@dataclass(frozen=True)
class Noted:
    """A sentence for the user, such as that a damaged file was set aside."""

    trial_id: str
    sentence: str


Tell = Callable[[Stepped | Evaluated | Noted], None]
