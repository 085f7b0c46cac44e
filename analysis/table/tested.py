"""Words of the tests of a table: what their intervals are over, and how."""

import math
from collections.abc import Iterator, Set

from analysis import settings
from analysis.inference import ALPHA, LEVEL, ROUNDING, Paired
from analysis.labels import Label, Row, Rows, label_text
from analysis.settings import EXAMPLES, FRAMEWORK, SEEDS, SEEDS_AND_EXAMPLES, Tested
from backends.errors import counted
from experiments.design.ablation import Ablation
from experiments.results import metrics

FEW = 5  # seeds, below which a sentence says that they are few


def test_text(ablation: Ablation, rows: Rows) -> str:
    """The test of the settings: `paired t-test over seeds`."""
    return kind_text({cell["over"] for cell in _tested(ablation, rows).values()}, split_of(ablation))


def split_of(ablation: Ablation) -> str:
    """The split whose examples the table is of."""
    return metrics.parse(ablation.report.metric).split


def kind_text(kinds: Set[str], split: str) -> str:
    """The test of settings whose intervals are over these kinds of things."""
    names = {SEEDS: "paired t-test over seeds", EXAMPLES: f"paired t-test over {split} examples"}
    both = f"test over seeds and {split} examples"
    return names.get(next(iter(kinds), SEEDS), both) if len(kinds) < 2 else both


def over_text(ablation: Ablation, cell: Row) -> str:
    """What an interval is over: `3 seeds and 360 test examples`; empty where there is none."""
    seeds, examples = counted(cell["setting_pairs"], "seed"), f"{cell['examples']:,} {split_of(ablation)} examples"
    texts = {SEEDS: seeds, EXAMPLES: f"{examples} of one seed", SEEDS_AND_EXAMPLES: f"{seeds} and {examples}"}
    return texts.get(cell["over"], "")


def number_text(one: Tested, split: str, alone: int = 0) -> str:
    """`n = 3 seeds and 360 test examples (few seeds: the interval is ±3.6 standard errors)`.

    Args: split: of the examples.    alone: seeds of a mean whose seeds have no pairs.
    """
    found, n = one.paired, one.paired.n or alone
    if one.over == EXAMPLES:
        return f"n = 1 seed (the interval is over {found.num_examples:,} {split} examples alone)"
    few = f" (few seeds: the interval is ±{found.factor(1 - found.level):.1f} standard errors)"
    return f"{count_text(one, split, alone)}{few if one.over and n < FEW else ''}"


def count_text(one: Tested, split: str, alone: int = 0) -> str:
    """`n = 3 seeds and 360 test examples`. Args: as of `number_text`."""
    found = one.paired
    examples = f" and {found.num_examples:,} {split} examples" if one.over == SEEDS_AND_EXAMPLES else ""
    return f"n = {counted(found.n or alone, 'seed')}{examples}"


def verdict_text(one: Tested) -> str:
    """`distinguishable`, `not distinguishable at this seed`, `not tested, since one seed has no spread`."""
    if not one.over:
        return f"not tested, since {_why_not_tested(one.paired)}"
    told = "distinguishable" if one.p_holm < ALPHA else "not distinguishable"
    return f"{told}{' at this seed' if one.over == EXAMPLES else ''}"


def _why_not_tested(found: Paired) -> str:
    if not found.n:
        return "no seed is done on both sides"
    return "one seed has no spread" if found.n == 1 else f"all {found.n} seeds give the same difference"


def over_texts(ablation: Ablation, rows: Rows) -> Iterator[str]:
    """Notes on what the intervals of the differences are over; names the settings where there are several kinds."""
    by_kind: dict[str, list[Label]] = {}
    for label, cell in _tested(ablation, rows).items():
        by_kind.setdefault(cell["over"], []).append(label)
    for kind, labels in by_kind.items():
        where = ", ".join(label_text(ablation, label, without=FRAMEWORK) for label in labels)
        what = where if len(by_kind) > 1 and where else "Differences"
        yield f"{what}: interval and test are {_meaning(ablation, kind)}."


def _meaning(ablation: Ablation, kind: str) -> str:
    split = split_of(ablation)
    if kind == SEEDS:
        return f"over seeds alone; the {split} examples are taken as fixed"
    if kind == EXAMPLES:
        return f"of one seed, over the {split} examples alone, and say nothing of other seeds"
    return f"over seeds and {split} examples, both as samples of many (crossed random effects)"


def _tested(ablation: Ablation, rows: Rows) -> Rows:
    return {label: cell for label, cell in settings.rows_of(ablation, rows).items() if not math.isnan(cell["p"])}


def other_level_text(level: float) -> str:
    """` (98.3 %)`, behind an interval; empty where its level is that of all."""
    return f" ({100 * level:.3g} %)" if abs(level - LEVEL) > ROUNDING else ""
