"""The cells of an ablation's table: what their trials say, and how each differs from the baseline."""

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis import inference, origins, settings
from analysis.equivalence import Equivalence, equivalence
from analysis.frame import objects
from analysis.groups import COST, Group, groups_of
from analysis.inference import LEVEL, Paired
from analysis.labels import Label, baseline_of, keys
from analysis.predictions import Reader, nothing
from analysis.settings import FRAMEWORK, Compared, Tested
from experiments.design.ablation import Ablation
from experiments.results.metrics import SECONDS

STATES = ("failed", "running", "missing")
NAN = math.nan


@dataclass(frozen=True)
class Options:
    """The choices in making cells from trials."""

    interval: str = "t"  # of means: t or bootstrap, see inference.summary; that of a difference belongs to its test
    mix_commits: bool = False  # whether a cell may average over trials of several commits of the project
    equivalence_of: str = ""  # the metric that the YAML tests equivalence in, where the table is of another one


def cells(
    ablation: Ablation,
    frame: pd.DataFrame,
    options: Options = Options(),
    read: Reader = nothing,
) -> pd.DataFrame:
    """A row for each cell of the table, in the order of the grid. The metric and its differences are as in records.

    Columns: the fields of report.rows and report.columns; n, the trials that are done; planned; failed; running;
    missing: a trial that is not done counts in its own column and never in a mean. Of the metric over the n: mean, std
    (n - 1 in the denominator), low and high of its 95 % interval, least, median, most. Against the baseline, over pairs
    of seeds, of this cell alone and without a correction: difference, difference_low, difference_high, effect_size
    (Cohen's d_z), p, pairs. Where no seeds pair, difference is that of the means. What is tested is a setting, a cell
    without its framework (backend), as settings.tests says: setting_difference, setting_low, setting_high, setting_p,
    setting_pairs, setting_error (standard error), setting_seeds_share (of its square), of its frameworks averaged seed
    by seed; frameworks: which. over: what interval and p are over: seeds and examples, seeds (the test examples are
    taken as fixed), or examples (of one seed); examples: how many; level: of the interval, which leaves out 0 exactly
    where p_holm is below 0.05; p_holm: p corrected for the number of settings that are tested. These are the same in
    all cells of a setting. interim: the trials of the whole grid that have not ended; while there are any, no * is set.
    Where the table tells no frameworks apart, a setting is a cell. Where the YAML asks for equivalence: equivalence_p,
    of the two one-sided tests against the first value of its field over paired seeds, equivalence_n, the number of
    pairs, equivalence_largest and equivalence_kind, see equivalence.Equivalence. parameters, training_flops,
    images_per_s, peak_share, seconds (of training), steps: means over the n; accelerator_hours: the sum, with compiling
    and evaluating. commits: of its trials; environments: their devices with threads, processors, packages, Pythons,
    replicas; dirty: how many ran with uncommitted changes; unlike: whether commits or environments differ from the
    baseline's.
    NaN: there is no such number, as with n = 1 for std; never a number over fewer trials than n, and never over several
    commits, unless options.mix_commits.

    Args: read: the predictions of the trials that are compared; without, all tests are over seeds alone.
    """
    groups = groups_of(ablation, frame)
    made = [_row(ablation, label, group, options) for label, group in groups.items()]
    table = pd.DataFrame(made)
    table = table.assign(
        **{name: objects(row[name] for row in made) for name in (*keys(ablation), "commits", "environments")}
    )
    table = table.assign(**_differences(ablation, groups, table, read))
    origins_of = dict(zip(groups, zip(table["commits"], table["environments"], strict=True), strict=True))
    table["interim"] = int(table[["missing", "running"]].to_numpy().sum())
    table["unlike"] = [_is_unlike(ablation, origins_of, label) for label in groups]
    if ablation.report.equivalence:
        mixed = {label for label, row in zip(groups, made, strict=True) if is_mixed(row["commits"], options)}
        tests = list(_equivalences(ablation, groups, mixed))
        for name in ("p", "n", "largest", "kind"):
            table[f"equivalence_{name}"] = [getattr(one, name) for one in tests]
    return table


def _row(ablation: Ablation, label: Label, group: Group, options: Options) -> dict[str, Any]:
    """The columns of one cell that need no other cell."""
    commits = origins.commits(group.done)
    mixed = is_mixed(commits, options)
    numbers = np.full(group.n, NAN) if mixed else group.numbers(ablation.report.metric)
    summary = inference.summary(numbers, options.interval)
    return {
        **dict(zip(keys(ablation), label, strict=True)),
        "n": group.n,
        "planned": group.states.total(),
        **{state: group.states[state] for state in STATES},
        **{name: value for name, value in asdict(summary).items() if name != "n"},
        **_cost(group, mixed),
        "commits": commits,
        "environments": origins.environments(group.done),
        "dirty": sum(bool(value) for value in group.done.get("dirty", ()) if not pd.isna(value)),
    }


