"""The cells of an ablation's table: what their trials say, and how each differs from the baseline."""

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from analysis import statistics
from analysis.equivalence import Equivalence, equivalence
from analysis.frame import objects
from analysis.statistics import Paired, Summary
from experiments.ablation import Ablation
from experiments.fields import short, text

STATES = ("failed", "running", "missing")
SPLITS, SECONDS = ("train", "validation", "test"), ("compile", "train", "evaluate")
SAME = ("device", "processor", "packages", "python")  # what makes an environment, beside the commit
COST = {name: name for name in ("parameters", "training_flops", "images_per_s", "peak_share")} | {
    "seconds": "seconds.train"
}
COLUMNS = (
    "id", "status", "seed", "commit", "dirty", "train.evaluate_train_examples", *SAME, *COST,
    *(f"info.num_{split}" for split in SPLITS), *(f"seconds.{what}" for what in SECONDS),
)  # fmt: skip
NAN = math.nan
Label = tuple[Any, ...]  # the values of report.rows and report.columns


@dataclass(frozen=True)
class Options:
    """How cells are made from trials."""

    interval: str = "t"  # t or bootstrap; see statistics.summary
    mix_commits: bool = False  # whether a cell may average over trials of several commits of the project


def keys(ablation: Ablation) -> list[str]:
    return [*ablation.report.rows, *ablation.report.columns]


def cells(ablation: Ablation, frame: pd.DataFrame, options: Options = Options()) -> pd.DataFrame:
    """A row for each cell of the table, in the order of the grid. Accuracies and their differences are in [0, 1].

    Columns: the fields of report.rows and report.columns; n, the trials that are done; planned; failed; running;
    missing: a trial that is not done counts in its own column and never in a mean. Of the metric over the n: mean, std
    (n - 1 in the denominator), low and high of its 95 % interval, least, median, most. floor: half the 95 %
    interval that the number of test examples alone gives an accuracy. Against the baseline, over pairs of equal seeds:
    difference, difference_low, difference_high, effect_size (Cohen's d_z), p (paired t-test), p_holm (corrected for the
    number of tests in the table), pairs. Where no seeds pair, difference is that of the means. Where the YAML asks for
    equivalence: equivalence_p, of the two one-sided tests against the first value of its field over paired seeds,
    equivalence_n, the number of pairs, and equivalence_kind, see equivalence.py. parameters, training_flops,
    images_per_s, peak_share, seconds (of training): means over the n; accelerator_hours: the sum, with compiling and
    evaluating. commits: of its trials; environments: their devices, processors, packages and Pythons; dirty: how many
    ran with uncommitted changes; unlike: whether commits or environments are others than the baseline's.
    NaN: there is no such number, as with n = 1 for std; never a number over fewer trials than n, and never over several
    commits, unless options.mix_commits.
    """
    groups, rows = groups_of(ablation, frame), []
    for label, group in groups.items():
        done = group[group["status"] == "done"]
        commits = _commits(done)
        numbers = [NAN] * len(done) if is_mixed(commits, options) else metric_of(ablation, done)
        found = statistics.summary(numbers, options.interval)
        rows.append(
            {
                **dict(zip(keys(ablation), label, strict=True)),
                "n": len(done),
                "planned": len(group),
                **{state: int((group["status"] == state).sum()) for state in STATES},
                **{name: value for name, value in asdict(found).items() if name != "n"},
                "floor": _floor(ablation, done, found),
                **_cost(done, is_mixed(commits, options)),
                "commits": commits,
                "environments": _environments(done),
                "dirty": int(done["dirty"].fillna(False).astype(bool).sum()) if "dirty" in done else 0,
            }
        )
    table = pd.DataFrame(rows)
    table = table.assign(
        **{name: objects(row[name] for row in rows) for name in (*keys(ablation), "commits", "environments")}
    )
    pairs = [_difference(ablation, groups, table, label, options.interval) for label in groups]
    for name in ("difference", "low", "high", "effect_size", "p"):
        column = f"difference_{name}" if name in ("low", "high") else name
        table[column] = [getattr(pair, name) for pair in pairs]
    table["p_holm"] = statistics.holm(table["p"].tolist())
    table["pairs"] = [pair.n for pair in pairs]
    table["unlike"] = [_is_unlike(ablation, groups, table, label) for label in groups]
    if ablation.report.equivalence:
        mixed = {label for label, row in zip(groups, rows, strict=True) if is_mixed(row["commits"], options)}
        tests = list(_equivalences(ablation, groups, mixed))
        for name in ("p", "n", "kind"):
            table[f"equivalence_{name}"] = [getattr(one, name) for one in tests]
    return table


def is_mixed(commits: Sequence[str], options: Options) -> bool:
    """Whether a cell's trials ran under several commits of the project, and must not be averaged."""
    return len(commits) > 1 and not options.mix_commits


def groups_of(ablation: Ablation, frame: pd.DataFrame) -> dict[Label, pd.DataFrame]:
    """The trials of each cell; of the frame's columns those that cells and figures are made from."""
    needed = dict.fromkeys((*keys(ablation), *COLUMNS, ablation.report.metric))
    return grouped(frame[[name for name in needed if name in frame]], keys(ablation))


