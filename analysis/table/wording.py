"""Words of a table: its units and signs, and notes on the cells that are not whole."""

import math
from collections.abc import Iterator

import pandas as pd

from analysis import inference, matching, settings, tuned
from analysis.cells import Options, is_mixed
from analysis.inference import ALPHA, LEVEL
from analysis.labels import Label, Row, baseline_of, label_text, records, rows, setting_text
from analysis.origins import apart_text
from analysis.settings import SEEDS
from analysis.table.tested import counted as counted
from analysis.table.tested import other_level_text, over_texts
from experiments.data.checks import TOO_MANY
from experiments.design.ablation import Ablation
from experiments.design.names import AXIS
from experiments.results import metrics
from experiments.results.metrics import Metric

MAX_NOTES = 100  # lines
SIGNIFICANT, UNEQUAL, REPEATED = "*", "†", "‡"


def metric(ablation: Ablation) -> Metric:
    """What the table is of, without the evaluation and the split."""
    return metrics.parse(ablation.report.metric).metric


def unit(ablation: Ablation) -> str:
    return metric(ablation).unit


def points(ablation: Ablation) -> str:
    """The unit of a difference."""
    return metric(ablation).difference_unit


def scale(ablation: Ablation) -> int:
    """The factor that brings a metric to its unit."""
    return metric(ablation).scale


def number(ablation: Ablation, value: float, sign: str = "", more: int = 0) -> str:
    """A metric, or with sign "+" a difference of two, in the table's unit, with its digits and `more` of them."""
    return metric(ablation).text(value, sign, more)


def p_text(p: float) -> str:
    """`p = 0.012`, `p < 0.001`; empty where there is none."""
    return "" if math.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def difference_text(ablation: Ablation, cell: Row) -> str:
    """`+0.20 points [-0.41, 0.83]`: with a digit more than the table, so that an interval shows where it ends.

    Args: cell: of settings.rows_of or settings.alone. The level of its interval is named where it is not 95 %.
    """
    shown = f"{number(ablation, cell['difference'], '+', 1)} {points(ablation)}"
    interval = interval_and_level_text(ablation, cell["difference_low"], cell["difference_high"], cell["level"])
    return f"{shown} {interval}".rstrip()


def interval_and_level_text(ablation: Ablation, low: float, high: float, level: float) -> str:
    """`[-0.41, 0.83]`, `[-0.41, 0.83] (98.3 %)`: of a difference, with a digit more than the table."""
    interval = interval_text(ablation, low, high, 1)
    return f"{interval}{other_level_text(level)}" if interval else ""


def asked_text(ablation: Ablation) -> str:
    """The question on one line; empty where there is none."""
    return " ".join((ablation.question or "").split())


def baseline_text(ablation: Ablation) -> str:
    return " ".join(setting_text(ablation, name, value) for name, value in ablation.report.baseline.items())


def is_significant(cell: Row) -> bool:
    return bool(cell["p_holm"] < ALPHA)


def marks(cell: Row, options: Options) -> str:
    """The signs behind a cell's numbers."""
    if math.isnan(cell["mean"]):
        return ""
    signs = SIGNIFICANT if is_significant(cell) and not cell["interim"] else ""
    return signs + (UNEQUAL if _is_unequal(cell, options) else "")


def _is_unequal(cell: Row, options: Options) -> bool:
    """Tell whether a cell's trials, or the pairs of its difference, are not of one kind."""
    few_pairs = not math.isnan(cell["difference"]) and cell["pairs"] < cell["n"]
    return bool(few_pairs or cell["unlike"] or len(cell["environments"]) > 1 or len(cell["commits"]) > 1)


def notes(ablation: Ablation, table: pd.DataFrame, frame: pd.DataFrame, options: Options) -> list[str]:
    """The lines under a table."""
    lines = [*tuned.notes(ablation, frame), *_of_cells(ablation, table, options), *_of_all(ablation, table, frame)]
    lines += _of_trials(ablation, frame)
    more = [f"and {len(lines) - MAX_NOTES} more; mixlab status lists the trials"] if len(lines) > MAX_NOTES else []
    return lines[:MAX_NOTES] + more


