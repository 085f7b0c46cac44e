"""What was tuned, and what was chosen, in words."""

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


def tuned_text(ablation: Ablation) -> str:
    """`Each setting was tuned over 5 values of learning rate by best.validation.accuracy.`, or that none was."""
    if ablation.tune is None:
        return "No setting was tuned."
    names = " and ".join(field_words(ablation, name) for name in ablation.tune.over)
    steps = [str(step) for step in ablation.tune.halving.steps] if ablation.tune.halving else []
    stages = f", halved at step{'s' * (len(steps) > 1)} {' and '.join(steps)}" if steps else ""
    count = len(combinations(ablation.tune))
    return f"Each setting was tuned over {count} values of {names} by {ablation.tune.by}{stages}."


def heading_text(ablation: Ablation) -> str:
    """The line above a table: what was tuned, over which values, and how; empty where nothing is tuned."""
    if ablation.tune is None:
        return ""
    over = ", ".join(
        f"{field_text(ablation, name)} of {', '.join(value_text(ablation, name, one) for one in tried)}"
        for name, tried in ablation.tune.over.items()
    )
    seeds = ", ".join(map(str, ablation.tune.seeds))
    how = f"{seeds}{_frameworks(ablation)}{_stages(ablation.tune)}"
    return f"tuned for each setting by the mean {ablation.tune.by} of seeds {how}: {over}"


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


def notes(ablation: Ablation, frame: pd.DataFrame) -> Iterator[str]:
    """The lines under a table: what was chosen for each setting, and how many trials wait for a choice."""
    if ablation.tune is None:
        return
    yield from dict.fromkeys(map(str, frame["tuning"]))
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
    num_values = len(combinations(ablation.tune))
    total = num_values * len(ablation.tune.seeds)
    if choice.chosen is None:
        return "; ".join(filter(None, (f"{where}{choice.why_not}", pruned_text(choice))))
    metric, mean = metrics.parse(ablation.tune.by).metric, choice.chosen.mean or 0.0
    scored = f"{ablation.tune.by} {metric.text(mean, more=1)} {metric.unit}"
    parts = [f"{where}{point_text(ablation, choice.chosen.value)} of {num_values} values, {scored}"]
    parts += [_edge(ablation, ablation.tune, name, value) for name, value in choice.chosen.value.items()]
    if failed := sum(one.num_failed for one in (*choice.tried, *choice.pruned)):
        parts.append(f"{failed} of {total} tuning trials diverged, which counts as worst")
    parts.append(pruned_text(choice))
    return "; ".join(filter(None, parts))


def pruned_text(choice: Choice) -> str:
    """`2 pruned at step 100, 1 pruned at step 300`; empty where none is."""
    numbers = Counter(one.step for one in choice.pruned)
    return ", ".join(f"{number} pruned at step {step}" for step, number in numbers.items())


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
