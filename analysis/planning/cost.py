"""What a grid costs: FLOPs and disk by its trials' layers, memory by their estimate. Time is in hours.py.

Where tuning is by halving, a trial that tunes counts with the share of its steps that its stages train: exactly where
they are over, else with the mean over the values that are still there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.planning.known import Known, training_flops
from backends.models import family_of, folds
from backends.state import slots
from experiments.data import prepared
from experiments.design.ablation import GridTrial
from experiments.running import fit, storage
from experiments.spec.trial import Trial

# Bytes of a done trial's record, curve, spec and environment: without a point of the curve, and of each point.
# Seen with 4 points: 10.2 kB; with 100: 73.2 kB.
RESULT_BYTES, POINT_BYTES = 7_600, 656
PREDICTION_BYTES = 350  # of a file of predictions without its classes
EXAMPLE_BYTES = 4 + 8  # of a decoded example beside its pixels: label and hash


@dataclass(frozen=True)
class Disk:
    """Bytes that the trials of a grid take."""

    weights: int  # kept of the trials that are left, as run.keep says
    results: int  # records, curves, first layers and predictions of these
    data: int  # decoded images of all trials, there or to come
    running: int  # checkpoints of a trial that runs, of the largest one: the last, the one before, and the best weights


@dataclass(frozen=True)
class Cost:
    """What the trials cost that are left, and the whole grid."""

    num_left: int
    flops: float  # of the whole grid's training, in matrix products
    flops_left: float
    disk: Disk
    memory_bytes: int  # at the peak of the largest trial
    largest: GridTrial


def cost(known: Known) -> Cost:
    """The cost of a grid beside what is done of it."""
    trials = [planned.trial for planned in known.whole]
    left = [planned.trial for planned in known.left]
    largest = max(known.whole, key=lambda planned: storage.needed_bytes(planned.trial))
    return Cost(
        len(left),
        sum(training_flops(planned.trial) * known.share(planned) for planned in known.whole),
        sum(training_flops(planned.trial) * known.share_left(planned) for planned in known.left),
        Disk(
            sum(_weights(trial) for trial in left if trial.run.keep != "none"),
            sum(map(_results, left)),
            _data(trials),
            max(map(_checkpoints, trials)),
        ),
        storage.needed_bytes(largest.trial),
        largest,
    )


def num_evaluations(trial: Trial) -> int:
    return math.ceil(trial.num_steps / trial.train.evaluate_every)


def _number_bytes(trial: Trial) -> int:
    """Bytes of a number of the training state."""
    return 8 if trial.train.precision == "float64" else 4


def _weights(trial: Trial) -> int:
    return _number_bytes(trial) * folds.count(trial.model)


def _checkpoints(trial: Trial) -> int:
    best = trial.run.keep == "best"
    return _weights(trial) * (2 * (1 + len(slots(trial.optimizer))) + 2 * best)


def _results(trial: Trial) -> int:
    shapes = folds.shapes(trial.model)
    first = family_of(trial.model).first_layers(trial.model)
    numbers = sum(math.prod(shapes[name][copy is not None :]) for name, copy in first.items())
    return RESULT_BYTES + POINT_BYTES * num_evaluations(trial) + 4 * numbers + _predictions(trial)


def _predictions(trial: Trial) -> int:
    """Of each example the true class, and those of the last and the best evaluation, as if they had nothing in common.

    Packed they take half of that where nearly all are right, and up to 1.2 times where most are wrong.
    """
    info = trial.info
    bits = 3 * (info.num_validation + info.num_test) * math.log2(info.num_classes)
    return PREDICTION_BYTES + math.ceil(bits / 8)


def _data(trials: Sequence[Trial]) -> int:
    """Bytes of the decoded data, each content once; prepared data is read in place, but for what disk decodes."""
    by_content = {trial.info.content: trial for trial in trials if _is_decoded(trial)}
    return sum(
        fit.num_decoded(trial) * (trial.info.image_size**2 * trial.info.image_channels + EXAMPLE_BYTES)
        for trial in by_content.values()
    )


def _is_decoded(trial: Trial) -> bool:
    """Whether the images of a trial lie in the data cache."""
    held = prepared.find(trial.data.source, "this trial")
    return held is None or (held.description.form == "encoded" and trial.data.storage == "disk")
