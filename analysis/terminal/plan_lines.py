"""Lines of a plan: what the grid costs, what it can show, and its trials."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analysis import power
from analysis.planning import hours, spread
from analysis.planning.cost import Cost, Disk, cost
from analysis.planning.hours import Hours
from analysis.planning.known import Known
from analysis.planning.spread import Compared, Spread
from analysis.table.layout import aligned
from analysis.terminal.listing import totals
from backends.errors import MixlabError
from backends.models import folds
from experiments.data.words import counted
from experiments.design.ablation import GridTrial
from experiments.design.choice import combinations
from experiments.design.halving import stages_text
from experiments.results import metrics
from experiments.results.metrics import Metric
from experiments.running import fit
from experiments.spec.expand import as_typed

MAX_TRIALS = 40  # that are listed, unless all are asked for
MAX_MACHINES = 3  # that have a line
MIB = 2**20
STEPS_OF_1000 = ("", "k", "M", "G", "T", "P", "E", "Z")


@dataclass(frozen=True)
class Asked:
    """What a reader tells and asks of what a grid can show; in the unit of the table, points for an accuracy.

    sd: the standard deviation over seeds of the metric of one setting.    detect: a difference.
    """

    sd: float | None = None
    detect: float | None = None


def lines(known: Known, asked: Asked = Asked(), every: bool = False) -> list[str]:
    """The summary, then the trials. Args: every: lists each trial, not only the first ones."""
    return [*summary(known, asked), "", *listed(known, known.trials, every)]


def listed(known: Known, trials: Sequence[GridTrial], every: bool) -> list[str]:
    """A line a trial: id, state, settings, steps, parameters, GFLOP of one image's forward pass, memory at the peak."""
    chosen = trials if every else trials[:MAX_TRIALS]
    more = len(trials) - len(chosen)
    cut = [f"... and {counted(more, 'more trial')}; mixlab plan --all lists them"] if more else []
    return [*aligned([_HEADER, *(_row(known, planned) for planned in chosen)]), *cut]


def summary(known: Known, asked: Asked = Asked()) -> list[str]:
    """What there is to do, what it costs and what it can show.

    Raises: MixlabError: asked.detect is a number that cannot be answered.
    """
    found = cost(known)
    rows = [
        ("work", [_work(known, found), *_stages(known)]),
        ("time", _time(known)),
        ("disk", [_disk(found.disk)]),
        ("memory", [f"{found.memory_bytes / MIB:,.0f} MiB at the peak of the largest, {_named(found.largest)}"]),
        ("shows", _shows(known, asked)),
    ]
    head = f"{known.ablation.name}: {totals([known.states[planned.trial.id].status for planned in known.trials])}"
    return [head, *(f"{name if not i else '':8}{text}" for name, texts in rows for i, text in enumerate(texts))]


_HEADER = ["id", "state", "settings", "steps", "parameters", "GFLOP/image", "memory MiB"]


def _row(known: Known, planned: GridTrial) -> list[str]:
    trial = planned.trial
    return [
        trial.id,
        known.states[trial.id].status,
        planned.label,
        str(trial.num_steps),
        f"{folds.count(trial.model):,}",
        f"{2 * folds.forward_macs(trial.model) / 1e9:.4g}",
        f"{fit.needed_bytes(trial) / MIB:,.1f}",
    ]


def _named(planned: GridTrial) -> str:
    return f"{planned.trial.id} ({planned.label})" if planned.label else planned.trial.id


def _work(known: Known, found: Cost) -> str:
    whole = f"{prefixed(found.flops)}FLOP"
    if not found.num_left:
        return f"nothing is left; all was {whole} of training, in matrix products"
    of_all = "" if found.num_left == len(known.trials) else f", of {whole} of all"
    return f"{prefixed(found.flops_left)}FLOP of training are left, in matrix products{of_all}"


def _stages(known: Known) -> list[str]:
    """What halving trains of each setting."""
    tuned = known.ablation.tune
    if tuned is None or tuned.halving is None:
        return []
    told = stages_text(tuned.halving, len(combinations(tuned)))
    return [f"tuning counts by the stages of halving: of each setting {told}"]


def prefixed(number: float) -> str:
    """`4.36 T`, before a unit."""
    power_of_1000 = 0
    while number >= 999.5 and power_of_1000 < len(STEPS_OF_1000) - 1:
        number, power_of_1000 = number / 1000, power_of_1000 + 1
    return f"{number:.3g} {STEPS_OF_1000[power_of_1000]}"


def _time(known: Known) -> list[str]:
    if not known.left:
        return ["nothing is left"]
    found = hours.hours(known)
    if not found:
        return [
            "not known: the store has neither a record on such a device nor its ceiling; train one trial of each model "
            f"(mixlab run --only ID), or measure the machine (mixlab bench limit --store {as_typed(known.store.root)})"
        ]
    more = [f"and on {counted(len(found) - MAX_MACHINES, 'more machine')}"] if len(found) > MAX_MACHINES else []
    return [*map(_hours, found[:MAX_MACHINES]), *more]