def grouped(frame: pd.DataFrame, names: Sequence[str]) -> dict[Label, pd.DataFrame]:
    """Rows of the frame that agree in the fields, by their values, in order of appearance; None is a value too."""
    if not names:
        return {(): frame}
    places: dict[Label, list[int]] = {}
    for place, label in enumerate(zip(*(frame[name] for name in names), strict=True)):
        places.setdefault(label, []).append(place)
    return {label: frame.iloc[found] for label, found in places.items()}


def metric_of(ablation: Ablation, done: pd.DataFrame) -> list[float]:
    metric = ablation.report.metric
    return [float(value) for value in _column(done, metric)]


def by_seed(ablation: Ablation, group: pd.DataFrame) -> dict[Any, float]:
    """The metric of the trials that are done, by seed."""
    done = group[group["status"] == "done"]
    if ablation.report.metric not in done:
        return {}
    return dict(zip(done["seed"], metric_of(ablation, done), strict=True))


def label_text(ablation: Ablation, label: Label) -> str:
    """A cell in words: `num_blocks=4 token_mixing=untied backend=jax`; without what is the same in all cells."""
    named = list(zip(keys(ablation), label, strict=True))
    told = [(name, value) for name, value in named if name in ablation.varying] or named
    return " ".join(f"{short(name)}={text(value)}" for name, value in told)


def labels(ablation: Ablation, table: pd.DataFrame) -> list[Label]:
    names = keys(ablation)
    return list(zip(*(table[name] for name in names), strict=True)) if names else [()] * len(table)


def baseline_of(ablation: Ablation, label: Label) -> Label | None:
    """The cell that a cell is compared with: it has the baseline's settings, and the same ones otherwise."""
    settings = dict(zip(keys(ablation), label, strict=True))
    return tuple((settings | dict(ablation.report.baseline)).values()) if ablation.report.baseline else None


def _difference(
    ablation: Ablation, groups: Mapping[Label, pd.DataFrame], table: pd.DataFrame, label: Label, interval: str
) -> Paired:
    other = baseline_of(ablation, label)
    if other is None or other == label or other not in groups:
        return Paired(0)
    means = dict(zip(groups, table["mean"], strict=True))
    difference = float(means[label] - means[other])
    if math.isnan(difference):
        return Paired(0)
    found = statistics.paired(by_seed(ablation, groups[other]), by_seed(ablation, groups[label]), interval)
    return found if found.n else Paired(0, difference)


def _equivalences(ablation: Ablation, groups: Mapping[Label, pd.DataFrame], mixed: Set[Label]) -> Iterator[Equivalence]:
    asked = ablation.report.equivalence
    assert asked is not None
    place = keys(ablation).index(asked.between)
    first = next(iter(groups))[place]
    for label, group in groups.items():
        other = (*label[:place], first, *label[place + 1 :])
        if other == label or other not in groups or mixed & {label, other}:
            yield Equivalence(0)
        else:
            yield equivalence(by_seed(ablation, groups[other]), by_seed(ablation, group), asked.margin)


def _is_unlike(ablation: Ablation, groups: Mapping[Label, pd.DataFrame], table: pd.DataFrame, label: Label) -> bool:
    """Whether a cell was made by another commit, or in another environment, than the baseline that it differs from."""
    rows = dict(zip(groups, zip(table["commits"], table["environments"], strict=True), strict=True))
    other = baseline_of(ablation, label)
    return other is not None and other in rows and all(rows[other]) and all(rows[label]) and rows[other] != rows[label]


def _floor(ablation: Ablation, done: pd.DataFrame, found: Summary) -> float:
    if not ablation.report.metric.endswith("accuracy") or not len(done):
        return NAN
    split = ablation.report.metric.split(".")[1]
    sizes = done[f"info.num_{split}"]
    if split == "train":
        sizes = sizes.clip(upper=done["train.evaluate_train_examples"])
    return statistics.binomial_floor(found.mean, int(sizes.min()))


def _cost(done: pd.DataFrame, mixed: bool) -> dict[str, float]:
    found = {name: NAN if mixed else _mean(done, column) for name, column in COST.items()}
    hours = sum(_column(done, f"seconds.{what}").sum(skipna=False) for what in SECONDS) / 3600 if len(done) else NAN
    return {**found, "accelerator_hours": float(hours)}


def _mean(done: pd.DataFrame, name: str) -> float:
    return float(_column(done, name).mean(skipna=False)) if len(done) else NAN


def _column(done: pd.DataFrame, name: str) -> "pd.Series[Any]":
    return pd.to_numeric(done[name]) if name in done else pd.Series([NAN] * len(done))


def _commits(done: pd.DataFrame) -> tuple[str, ...]:
    """The commits of the project that the trials ran under, a trial's own being possibly several."""
    given: Any = done.get("commit", [])
    return tuple(sorted({commit for several in given if isinstance(several, str) for commit in several.split()}))


def _environments(done: pd.DataFrame) -> tuple[Label, ...]:
    names = [name for name in SAME if name in done]
    return tuple(sorted(set(zip(*(done[name].astype(str) for name in names), strict=True)))) if names else ()
