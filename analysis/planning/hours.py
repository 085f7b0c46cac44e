"""Device-hours of the trials that are left: from the seconds of records, else a bound from a measured ceiling.

A machine is a place such as `AMD EPYC with 2 threads` or `NVIDIA H100`. A trial's seconds there are the medians over
done trials of the same model, backend, batch size and precision: compiling, once; a step; an evaluated example. Of a
trial without such a record they lie between those at the fastest and the slowest FLOP/s that other models of the same
backend and precision have reached there. Loading data, saving and idle devices are not counted.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from analysis.planning import cost
from analysis.planning.known import Known, Record, training_flops, trial_of
from experiments.results import ceilings
from experiments.results.shape import sound
from experiments.spec.trial import Trial

HOUR_S = 3600.0
SAME, OTHER, UNKNOWN = "same", "other", "unknown"  # what records there are for a trial
Settings = tuple[Any, ...]  # what the speed of a trial depends on, on one machine


@dataclass(frozen=True)
class Seconds:
    """What a done trial took: to compile, for a step and for an evaluated example; and FLOP/s over all of it."""

    compile: float
    step: float
    example: float
    rate: float

    @classmethod
    def of(cls, trial: Trial, record: Record) -> "Seconds":
        spent, steps = record["seconds"], max(1, int(record["steps"] or 0))
        flops = training_flops(trial) * steps / trial.num_steps
        return cls(
            spent["compile"],
            spent["train"] / steps,
            spent["evaluate"] / num_evaluated(trial),
            flops / max(sum(spent.values()), 1e-9),
        )


Samples = Mapping[Settings, Sequence[Seconds]]  # of one machine


@dataclass(frozen=True)
class Hours:
    """Device-hours of the trials that are left, on one machine; low and high are the same where all is from records."""

    machine: str
    low: float
    high: float
    num_records: int = 0  # of the same models
    num_same: int = 0  # trials that have such a record
    num_other: int = 0  # trials that have records of other models alone
    num_unknown: int = 0  # trials of a backend or precision of which there is none: not counted
    precision: str = ""  # of the ceiling, where the number is a bound


def settings(trial: Trial) -> Settings:
    """What a step's time depends on."""
    run = trial.run
    return trial.model, trial.backend, trial.train.batch_size, trial.train.precision, run.compile, run.remat


def num_evaluated(trial: Trial) -> int:
    """Examples of all evaluations of a trial together."""
    info, train = trial.info, trial.train
    examples = min(info.num_train, train.evaluate_train_examples) + info.num_validation + info.num_test
    return examples * cost.num_evaluations(trial)


def hours(known: Known) -> list[Hours]:
    """An estimate for each machine of the store that the trials may run on, those with records of the models first.

    Records of other ablations are read only if those of the grid leave a trial without one of its model.
    """
    found = _by_machine(known, known.own)
    wanted = {settings(planned.trial) for planned in known.left}
    if not any(wanted <= samples.keys() for samples in found.values()):
        found = _by_machine(known, known.all)
    estimates = [_estimate(known, machine, samples) for machine, samples in found.items()]
    estimates = [one for one in estimates if one.num_same or one.num_other]
    return sorted(estimates, key=lambda one: (-one.num_same, one.num_unknown)) or list(_bounds(known))


def _by_machine(known: Known, records: dict[str, Record]) -> dict[str, dict[Settings, list[Seconds]]]:
    """Samples by machine and settings; of trials that stayed on one machine."""
    device = known.whole[0].trial.run.device
    found: dict[str, dict[Settings, list[Seconds]]] = {}
    for record in records.values():
        machine, trial = _machine(record, device), trial_of(record)
        if machine and trial and None not in record["seconds"].values():
            found.setdefault(machine, {}).setdefault(settings(trial), []).append(Seconds.of(trial, record))
    return found


def _machine(record: Record, wanted: str) -> str:
    """The machine of a record; empty if it is not known, several, or not what the trials ask for."""
    places = {_place(one.get("backend") or {}, record) for one in record["sessions"]}
    (place, is_cpu) = next(iter(places)) if len(places) == 1 else ("", False)
    return place if wanted == "auto" or (wanted == "cpu") == is_cpu else ""


def _place(about: dict[str, Any], record: Record) -> tuple[str, bool]:
    device, threads = about.get("device"), about.get("threads")
    processor = sound(record, "environment.processor")
    if device is None or (device == "cpu" and not (processor and threads)):
        return "", False
    if device != "cpu":
        return str(device), False
    return f"{processor} with {threads} thread{'s' * (str(threads) != '1')}", True


def _estimate(known: Known, machine: str, samples: Samples) -> Hours:
    spans = [_span(planned.trial, known.share_left(planned), samples) for planned in known.left]
    counts = Counter(kind for kind, _, _ in spans)
    used = {settings(planned.trial) for planned in known.left} & samples.keys()
    return Hours(
        machine,
        sum(low for _, low, _ in spans) / HOUR_S,
        sum(high for _, _, high in spans) / HOUR_S,
        sum(len(samples[one]) for one in used),
        counts[SAME],
        counts[OTHER],
        counts[UNKNOWN],
    )


def _span(trial: Trial, share: float, samples: Samples) -> tuple[str, float, float]:
    """What a trial's seconds are taken from, and the least and the most of them."""
    if own := samples.get(settings(trial)):
        seconds = _of_same(trial, own, share)
        return SAME, seconds, seconds
    if rates := _rates(trial, samples):
        flops = share * training_flops(trial)
        return OTHER, flops / max(rates), flops / min(rates)
    return UNKNOWN, 0.0, 0.0


def _rates(trial: Trial, samples: Samples) -> list[float]:
    """FLOP/s of the records of the trial's backend and precision."""
    own = trial.backend, trial.train.precision
    return [one.rate for key, several in samples.items() if (key[1], key[3]) == own for one in several]


def _of_same(trial: Trial, samples: Sequence[Seconds], share: float) -> float:
    step_s = median(one.step for one in samples)
    example_s = median(one.example for one in samples)
    return median(one.compile for one in samples) + share * (
        trial.num_steps * step_s + num_evaluated(trial) * example_s
    )


def _bounds(known: Known) -> Iterator[Hours]:
    """What the trials that are left take at least, at the whole of each machine's ceiling; of a CPU, core-hours."""
    left: dict[str, float] = {}
    for planned in known.left:
        precision = planned.trial.train.precision
        left[precision] = left.get(precision, 0.0) + training_flops(planned.trial) * known.share_left(planned)
    for machine, gflops in ceilings.known(known.store).items():
        if left and left.keys() <= gflops.keys():
            least = sum(flops / (1e9 * gflops[precision]) for precision, flops in left.items()) / HOUR_S
            yield Hours(machine, least, least, precision=", ".join(sorted(left)))