def _of_cells(ablation: Ablation, table: pd.DataFrame, options: Options) -> Iterator[str]:
    if (table["n"] == 1).any():
        yield "± ? : one seed has no spread."
    yield from _of_intervals(table, options)
    yield from over_texts(ablation, table)
    cells = rows(ablation, table)
    for label, cell in cells.items():
        where, commits = label_text(ablation, label) or ablation.name, cell["commits"]
        if is_mixed(commits, options):
            several = f"{len(commits)} commits ({' '.join(commits)})"
            yield f"{where}: its trials ran under {several}; --mix-commits averages them"
        elif len(commits) > 1:
            yield f"{where}: averaged over trials of {len(commits)} commits ({' '.join(commits)})"
        if len(cell["environments"]) > 1:
            apart = apart_text(cell["environments"])
            yield f"{where}: its trials ran in {len(cell['environments'])} environments; bits depend on {apart}"
        if cell["unlike"] and not math.isnan(cell["difference"]):
            base = cells[baseline_of(ablation, label) or ()]
            apart = apart_text([*base["environments"], *cell["environments"]])
            apart = f"; bits depend on {apart}" if apart else ""
            yield f"{where}: its baseline ran under another commit, or in another environment{apart}"
        if not math.isnan(cell["difference"]) and not cell["pairs"]:
            yield f"{where}: no seed has a pair in the baseline, so its difference is that of the means, without a test"
        elif not math.isnan(cell["difference"]) and cell["pairs"] < cell["n"]:
            yield f"{where}: its difference is over the {counted(cell['pairs'], 'seed')} that the baseline has too"
        other = baseline_of(ablation, label)
        if other is not None and other not in cells:
            yield f"{where}: no cell has {label_text(ablation, other)}, so it has no difference to the baseline"
        elif other != label and not math.isnan(cell["mean"]) and math.isnan(cell["difference"]) and other is not None:
            yield f"{where}: it has no difference, since its baseline {label_text(ablation, other)} has no number"


def _of_intervals(table: pd.DataFrame, options: Options) -> Iterator[str]:
    """Notes on the intervals of few seeds."""
    counts = sorted({int(n) for n in table["n"] if n > 1})
    if (options.interval == "t" and 2 in counts) or 2 in set(table.loc[table["over"] == SEEDS, "setting_pairs"]):
        yield few_text(2)
    if few := [n for n in counts if inference.is_refused(n, options.interval)]:
        covers = ", ".join(f"{inference.BOOTSTRAP_COVERAGE[n]} % with n = {n}" for n in few)
        yield (
            f"There is no interval for n below {inference.BOOTSTRAP_LEAST}: a bootstrap of so few seeds covers the "
            f"mean less often than in {level_text()} ({covers}); --interval t gives Student's."
        )


def few_text(n: int) -> str:
    """A note on an interval of so few values."""
    factor = inference.t_factor(n - 1)
    freedom = f"{counted(n - 1, 'degree')} of freedom"
    return f"n = {n} leaves {freedom}: its interval is ±{factor:.1f} standard errors, and says little."


def _of_trials(ablation: Ablation, frame: pd.DataFrame) -> Iterator[str]:
    name = ablation.report.metric
    if name in frame:
        for row in _trials(frame, (frame["status"] == "done") & frame[name].isna()):
            yield f"{row['id']} ({row['settings']}) is done and has no {name}"
    yield from unfinished(frame)
    for row in _trials(frame, frame["trained_on"].fillna("") != ""):
        yield f"{row['id']} ({row['settings']}) was trained on {row['trained_on']}"


def _trials(frame: pd.DataFrame, chosen: "pd.Series[bool]") -> list[Row]:
    return records(frame.loc[chosen, ["id", "settings", "status", "why", "trained_on"]])


def unfinished(frame: pd.DataFrame) -> Iterator[str]:
    """A line for each trial that is not done: its state, and why."""
    for row in _trials(frame, frame["status"] != "done"):
        yield f"{row['id']} ({row['settings']}) {row['status']}{': ' if row['why'] else ''}{row['why']}"