def is_mixed(commits: Sequence[str], options: Options) -> bool:
    """Tell whether a cell's trials ran under several commits of the project, and must not be averaged."""
    return len(commits) > 1 and not options.mix_commits


def _differences(
    ablation: Ablation, groups: Mapping[Label, Group], table: pd.DataFrame, read: Reader
) -> dict[str, list[Any]]:
    """The columns that hold a cell, and its setting, against the baseline."""
    sides = _compared(ablation, groups, table)
    tested = settings.tests(list(sides.values()), read)
    nothing = Tested(Paired(0), (), NAN)
    cells, of_settings = [], []
    for label in groups:
        one = sides.get(label)
        pairs = _of_cell(one, tested[one.setting], read) if one else Paired(0)
        cells.append(pairs if pairs.n or one is None else Paired(0, one.difference))
        of_settings.append(tested[one.setting] if one else nothing)
    columns = {name: [getattr(cell, name) for cell in cells] for name in ("difference", "effect_size", "p")}
    columns |= {f"difference_{end}": [getattr(cell, end) for cell in cells] for end in ("low", "high")}
    columns["pairs"] = [cell.n for cell in cells]
    columns["p_holm"] = [one.p_holm if cell.n else NAN for cell, one in zip(cells, of_settings, strict=True)]
    for name in ("difference", "low", "high", "p", "error", "seeds_share"):
        columns[f"setting_{name}"] = [getattr(one.paired, name) for one in of_settings]
    columns["setting_pairs"] = [one.paired.n for one in of_settings]
    columns["frameworks"] = [" ".join(one.frameworks) for one in of_settings]
    columns["over"] = [one.over for one in of_settings]
    columns["examples"] = [one.paired.num_examples for one in of_settings]
    columns["level"] = [one.paired.level if one.over else NAN for one in of_settings]
    return columns


def _of_cell(cell: Compared, setting: Tested, read: Reader) -> Paired:
    """The test of a cell alone, whose setting may be the same."""
    if setting.frameworks not in ((), (cell.framework,)) or not cell.num_pairs:
        return settings.test_of([cell], read)
    return setting.paired.at(LEVEL) if setting.over else setting.paired


def _compared(ablation: Ablation, groups: Mapping[Label, Group], table: pd.DataFrame) -> dict[Label, Compared]:
    """The cells that have a baseline with a number, and a number of their own."""
    names, metric, compared = keys(ablation), ablation.report.metric, {}
    means = dict(zip(groups, table["mean"], strict=True))
    for label, group in groups.items():
        other = baseline_of(ablation, label)
        if other is None or other == label or other not in groups or math.isnan(means[label] - means[other]):
            continue
        compared[label] = Compared(
            settings.setting_of(names, label, other),
            str(label[names.index(FRAMEWORK)]) if FRAMEWORK in names else "",
            groups[other].by_seed(metric),
            group.by_seed(metric),
            float(means[label] - means[other]),
            (groups[other].by_seed("id"), group.by_seed("id")),
        )
    return compared


def _equivalences(ablation: Ablation, groups: Mapping[Label, Group], mixed: Set[Label]) -> Iterator[Equivalence]:
    asked = ablation.report.equivalence
    assert asked is not None
    place, metric = keys(ablation).index(asked.between), ablation.report.metric
    first = next(iter(groups))[place]
    for label, group in groups.items():
        other = (*label[:place], first, *label[place + 1 :])
        if other == label or other not in groups or mixed & {label, other}:
            yield Equivalence(0)
        else:
            yield equivalence(groups[other].by_seed(metric), group.by_seed(metric), asked.margin)


def _is_unlike(ablation: Ablation, rows: Mapping[Label, tuple[Any, Any]], label: Label) -> bool:
    """Tell whether a cell ran under another commit, or in another environment, than the baseline beside it."""
    other = baseline_of(ablation, label)
    return other is not None and other in rows and all(rows[other]) and all(rows[label]) and rows[other] != rows[label]


def _cost(group: Group, mixed: bool) -> dict[str, float]:
    means = {name: NAN if mixed else _mean(group.numbers(column)) for name, column in COST.items()}
    hours = sum(group.numbers(f"seconds.{what}").sum() for what in SECONDS) / 3600 if group.n else NAN
    return {**means, "accelerator_hours": float(hours)}


def _mean(values: "np.ndarray[Any, Any]") -> float:
    return float(values.mean()) if len(values) else NAN
