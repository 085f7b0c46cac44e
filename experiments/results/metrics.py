"""The numbers that a trial ends with, by name: each stands here once, and is made in one place.

A further metric is a row of METRICS and its function in MEASURES of training/evaluate.py. Records, frames, curves,
tables, figures and the command line then know it. Those of SOME are measured where the data allows them, those of
PROBES where `run.probe_shots` asks for them; see training/probe.py. A further number of cost is a name here and its
value in TrialRun.result.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from experiments.spec.shots import SHOTS

LAST, BEST = "last", "best"  # evaluations of a trial that its record holds apart from the curve
TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")
# Evaluations and splits of which a done trial keeps what was said of each example; see predictions.py.
PREDICTED = tuple(f"{when}.{split}" for when in (LAST, BEST) for split in reversed(SPLITS[1:]))
SECONDS = ("compile", "train", "evaluate")
EXCHANGE_SECONDS = "exchange"  # beside SECONDS, of a trial on several devices: they exchanged gradients
WAIT_SECONDS = "wait"  # beside SECONDS, of a trial whose pixels are read as it trains: the device waited for them
FLOPS = ("forward_flops_per_image", "training_flops")  # which may pass 64 bits
STEPS = "steps"
STARVED = 0.05  # share of the time of training, waited for pixels, from which a device is told to be starved
STARVED_S = 1.0  # seconds of waiting, from which a trial that has ended is
COSTS = ("images_per_s", "parameters", "peak_memory_bytes", *FLOPS)
MEANS = ("parameters", "training_flops", "images_per_s")  # of COSTS, those that a cell of a table averages
# Of a point of the curve beside its splits; STEP_LOSS is the mean over the steps since the point before.
STEP, STEP_LOSS, LEARNING_RATE = "step", "loss", "learning_rate"
EACH_SEED = "each_seed"  # of a point too: by split and metric, the numbers that a probe's accuracy is the mean of


@dataclass(frozen=True)
class Metric:
    """A number that an evaluation makes of the examples of a split; it is in [0, most]."""

    name: str
    unit: str  # of the number as it is shown
    difference_unit: str
    scale: int  # what the number in a record is multiplied with to be in its unit
    digits: int  # in tables
    digits_alone: int  # where it is printed alone
    higher_is_better: bool
    most: float = math.inf
    is_share: bool = False  # the share of examples that are right: the rest is the error, and their number limits it
    in_all_records: bool = False  # False: records of an earlier version lack it

    def text(self, value: float, sign: str = "", more: int = 0) -> str:
        """The number, or a difference of two (with sign "+"), in its unit and with `more` digits than in tables."""
        digits = self.digits + more
        return f"{round(self.scale * value, digits) + 0.0:{sign}.{digits}f}"  # + 0.0: no -0.0


ACCURACY = Metric(
    "accuracy", "%", "points", 100, 1, 2, higher_is_better=True, most=1.0, is_share=True, in_all_records=True
)
LOSS = Metric("loss", "nats", "nats", 1, 4, 6, higher_is_better=False, in_all_records=True)
METRICS: dict[str, Metric] = {metric.name: metric for metric in (ACCURACY, LOSS)}
TOP5 = replace(ACCURACY, name="top5", in_all_records=False)  # of more than five classes
REAL = replace(ACCURACY, name="real", in_all_records=False)  # by all right classes of data.labels_real
SOME = {metric.name: metric for metric in (TOP5, REAL)}  # of METRICS' kind, where the data allows them


def probe_name(shots: int) -> str:
    """The metric of a few-shot probe: its accuracy, the mean over its seeds."""
    return f"probe.{shots}shot.{ACCURACY.name}"


PROBES = {one: replace(ACCURACY, name=probe_name(one), in_all_records=False) for one in SHOTS}  # by shots
CHOOSES = ACCURACY  # the best evaluation is the first that is best in it on validation
FINITE = LOSS  # where it is not, the trial has diverged
DEFAULT = f"{LAST}.test.{ACCURACY.name}"  # of a report


class Place(NamedTuple):
    """The parts of a name such as `last.test.accuracy`."""

    when: str
    split: str
    metric: Metric


def every() -> dict[str, Metric]:
    """All metrics by name: those of each evaluation, and those that are measured where they are asked for."""
    return {**METRICS, **SOME, **{one.name: one for one in PROBES.values()}}


def measured(points: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Names of the metrics to show of some points of curves: all of METRICS, and of the others those that are there."""
    there = {name for point in points for split in SPLITS for name in point.get(split) or ()}
    return tuple(name for name in every() if name in METRICS or name in there)


def names() -> tuple[str, ...]:
    """Names of what a report may be of, which are columns of the frame: `last.test.accuracy`, ..."""
    return tuple(
        f"{when}.{split}.{metric}" for when in (LAST, BEST) for split in reversed(SPLITS) for metric in every()
    )


def full(name: str) -> str:
    """The whole name of a metric; one without evaluation and split, such as `accuracy`, is of the last one on test."""
    return f"{LAST}.{TEST}.{name}" if name in tuple(every()) else name


def shots_of(name: str) -> int | None:
    """The shots of a probe; None: the metric is none of a probe. Args: name: of `names`."""
    return next((shots for shots, one in PROBES.items() if one is parse(name).metric), None)


def parse(name: str) -> Place:
    """Take a name apart. Args: name: of `names`."""
    when, split, metric = name.split(".", 2)
    return Place(when, split, every()[metric])


def sealed(name: str) -> str:
    """The metric that stands for one of test where test is not to be seen: the same one of validation.

    Args: name: of `names`; those of other splits stay.
    """
    return on_validation(name) if parse(name).split == TEST else name


def on_validation(name: str) -> str:
    """The same metric of validation; of REAL, which test examples alone have, the accuracy. Args: name: of `names`."""
    when, _, metric = parse(name)
    return f"{when}.{VALIDATION}.{(ACCURACY if metric is REAL else metric).name}"


def curve_columns() -> tuple[str, ...]:
    """Columns of a curve as an array; NaN where a split has no examples, or the record lacks the metric."""
    return (STEP, STEP_LOSS, *(f"{split}.{metric}" for split in SPLITS for metric in every()))
