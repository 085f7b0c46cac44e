"""Lines of a plan: what the seeds of the grid can tell apart."""

import math
from dataclasses import dataclass

from analysis import power
from analysis.planning import spread
from analysis.planning.known import Known
from analysis.planning.spread import Compared, Origin, Spread
from analysis.predictions import has_predictions
from backends.errors import MixlabError, counted
from experiments.results import metrics
from experiments.results.metrics import Metric


@dataclass(frozen=True)
class Asked:
    """What a reader tells and asks of what a grid can show; in the unit of the table, points for an accuracy.

    sd: the standard deviation over seeds of the metric of one setting.    detect: a difference.
    """

    sd: float | None = None
    detect: float | None = None


NOTHING = Asked()


def shows(known: Known, asked: Asked) -> list[str]:
    """What the seeds of the grid can tell apart, and by which spread.

    Raises: MixlabError: asked.detect is a number that cannot be answered.
    """
    found, (_, split, metric) = spread.compared(known), metrics.parse(known.ablation.report.metric)
    _check(asked, metric)
    spread_ = spread.told(asked.sd / metric.scale) if asked.sd is not None else None
    if found.least_seeds == 1 and asked.detect is None:
        return [_one_seed(known, found)]
    if found.num_settings and not spread_:
        spread_ = spread.from_store(known)
    if not found.num_settings or not spread_:
        why = _no_spread(known, metric) if found.num_settings else _NO_BASELINE
        if asked.detect is not None:
            raise MixlabError(f"command line: --detect: {why}")
        return [why]
    if not spread_.sd and not spread_.examples:
        return [f"not known: what is there of {spread.seen(known)} is the same at every seed"]
    level = power.first_step(found.num_settings)
    first = _detectable(found, spread_, level, metric) if found.least_seeds > 1 else _one_seed(known, found)
    answers = [first, *_origin(asked, spread_, metric, split)]
    if asked.detect is not None:
        answers.insert(1, _seeds(asked.detect, spread_, level, metric))
    return answers


def _check(asked: Asked, metric: Metric) -> None:
    """Raises: MixlabError: a number that no difference of this metric, and no deviation, can be."""
    most = metric.scale * metric.most
    for option, number in (("--sd", asked.sd), ("--detect", asked.detect)):
        if number is not None and number >= most:
            raise MixlabError(
                f"command line: {option}: expected less than {most:g} {_unit(metric)}, as two values of "
                f"{metric.name} differ by no more, got {number:g}"
            )


_NO_BASELINE = "no comparison: report.baseline names no setting that others are held against"


def _no_spread(known: Known, metric: Metric) -> str:
    give = f"give --sd, that of one setting in {_unit(metric)}"
    seen = metrics.parse(spread.seen(known)).split
    if seen == metrics.VALIDATION and not all(planned.trial.info.num_validation for planned in known.table):
        return (
            f"not known: test numbers are sealed until a report shows them, and without validation examples "
            f"(data.validation_fraction) there are no others to read a standard deviation from; {give}"
        )
    return f"not known without a standard deviation over seeds: {give}, or train two seeds of a setting"


def _unit(metric: Metric) -> str:
    return metric.difference_unit


def _one_seed(known: Known, found: Compared) -> str:
    """What a setting with one seed shows: see inference.crossed."""
    split, metric = metrics.parse(known.ablation.report.metric)[1:]
    seeds = "one seed" if found.most_seeds == 1 else f"1 to {found.most_seeds} seeds, of which one"
    if not has_predictions(known.ablation.report.metric):
        return f"{seeds}: no difference of {split} {metric.name} is tested, as one seed has no spread"
    told = f"a difference is tested over the {split} examples of this seed alone"
    return f"{seeds}: {told}; it says nothing of other seeds"


def _detectable(found: Compared, spread_: Spread, level: float, metric: Metric) -> str:
    n = found.least_seeds
    family = f"Holm's first step over {counted(found.num_settings, 'setting')}, level {100 * level:.4g} %"
    least = power.detectable_over(n, spread_.sd, level, spread_.error_of_examples)
    seeds = f"{n} seeds" if n == found.most_seeds else f"{n} to {found.most_seeds} seeds, of which {n}"
    if least > metric.most:
        return f"{seeds} show no difference, however large, with {100 * power.POWER:g} % power ({family})"
    return f"{seeds} show a difference of {_number(least, metric)} with {100 * power.POWER:g} % power ({family})"


def _seeds(detect: float, spread_: Spread, level: float, metric: Metric) -> str:
    n = power.seeds_for(detect / metric.scale, spread_.sd, level, spread_.error_of_examples)
    if n:
        return f"{n} seeds show a difference of {detect:g} {_unit(metric)}"
    if not spread_.examples:
        return f"more than {power.MOST_SEEDS:,} seeds show a difference of {detect:g} {_unit(metric)}"
    least = power.detectable(spread_.examples, math.inf, level)
    return (
        f"no number of seeds shows a difference of {detect:g} {_unit(metric)} on {spread_.num_examples:,} examples: "
        f"{_number(least, metric)} are the least"
    )


def _origin(asked: Asked, spread_: Spread, metric: Metric, split: str) -> list[str]:
    """What the spread is, and from what it is read. Args: split: of the table's metric."""
    sd = f"a difference has a standard deviation of {_number(spread_.sd, metric)} over seeds"
    if spread_.examples is None:
        fixed = f"; over seeds alone: the {split} examples are taken as fixed"
        return [f"{sd} ({_source(asked, spread_.origin)}){fixed}"]
    part = f"{spread_.num_examples:,} examples leave an error of {_number(spread_.examples, metric)}"
    return [f"{sd}; {part}, however many seeds", f"({_source(asked, spread_.origin)})"]


def _source(asked: Asked, origin: Origin | None) -> str:
    unrelated = "the root of 2 times that of one setting, as if the seeds of two were unrelated"
    if origin is None:
        return f"{unrelated}: {asked.sd:g}, taken from --sd"
    freedom = counted(origin.df, "degree") + " of freedom"
    trials = counted(origin.num_trials, "trial")
    if origin.num_examples:
        what = f"from the predictions of {trials} on {origin.num_examples:,} {origin.split} examples, {freedom}"
    else:
        what = f"from the {origin.split} numbers of {trials}, {freedom}"
    return what if origin.of_pairs else f"{unrelated}, {what}"


def _number(value: float, metric: Metric) -> str:
    """A difference with two digits that count."""
    scaled = metric.scale * value
    digits = max(0, 1 - math.floor(math.log10(abs(scaled)))) if scaled else 0
    return f"{scaled:.{digits}f} {_unit(metric)}"


def read(text: str, option: str, unit: str = "the table's unit, such as 0.4 points") -> float:
    """A positive number of the command line. Raises: MixlabError: it is none."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise MixlabError(f"command line: {option}: expected a number above 0 in {unit}, got {text!r}")
    return value