def _of_all(ablation: Ablation, table: pd.DataFrame, frame: pd.DataFrame) -> Iterator[str]:
    asked = ablation.report.equivalence
    if asked and not (table["equivalence_n"] > 0).any() and (table["n"] > 0).sum() > 1:
        yield f"There is no p: no two cells that are done differ in {asked.between.removeprefix(AXIS)} alone."
    yield from matching.broken(ablation, table)
    commits = sorted({commit for several in table["commits"] for commit in several})
    if len(commits) > 1 and all(len(several) < 2 for several in table["commits"]):
        yield f"The cells are of {len(commits)} commits: {' '.join(commits)}."
    if "dirty" in frame and frame["dirty"].fillna(False).astype(bool).any():
        count = int(frame["dirty"].fillna(False).astype(bool).sum())
        yield f"{count} of {len(frame)} trials ran with uncommitted changes."
    yield from _added(frame)
    yield from _repeats(frame)


def _added(frame: pd.DataFrame) -> Iterator[str]:
    """Trials with numbers that joined the grid after somebody had seen test numbers."""
    days = frame["added"].fillna("") if "added" in frame else pd.Series([], dtype=str)  # a tidy.csv of before lacks it
    later = days[(days != "") & (frame["status"] == "done")]
    if len(later):
        yield (
            f"{len(later)} of {len(frame)} trials joined the grid after a report with test numbers (of {later.min()}): "
            f"where they were chosen by it, their test numbers flatter them."
        )


def _repeats(frame: pd.DataFrame) -> Iterator[str]:
    """Data of which more than TOO_MANY of the examples that are tested on are trained on too."""
    for split in ("test", "validation"):
        if f"repeats.{split}" not in frame:
            continue
        columns = ["data.source", f"repeats.{split}", f"info.num_{split}"]
        for source, repeats, total in frame[columns].dropna().drop_duplicates().itertuples(index=False):
            if repeats > TOO_MANY * total:
                share = f"{repeats:,.0f} of {total:,.0f} {split} examples ({repeats / total:.1%})"
                yield f"{REPEATED} data {source}: {share} equal a training example pixel by pixel"


def interval_text(ablation: Ablation, low: float, high: float, more: int = 0) -> str:
    """`[-0.4, 0.8]`; empty where there is no interval. One that leaves out 0 has digits enough to show that."""
    if math.isnan(low) or math.isnan(high):
        return ""
    near = low if low > 0 else high
    while low * high > 0 and not float(number(ablation, near, more=more)):
        more += 1
    return f"[{number(ablation, low, more=more)}, {number(ablation, high, more=more)}]"


def differences(ablation: Ablation, table: pd.DataFrame) -> list[str]:
    """A line for each difference: interval, effect size, p and pairs.

    Frameworks that are tested together have a line of their mean, with interval and p, and none of their own.
    """
    lines = []
    for label, row in rows(ablation, table).items():
        if not math.isnan(row["difference"]):
            cell = settings.alone(row)
            effect = "" if math.isnan(cell["effect_size"]) else f", d_z {cell['effect_size']:.2f}"
            tested = "" if settings.frameworks_text(ablation, cell) else _tested_text(cell)
            where = label_text(ablation, label)
            lines.append(
                f"{where}: {difference_text(ablation, cell)}{effect}{tested}, {counted(cell['pairs'], 'pair')}"
            )
    return lines + together(ablation, table)


def together(ablation: Ablation, table: pd.DataFrame) -> list[str]:
    """A line for each setting of several frameworks, with their mean difference and its test."""
    found = settings.rows_of(ablation, table).items()
    return [_setting_text(ablation, label, cell) for label, cell in found if settings.frameworks_text(ablation, cell)]


def _setting_text(ablation: Ablation, label: Label, cell: Row) -> str:
    """`token_mixing=untied, mean of torch and jax: +0.20 points [-0.41, 0.83], p = 0.400 (Holm), 3 pairs`."""
    where = label_text(ablation, label, without=settings.FRAMEWORK)
    where = f"{where}, mean of {settings.frameworks_text(ablation, cell)}".removeprefix(", ")
    return f"{where}: {difference_text(ablation, cell)}{_tested_text(cell)}, {counted(cell['pairs'], 'pair')}"


def _tested_text(cell: Row) -> str:
    return "" if math.isnan(cell["p_holm"]) else f", {p_text(cell['p_holm'])} (Holm)"


def level_text() -> str:
    return f"{100 * LEVEL:g} %"
