"""What a reader must know of a table: its heading, its signs, and the cells that are not whole."""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from analysis.cells import Options, baseline_of, is_mixed, label_text, labels
from analysis.statistics import ALPHA, LEVEL
from experiments.ablation import Ablation
from experiments.data.checks import TOO_MANY
from experiments.fields import short, text

MAX_NOTES, FEW = 100, 10  # lines; seeds, for a bootstrap
SIGNIFICANT, BELOW_FLOOR, UNEQUAL, REPEATED = "*", "°", "†", "‡"


def is_accuracy(ablation: Ablation) -> bool:
    return ablation.report.metric.endswith("accuracy")


def unit(ablation: Ablation) -> str:
    return "%" if is_accuracy(ablation) else "nats"


def points(ablation: Ablation) -> str:
    """The unit of a difference."""
    return "points" if is_accuracy(ablation) else "nats"


def scale(ablation: Ablation) -> int:
    """What a metric is multiplied with to be in its unit."""
    return 100 if is_accuracy(ablation) else 1


def number(ablation: Ablation, value: float, sign: str = "", more: int = 0) -> str:
    """A metric, or a difference of two (with sign "+"), in the table's unit and with its digits, and `more` of them."""
    digits = (1 if is_accuracy(ablation) else 4) + more
    return f"{round(scale(ablation) * value, digits) + 0.0:{sign}.{digits}f}"  # + 0.0: no -0.0


def p_text(p: float) -> str:
    """`p = 0.012`, `p < 0.001`; empty where there is none."""
    return "" if math.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def difference_text(ablation: Ablation, cell: "pd.Series[Any]") -> str:
    """`+0.20 points [-0.41, 0.83]`: with a digit more than the table, so that an interval shows where it ends."""
    shown = f"{number(ablation, cell['difference'], '+', 1)} {points(ablation)}"
    return f"{shown} {interval_text(ablation, cell['difference_low'], cell['difference_high'], 1)}".rstrip()


def heading(ablation: Ablation, table: pd.DataFrame, options: Options) -> list[str]:
    baseline = baseline_text(ablation)
    name = " ".join((ablation.name, *(("with", *ablation.overrides) if ablation.overrides else ())))
    less = "" if is_accuracy(ablation) else " (less is better)"
    lines = [
        f"{name}: {' '.join(ablation.question.split())}" if ablation.question else name,
        f"{ablation.report.metric} in {unit(ablation)}{less}, mean ± standard deviation over seeds (n)"
        + (f", and the difference to {baseline}" if baseline else ""),
    ]
    if ablation.report.metric.startswith("best."):
        lines.append(
            "best: at the first evaluation of highest validation accuracy, without validation data at the last"
        )
    if options.interval != "t":
        lines.append(f"intervals by {options.interval}")
    if asked := ablation.report.equivalence:
        margin = f"{100 * asked.margin:g} % points" if is_accuracy(ablation) else f"{asked.margin:g} nats"
        kinds = {
            "same": "all pairs are equal",
            "within": "all pairs differ by the same, which is less",
            "differ": "all pairs differ by the same, which is not less",
        }
        used = "".join(f"; {kind}: {said}" for kind, said in kinds.items() if kind in set(table["equivalence_kind"]))
        test = "two one-sided t-tests over n paired seeds"
        lines.append(f"p (n): that {short(asked.between)}s differ by {margin} or more, {test}{used}")
    signs = [marks(cell, options) for _, cell in table.iterrows()]
    meanings = {
        SIGNIFICANT: f"p < {ALPHA:g}, paired t-test, Holm's correction for {int(table['p'].notna().sum())} tests",
        BELOW_FLOOR: f"less than half the {level_text()} interval that the number of test examples alone leaves open",
        UNEQUAL: "see below",
    }
    if shown := [f"{sign} {said}" for sign, said in meanings.items() if any(sign in mark for mark in signs)]:
        lines.append("; ".join(shown))
    return lines


def baseline_text(ablation: Ablation) -> str:
    return " ".join(f"{short(name)}={text(value)}" for name, value in ablation.report.baseline.items())


def is_significant(cell: "pd.Series[Any]") -> bool:
    return bool(cell["p_holm"] < ALPHA)


def is_below_floor(cell: "pd.Series[Any]") -> bool:
    return bool(abs(cell["difference"]) < cell["floor"])


def marks(cell: "pd.Series[Any]", options: Options) -> str:
    """The signs behind a cell's numbers."""
    if math.isnan(cell["mean"]):
        return ""
    found = SIGNIFICANT if is_significant(cell) else ""
    found += BELOW_FLOOR if is_below_floor(cell) else ""
    return found + (UNEQUAL if _is_unequal(cell, options) else "")


def _is_unequal(cell: "pd.Series[Any]", options: Options) -> bool:
    """Whether its trials, or the pairs of its difference, are not of one kind."""
    few_pairs = not math.isnan(cell["difference"]) and cell["pairs"] < cell["n"]
    return bool(few_pairs or cell["unlike"] or len(cell["environments"]) > 1 or len(cell["commits"]) > 1)


