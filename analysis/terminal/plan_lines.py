"""Lines of a plan: what the grid costs, what it can show, and its trials."""

from collections.abc import Sequence

from analysis.planning import hours
from analysis.planning.cost import Cost, Disk, cost
from analysis.planning.hours import Hours
from analysis.planning.known import Known, training_flops
from analysis.table.layout import aligned
from analysis.terminal import fits_lines
from analysis.terminal.fits_lines import Memory
from analysis.terminal.listing import totals
from analysis.terminal.shows_lines import NOTHING, Asked, shows
from backends.errors import counted
from backends.models import folds
from experiments.design.ablation import GridTrial
from experiments.design.choice import combinations
from experiments.design.halving import stages_text
from experiments.running import fit, storage
from experiments.spec.expand import as_typed

MAX_TRIALS = 40  # that are listed, unless all are asked for
MAX_MACHINES = 3  # that have a line
MIB = 2**20
STEPS_OF_1000 = ("", "k", "M", "G", "T", "P", "E", "Z")


def lines(
    known: Known,
    asked: Asked = NOTHING,
    every: bool = False,
    rate: float | None = None,
    device: Memory | None = None,
) -> list[str]:
    """The summary, then the trials.

    Args: every: lists each trial, not only the first ones.    rate, device: see `summary`.
    """
    return [*summary(known, asked, rate, device), "", *listed(known, known.trials, every)]


def listed(known: Known, trials: Sequence[GridTrial], every: bool) -> list[str]:
    """A line a trial: id, state, settings, steps, parameters, GFLOP of one image's forward pass, memory at the peak."""
    chosen = trials if every else trials[:MAX_TRIALS]
    more = len(trials) - len(chosen)
    cut = [f"... and {counted(more, 'more trial')}; mixlab plan --all lists them"] if more else []
    return [*aligned([_HEADER, *(_row(known, planned) for planned in chosen)]), *cut]


def summary(known: Known, asked: Asked = NOTHING, rate: float | None = None, device: Memory | None = None) -> list[str]:
    """What there is to do, what it costs and what it can show.

    Args:   rate: FLOP/s that a device is told to sustain.    device: its memory, of which it is said what fits.
    Raises: MixlabError: asked.detect is a number that cannot be answered.
    """
    found = cost(known)
    rows = [
        *([("trials", [_tuned(known)])] if known.table and any(one.tunes for one in known.trials) else []),
        ("work", [_work(known, found), *_stages(known)]),
        ("time", [*_at_rate(found, rate), *_time(known)]),
        ("disk", [_disk(found.disk)]),
        ("memory", [*_memory(found), *_fitting(known, found, device)]),
        ("shows", shows(known, asked)),
    ]
    head = f"{known.ablation.name}: {totals([known.states[planned.trial.id].status for planned in known.trials])}"
    return [
        head,
        *(f"{name if not i else '':8}{text}".rstrip() for name, texts in rows for i, text in enumerate(texts)),
    ]


def _memory(found: Cost) -> list[str]:
    """The peak of the largest trial, and what pixels take of it that are read as it trains, whatever the data holds."""
    trial = found.largest.trial
    peak = f"{found.memory_bytes / MIB:,.0f} MiB at the peak of the largest, {_named(found.largest)}"
    if not fit.does_stream(trial):
        return [peak]
    lines = [peak, f"of it {fit.data_bytes(trial, streams=True) / MIB:,.0f} MiB of pixels, read ahead"]
    held = storage.held_bytes(trial) / MIB
    return [*lines, *([f"and {held:,.0f} MiB of images, in the memory of the host"] if held else [])]


def _fitting(known: Known, found: Cost, device: Memory | None) -> list[str]:
    """What fits into the memory of a device; without one, what fits here if the largest trial does not.

    Where nothing is left to train, it is said only if it is asked.
    """
    held = device or (Memory.here(found.largest.trial) if found.num_left else None)
    if held is None or (held.is_here and held.fits(found.largest.trial)):
        return []
    num_fit = sum(held.fits(planned.trial) for planned in known.whole)
    largest = max(known.whole, key=lambda planned: held.needed(planned.trial))
    told = f"{num_fit} of {counted(len(known.whole), 'trial')} fit as set into {held}, by estimate; the largest"
    return [f"{told} there, {_named(largest)}:", "", *fits_lines.lines(largest.trial, held), ""]


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
        f"{storage.needed_bytes(trial) / MIB:,.1f}",
    ]


def _named(planned: GridTrial) -> str:
    return f"{planned.trial.id} ({planned.label})" if planned.label else planned.trial.id


def _work(known: Known, found: Cost) -> str:
    whole = f"{prefixed(found.flops)}FLOP"
    if not found.num_left:
        return f"nothing is left; all was {whole} of training, in matrix products"
    of_all = "" if found.num_left == len(known.whole) else f", of {whole} of all"
    return f"{prefixed(found.flops_left)}FLOP of training are left, in matrix products{of_all}"


def _tuned(known: Known) -> str:
    """How many trials tune, and how many the table has, whether they are known or not."""
    parts = {"tuning": [planned for planned in known.whole if planned.tunes], "table": known.table}
    texts = []
    for name, trials in parts.items():
        work = prefixed(sum(training_flops(planned.trial) * known.share(planned) for planned in trials))
        texts.append(f"{name}: {counted(len(trials), 'trial')}, {work}FLOP")
    told = "; ".join(texts)
    if known.waiting:
        told += f", of which {len(known.waiting)} wait for the choice of their values"
    return told + ", counted at those that cost the most" * bool(known.waiting and known.costs_vary)


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


def _at_rate(found: Cost, rate: float | None) -> list[str]:
    """The hours of what is left at a rate that was told."""
    if rate is None or not found.num_left:
        return []
    told = duration(found.flops_left / rate / hours.HOUR_S)
    return [f"{told} at a sustained {prefixed(rate)}FLOP/s, as --rate says, one trial after another"]


def _time(known: Known) -> list[str]:
    if not known.left:
        return ["nothing is left"]
    found = hours.hours(known)
    if not found:
        measure = f"mixlab bench limit --store {as_typed(known.store.root)}"
        return [
            "not known: the store has neither a record on such a device nor its ceiling; train a trial of each model "
            f"(mixlab run FILE --only ID) or measure the machine ({measure})"
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
        (one.num_other, "guessed from the FLOP/s of other models there"),
        (one.num_unknown, "of another backend or precision left out"),
    ]
    told = [f"{counted(count, 'trial')} {how}" for count, how in parts if count]
    return f"{span} on {one.machine}, one trial after another: {', '.join(told)}"


def duration(hours_: float) -> str:
    """`1,234 h`, `3 min`, `12 s`."""
    for unit, seconds in (("h", 3600.0), ("min", 60.0)):
        if hours_ * 3600 >= seconds:
            number = hours_ * 3600 / seconds
            return f"{number:,.0f} {unit}" if number >= 100 else f"{number:.3g} {unit}"
    return f"{hours_ * 3600:.2g} s"


def _disk(disk: Disk) -> str:
    return (
        f"{_mib(disk.weights)} MiB of kept weights and {_mib(disk.results)} MiB of records to come, "
        f"{_mib(disk.data)} MiB of decoded data; {_mib(disk.running)} MiB of checkpoints for each trial that runs"
    )


def _mib(num_bytes: float) -> str:
    return f"{num_bytes / MIB:,.0f}" if num_bytes >= 10 * MIB else f"{num_bytes / MIB:,.2g}"
