"""What a grid can show: its compared settings, their seeds, and how far a difference scatters.

A spread is no result: it does not tell which setting is ahead. All the same a plan keeps test numbers sealed: until a
report of the ablation has shown them, the spread of a metric of test is that of the same metric of validation. Where
predictions are kept it is taken apart into what seeds, examples and both bring, and put together again for as many
examples as the test split has.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from analysis import settings, variance
from analysis.planning import pairs
from analysis.planning.known import Known
from analysis.planning.pairs import Sample, Samples
from analysis.predictions import reader
from analysis.variance import Parts
from experiments.results import metrics, unsealed

ROOT_2 = math.sqrt(2)  # of two settings whose seeds are taken as unrelated the variances add up


@dataclass(frozen=True)
class Origin:
    """What of the store a spread is read from."""

    num_trials: int
    df: int  # of a sum of squares over their seeds
    of_pairs: bool  # of differences at equal seeds; else of single settings, times the root of 2
    split: str
    num_examples: int  # of that split, that these predict; 0: there are no predictions


@dataclass(frozen=True)
class Spread:
    """How far the difference of two settings scatters, in the unit of records."""

    sd: float  # over seeds
    examples: float | None = None  # standard error that the grid's examples leave; None: they are taken as fixed
    num_examples: int = 0  # that the grid has
    origin: Origin | None = None  # None: it was told

    @property
    def error_of_examples(self) -> float:
        return self.examples or 0.0


@dataclass(frozen=True)
class Compared:
    """The comparisons of a table: how many settings are held against a baseline, over how many seeds."""

    num_settings: int
    least_seeds: int
    most_seeds: int


def compared(known: Known) -> Compared:
    """The comparisons that the grid has when all of its trials are done."""
    planned = pairs.cells(known, dict.fromkeys((one.trial.id for one in known.table), 0.0))
    counts = [len(settings.averaged([(one.baseline, one.own) for one in group])[0]) for group in planned.values()]
    return Compared(len(counts), min(counts, default=0), max(counts, default=0))


def told(sd: float) -> Spread:
    """The spread of a difference, from the standard deviation over seeds of the metric of one setting."""
    return Spread(ROOT_2 * sd)


def seen(known: Known) -> str:
    """The metric that the spread is read by: that of the table, of validation where test numbers are sealed."""
    metric = known.ablation.report.metric
    contents = {planned.trial.info.content for planned in known.table}
    return metric if unsealed.has_shown(known.store, known.ablation.name, contents) else metrics.sealed(metric)


def from_store(known: Known) -> Spread | None:
    """The spread that the store shows; None without two seeds of anything that is like the grid.

    First from the grid's own pairs of a setting and its baseline at equal seeds, their frameworks averaged; then from
    such pairs of other trainings of the same models on the same data. Else from single settings of these: what examples
    bring to a difference they do not tell.
    """
    metric = seen(known)
    found = Samples(known, metric, reader(known.store, metric))
    for samples, of_pairs in ((found.own, True), (found.of_others, True), (found.alone, False)):
        if spread := _spread(known, [one for one in samples() if len(one.numbers) > 1], of_pairs):
            return spread
    return None


def _spread(known: Known, samples: Sequence[Sample], of_pairs: bool) -> Spread | None:
    """The spread that samples of two seeds or more show together: by example of those that have predictions, if any."""
    if not samples:
        return None
    split, factor = metrics.parse(seen(known)).split, 1.0 if of_pairs else ROOT_2
    estimates = list(_estimates(samples))
    trials = {trial for sample, _, _ in estimates for trial in sample.trials}
    if not estimates:
        sd, df = _pooled([one.numbers for one in samples])
        trials = {trial for one in samples for trial in one.trials}
        return Spread(factor * sd, origin=Origin(len(trials), df, of_pairs, split, 0))
    found, num = variance.pooled([one for _, one, _ in estimates]), num_examples(known)
    origin = Origin(len(trials), found.df, of_pairs, split, max(size for *_, size in estimates))
    return Spread(factor * found.of_seeds(num), found.of_examples(num) if of_pairs else None, num, origin)


def _estimates(samples: Sequence[Sample]) -> Iterator[tuple[Sample, Parts, int]]:
    """Of each sample with predictions the parts of its variance, and the number of examples."""
    for sample in samples:
        table = sample.by_example()
        if table is not None:
            yield sample, Parts.of(table), table.shape[1]


def num_examples(known: Known) -> int:
    """The fewest examples that a trial of the table is measured on."""
    split = metrics.parse(known.ablation.report.metric).split
    return min(int(getattr(planned.trial.info, f"num_{split}")) for planned in known.table)


def _pooled(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """The standard deviation within groups of two or more, and its degrees of freedom."""
    squares, df = 0.0, 0
    for group in groups:
        mean = math.fsum(group) / len(group)
        squares += math.fsum((x - mean) ** 2 for x in group)
        df += len(group) - 1
    return math.sqrt(squares / df), df