def notes(ablation: Ablation, table: pd.DataFrame, frame: pd.DataFrame, options: Options) -> list[str]:
    """The lines under a table."""
    found = [*_of_cells(ablation, table, options), *_of_all(ablation, table, frame), *_of_trials(ablation, frame)]
    more = [f"and {len(found) - MAX_NOTES} more; mixlab status lists the trials"] if len(found) > MAX_NOTES else []
    return found[:MAX_NOTES] + more


def _of_cells(ablation: Ablation, table: pd.DataFrame, options: Options) -> Iterator[str]:
    if (table["n"] == 1).any():
        yield "± ? : one seed has no spread."
    known = dict.fromkeys(labels(ablation, table))
    for label, (_, cell) in zip(known, table.iterrows(), strict=True):
        where, commits = label_text(ablation, label) or ablation.name, cell["commits"]
        if is_mixed(commits, options):
            several = f"{len(commits)} commits ({' '.join(commits)})"
            yield f"{where}: its trials ran under {several}; --mix-commits averages them"
        elif len(commits) > 1:
            yield f"{where}: averaged over trials of {len(commits)} commits ({' '.join(commits)})"
        if len(cell["environments"]) > 1:
            yield f"{where}: its trials ran in {len(cell['environments'])} environments (device, processor, packages)"
        if cell["unlike"] and not math.isnan(cell["difference"]):
            yield f"{where}: its baseline ran under another commit, or in another environment"
        if options.interval == "bootstrap" and 1 < cell["n"] < FEW:
            yield f"{where}: a bootstrap of {cell['n']} seeds is narrower than their spread warrants"
        if not math.isnan(cell["difference"]) and not cell["pairs"]:
            yield f"{where}: no seed has a pair in the baseline; its difference is that of the means, without a test"
        elif not math.isnan(cell["difference"]) and cell["pairs"] < cell["n"]:
            yield f"{where}: its difference is over the {counted(cell['pairs'], 'seed')} that the baseline has too"
        other = baseline_of(ablation, label)
        if other is not None and other not in known:
            yield f"{where}: no cell has {label_text(ablation, other)}, so it has no difference to the baseline"
        elif other != label and not math.isnan(cell["mean"]) and math.isnan(cell["difference"]) and other is not None:
            yield f"{where}: no difference, since its baseline {label_text(ablation, other)} has no number"


def _of_trials(ablation: Ablation, frame: pd.DataFrame) -> Iterator[str]:
    metric = ablation.report.metric
    if metric in frame:
        for _, row in frame[(frame["status"] == "done") & frame[metric].isna()].iterrows():
            yield f"{row['id']} ({row['settings']}) is done and has no {metric}"
    for _, row in frame[frame["status"] != "done"].iterrows():
        yield f"{row['id']} ({row['settings']}) {row['status']}{': ' if row['why'] else ''}{row['why']}"
    for _, row in frame[frame["trained_on"].fillna("") != ""].iterrows():
        yield f"{row['id']} ({row['settings']}) was trained on {row['trained_on']}"


def _of_all(ablation: Ablation, table: pd.DataFrame, frame: pd.DataFrame) -> Iterator[str]:
    asked = ablation.report.equivalence
    if asked and not (table["equivalence_n"] > 0).any() and (table["n"] > 0).sum() > 1:
        yield f"No p: no two cells that are done differ in {asked.between} alone."
    commits = sorted({commit for several in table["commits"] for commit in several})
    if len(commits) > 1 and all(len(several) < 2 for several in table["commits"]):
        yield f"The cells are of {len(commits)} commits: {' '.join(commits)}."
    if "dirty" in frame and frame["dirty"].fillna(False).astype(bool).any():
        count = int(frame["dirty"].fillna(False).astype(bool).sum())
        yield f"{count} of {len(frame)} trials ran with uncommitted changes."
    yield from _repeats(frame)


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
    """`[-0.4, 0.8]`; empty where there is no interval."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return f"[{number(ablation, low, more=more)}, {number(ablation, high, more=more)}]"


def counted(number: int, word: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def differences(ablation: Ablation, table: pd.DataFrame) -> list[str]:
    """A line for each difference: interval, effect size, p, pairs."""
    lines = []
    for label, (_, cell) in zip(labels(ablation, table), table.iterrows(), strict=True):
        if not math.isnan(cell["difference"]):
            effect = "" if math.isnan(cell["effect_size"]) else f", d_z {cell['effect_size']:.2f}"
            tested = f", {p_text(cell['p_holm'])} (Holm)" if not math.isnan(cell["p_holm"]) else ""
            where = label_text(ablation, label)
            lines.append(
                f"{where}: {difference_text(ablation, cell)}{effect}{tested}, {counted(cell['pairs'], 'pair')}"
            )
    return lines


def level_text() -> str:
    return f"{100 * LEVEL:g} %"