def _hours(one: Hours) -> str:
    if one.precision:
        return (
            f"at least {duration(one.low)} (of a CPU, of one core) at the whole {one.precision} ceiling of "
            f"{one.machine}, as no record says what share of it is reached"
        )
    span = duration(one.low) if one.low == one.high else f"{duration(one.low)} to {duration(one.high)}"
    parts = [
        (one.num_same, f"by {counted(one.num_records, 'record')} of the same model"),
        (one.num_other, "by the FLOP/s of other models there"),
        (one.num_unknown, "of another backend or precision left out"),
    ]
    told = [f"{counted(count, 'trial')} {how}" for count, how in parts if count]
    return f"{span} on {one.machine}, one trial after another: {', '.join(told)}"


def duration(hours_: float) -> str:
    """`0.21 h`, `3 min`, `12 s`."""
    for unit, seconds in (("h", 3600.0), ("min", 60.0)):
        if hours_ * 3600 >= seconds:
            return f"{hours_ * 3600 / seconds:,.3g} {unit}"
    return f"{hours_ * 3600:.2g} s"


def _disk(disk: Disk) -> str:
    return (
        f"{_mib(disk.weights)} MiB of kept weights and {_mib(disk.results)} MiB of records to come, "
        f"{_mib(disk.data)} MiB of decoded data; {_mib(disk.running)} MiB of checkpoints for each trial that runs"
    )


def _mib(num_bytes: float) -> str:
    return f"{num_bytes / MIB:,.0f}" if num_bytes >= 10 * MIB else f"{num_bytes / MIB:,.2g}"


def _shows(known: Known, asked: Asked) -> list[str]:
    """What the seeds of the grid can tell apart."""
    found, metric = spread.compared(known), metrics.parse(known.ablation.report.metric).metric
    if not found.num_settings:
        if asked.detect is not None:
            raise MixlabError(f"command line: --detect: {_NO_BASELINE}")
        return [_NO_BASELINE]
    spread_ = spread.told(asked.sd / metric.scale) if asked.sd is not None else spread.from_store(known)
    if spread_ is None:
        if asked.detect is not None:
            raise MixlabError(f"command line: --detect: {_no_spread(metric)}")
        return [_no_spread(metric)]
    if not spread_.sd:
        return [f"not known: what is there of {known.ablation.report.metric} is the same at every seed"]
    level = power.first_step(found.num_settings)
    answers = [_detectable(found, spread_, level, metric), _origin(asked, spread_, metric)]
    if asked.detect is not None:
        answers.insert(1, _seeds(asked.detect, spread_, level, metric))
    return answers


_NO_BASELINE = "no comparison: report.baseline names no setting that others are held against"


def _no_spread(metric: Metric) -> str:
    return (
        f"not known without a standard deviation over seeds: give --sd, that of one setting in {_unit(metric)}, or "
        f"train two seeds of a setting"
    )


def _unit(metric: Metric) -> str:
    return metric.difference_unit


def _detectable(found: Compared, spread_: Spread, level: float, metric: Metric) -> str:
    n = found.least_seeds
    family = f"Holm's first step over {counted(found.num_settings, 'setting')}, level {100 * level:.4g} %"
    if n < 2:
        return "nothing with one seed of a setting: without a spread no difference is tested"
    least = power.detectable_over(n, spread_.sd, level)
    seeds = f"{n} seeds" if n == found.most_seeds else f"{n} to {found.most_seeds} seeds, of which {n}"
    return f"{seeds} show a difference of {_number(least, metric)} with {100 * power.POWER:g} % power ({family})"


def _seeds(detect: float, spread_: Spread, level: float, metric: Metric) -> str:
    n = power.seeds_for(detect / metric.scale, spread_.sd, level)
    needed = f"{n} seeds" if n else f"more than {power.MOST_SEEDS:,} seeds"
    return f"{needed} show a difference of {detect:g} {_unit(metric)}"


def _origin(asked: Asked, spread_: Spread, metric: Metric) -> str:
    sd = f"a difference has a standard deviation of {_number(spread_.sd, metric)} over seeds"
    unrelated = "the root of 2 times that of one setting, as if the seeds of two were unrelated"
    if asked.sd is not None:
        origin = f"{unrelated}: {asked.sd:g}, taken from --sd"
    elif spread_.of_pairs:
        origin = f"from the pairs in the store, {_freedom(spread_)}"
    else:
        origin = f"{unrelated}, from records of the same data and model in the store, {_freedom(spread_)}"
    return f"{sd} ({origin}); the test examples are taken as fixed"


def _freedom(spread_: Spread) -> str:
    return counted(spread_.df, "degree") + " of freedom"


def _number(value: float, metric: Metric) -> str:
    """A difference with two digits that count."""
    scaled = metric.scale * value
    digits = max(0, 1 - math.floor(math.log10(abs(scaled)))) if scaled else 0
    return f"{scaled:.{digits}f} {_unit(metric)}"


def read(text: str, option: str) -> float:
    """A positive number of the command line. Raises: MixlabError: it is none."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise MixlabError(
            f"command line: {option}: expected a number above 0 in the table's unit, such as 0.4 points, got {text!r}"
        )
    return value
