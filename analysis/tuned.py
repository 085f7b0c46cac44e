"""What was tuned, and what was chosen, in words."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from analysis.labels import field_text, field_words, setting_text, value_text
from experiments.design import tune
from experiments.design.ablation import Ablation, GridTrial
from experiments.design.axes import Point
from experiments.design.choice import Choice, combinations, key
from experiments.design.halving import stages_text
from experiments.design.report_spec import BACKEND
from experiments.design.tune_spec import TuneSpec
from experiments.results import metrics
from experiments.results.store import Store
from experiments.spec import fields, values
from experiments.spec.fields import text

LEAST_FOLDED = 3  # settings whose notes are one line, where that says what theirs do


def tuned_text(ablation: Ablation, choices: Sequence[Choice] = ()) -> str:
    """`Each setting was tuned over 5 values of learning rate by best.validation.accuracy.`, or that none was.

    Where a range was too narrow: `...; the chosen value is at the edge of the range for 2 of 12.`
    """
    if ablation.tune is None:
        return "No setting was tuned."
    names = " and ".join(field_words(ablation, name) for name in ablation.tune.over)
    steps = [str(step) for step in ablation.tune.halving.steps] if ablation.tune.halving else []
    stages = f", halved at step{'s' * (len(steps) > 1)} {' and '.join(steps)}" if steps else ""
    count = len(combinations(ablation.tune))
    edges = _at_edge_text(ablation, choices)
    return f"Each setting was tuned over {count} values of {names} by {ablation.tune.by}{stages}{edges}."


def _at_edge_text(ablation: Ablation, choices: Sequence[Choice]) -> str:
    """For how many settings a range was too narrow to hold the best; empty where for none."""
    chosen = [choice.chosen.value for choice in choices if choice.chosen]
    num_at_edge = sum(any(_edges(ablation, value)) for value in chosen)
    return f"; the chosen value is at the edge of the range for {num_at_edge} of {len(chosen)}" if num_at_edge else ""


def heading_text(ablation: Ablation) -> str:
    """The line above a table: what was tuned, over which values, and how; empty where nothing is tuned."""
    if ablation.tune is None:
        return ""
    over = ", ".join(
        f"{field_text(ablation, name)} of {', '.join(value_text(ablation, name, one) for one in tried)}"
        for name, tried in ablation.tune.over.items()
    )
    seeds = ", ".join(map(str, ablation.tune.seeds))
    by = f"the mean {ablation.tune.by} of seeds" if len(ablation.tune.seeds) > 1 else f"{ablation.tune.by} of seed"
    how = f"{seeds}{_frameworks(ablation)}{_stages(ablation.tune)}"
    return f"tuned for each setting by {by} {how}: {over}"


def _stages(tuned: TuneSpec) -> str:
    """How many values each stage of halving trains, and how far; empty where there is none."""
    if tuned.halving is None:
        return ""
    return f", by halving ({stages_text(tuned.halving, len(combinations(tuned)))})"


def _frameworks(ablation: Ablation) -> str:
    """How the frameworks of a table share a choice; empty where there is one."""
    own = list(dict.fromkeys(str(point.get(BACKEND)) for point in ablation.points))
    if len(own) < 2 or ablation.tune is None:
        return ""
    return ", each framework apart" if ablation.tune.each else f" on {own[0]}, whose value the others take"


def texts(ablation: Ablation, trials: Sequence[GridTrial], store: Store) -> dict[str, str]:
    """The choice that each trial of the table is trained at, in words, by id. Args: trials: those that tune too."""
    by_setting = {
        key(choice.setting.point): choice_text(ablation, choice) for choice in tune.choose(ablation, trials, store)
    }
    table = [planned for planned in trials if by_setting and not planned.tunes]
    return {planned.trial.id: by_setting[key(tune.setting_of(ablation, planned.settings))] for planned in table}


def notes(ablation: Ablation, frame: pd.DataFrame, choices: Sequence[Choice]) -> Iterator[str]:
    """The lines under a table: what was chosen for each setting, and how many trials wait for a choice.

    Args: choices: of all settings; none: they are not known, and no lines are folded.
    """
    if ablation.tune is None:
        return
    folded = folded_text(ablation, choices)
    yield from [folded] if folded else dict.fromkeys(map(str, frame["tuning"]))
    if waiting := len(ablation.points) - len(frame):
        yield (
            f"{waiting} of {len(ablation.points)} trials of the table are not in it: no value is chosen for them; "
            f"mixlab status {ablation.name} says why"
        )


def point_text(ablation: Ablation, point: Point) -> str:
    """`token_mixing=tied num_blocks=2`."""
    return " ".join(setting_text(ablation, name, value) for name, value in point.items())


def choice_text(ablation: Ablation, choice: Choice) -> str:
    """`token_mixing=tied: learning_rate=0.01 of 5 values, best.validation.accuracy 95.2 %`, and what to know of it."""
    assert ablation.tune is not None
    where = f"{words}: " if (words := point_text(ablation, choice.setting.told)) else ""
    if choice.chosen is None:
        return "; ".join(filter(None, (f"{where}{choice.why_not}", pruned_text(choice))))
    parts = [f"{where}{_chosen_text(ablation, [choice])}", *_edges(ablation, choice.chosen.value)]
    return "; ".join(filter(None, (*parts, _failed_text(ablation, [choice]), pruned_text(choice))))


def folded_text(ablation: Ablation, choices: Sequence[Choice]) -> str:
    """One line for all settings, where they chose the same value, or each one at an edge; empty where it would not do.

    `all 12 settings: learning_rate=0.01 of 3 values, best.validation.accuracy 71.88 to 90.28 %; learning_rate is at the
    edge of its range: 0.01 of 0.001..0.01; widen it`
    """
    chosen = {key(choice.chosen.value): choice.chosen.value for choice in choices if choice.chosen}
    if ablation.tune is None or len(choices) < LEAST_FOLDED or not all(choice.chosen for choice in choices):
        return ""
    edges = [_edges(ablation, value) for value in chosen.values()]
    if len(chosen) > 1 and not all(edges):
        return ""
    told = dict.fromkeys(itertools.chain.from_iterable(edges))
    parts = [f"all {len(choices)} settings: {_chosen_text(ablation, choices)}", *told]
    return "; ".join(filter(None, (*parts, _failed_text(ablation, choices), pruned_text(*choices))))


def _chosen_text(ablation: Ablation, choices: Sequence[Choice]) -> str:
    """`learning_rate=0.01 of 3 values, best.validation.accuracy 95.21 %`; of several settings, who chose what."""
    assert ablation.tune is not None
    metric, chose = metrics.parse(ablation.tune.by).metric, dict[str, list[str]]()
    for choice in choices:
        assert choice.chosen is not None
        chose.setdefault(point_text(ablation, choice.chosen.value), []).append(
            point_text(ablation, choice.setting.told)
        )
    named = [f"{value} ({', '.join(settings)})" if len(chose) > 1 else value for value, settings in chose.items()]
    means = sorted(choice.chosen.mean or 0.0 for choice in choices if choice.chosen)
    scores = " to ".join(dict.fromkeys(metric.text(mean, more=1) for mean in (means[0], means[-1])))
    num_values = len(combinations(ablation.tune))
    return f"{', '.join(named)} of {num_values} values, {ablation.tune.by} {scores} {metric.unit}"


def _failed_text(ablation: Ablation, choices: Sequence[Choice]) -> str:
    """How many trials that tune diverged; empty where none has."""
    assert ablation.tune is not None
    total = len(choices) * len(combinations(ablation.tune)) * len(ablation.tune.seeds)
    failed = sum(one.num_failed for choice in choices for one in (*choice.tried, *choice.pruned))
    return f"{failed} of {total} tuning trials diverged, which counts as worst" if failed else ""


def pruned_text(*choices: Choice) -> str:
    """`2 pruned at step 100, 1 pruned at step 300`; empty where none is."""
    numbers = Counter(one.step for choice in choices for one in choice.pruned)
    return ", ".join(f"{number} pruned at step {step}" for step, number in numbers.items())


def _edges(ablation: Ablation, value: Point) -> list[str]:
    """The warnings of `_edge` on a chosen value."""
    assert ablation.tune is not None
    edges = (_edge(ablation, ablation.tune, name, one) for name, one in value.items())
    return [edge for edge in edges if edge]


def _edge(ablation: Ablation, tuned: TuneSpec, name: str, value: Any) -> str:
    """The warning that the best of the numbers is the first or the last; empty where it is not, or none lie beyond."""
    tried = tuned.over[name]
    if not all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in tried):
        return ""
    ends = (min(tried), max(tried))
    if value not in ends or value == values.bounds(*fields.holder(name))[ends.index(value)]:
        return ""
    at_edge = f"at the edge of its range: {text(value)} of {text(ends[0])}..{text(ends[1])}"
    return f"{field_text(ablation, name)} is {at_edge}; widen it"
