"""Notes under a table: on its tests, and on the cells and trials that are not whole."""

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from analysis import inference, matching, right_classes, tuned
from analysis.cells import Options, is_mixed
from analysis.labels import Row, Rows, baseline_of, label_text, records, rows
from analysis.origins import apart_text
from analysis.settings import SEEDS
from analysis.table.tested import over_texts
from analysis.table.wording import level_text
from backends.errors import counted
from experiments.data.checks import TOO_MANY
from experiments.design.ablation import Ablation
from experiments.design.choice import Choice
from experiments.design.names import AXIS
from experiments.results.metrics import STARVED, STARVED_S, WAIT_SECONDS

MAX_NOTES = 100  # lines
REPEATED = "‡"


def notes(
    ablation: Ablation, table: pd.DataFrame, frame: pd.DataFrame, options: Options, choices: Sequence[Choice] = ()
) -> list[str]:
    """The lines under a table. Args: choices: of what is tuned."""
    cells = rows(ablation, table)
    lines = [
        *tuned.notes(ablation, frame, choices),
        *_of_intervals(table, options),
        *_of_cells(ablation, cells, options),
    ]
    if options.equivalence_of:
        margin = f"equivalence: its margin is one of {options.equivalence_of}"
        lines.append(f"{margin}; no such test of {ablation.report.metric}")
    lines += [*_of_all(ablation, cells, frame), *_of_trials(ablation, frame)]
    more = [f"and {len(lines) - MAX_NOTES} more; mixlab status lists the trials"] if len(lines) > MAX_NOTES else []
    return lines[:MAX_NOTES] + more


def _of_cells(ablation: Ablation, cells: Rows, options: Options) -> Iterator[str]:
    yield from over_texts(ablation, cells)
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
    if (table["n"] == 1).any():
        yield "± ? : one seed has no spread."
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


def _of_all(ablation: Ablation, cells: Rows, frame: pd.DataFrame) -> Iterator[str]:
    asked = ablation.report.equivalence
    done = [cell for cell in cells.values() if cell["n"]]
    if asked and len(done) > 1 and not any(cell["equivalence_n"] for cell in done):
        yield f"There is no p: no two cells that are done differ in {asked.between.removeprefix(AXIS)} alone."
    yield from matching.broken(ablation, cells)
    commits = sorted({commit for cell in done for commit in cell["commits"]})
    if len(commits) > 1 and all(len(cell["commits"]) < 2 for cell in done):
        yield f"The cells are of {len(commits)} commits: {' '.join(commits)}."
    if "dirty" in frame and frame["dirty"].fillna(False).astype(bool).any():
        count = int(frame["dirty"].fillna(False).astype(bool).sum())
        yield f"{count} of {len(frame)} trials ran with uncommitted changes."
    yield from _added(frame)
    yield from _repeats(frame)
    yield from right_classes.notes(frame)
    yield from _starved(frame)


def _starved(frame: pd.DataFrame) -> Iterator[str]:
    """Trials whose device waited for pixels for more than STARVED of the time of training, and STARVED_S."""
    if (column := f"seconds.{WAIT_SECONDS}") not in frame:
        return
    shares = (frame[column] / (frame[column] + frame["seconds.train"])).where(frame[column] > STARVED_S)
    if (starved := shares > STARVED).any():
        most, share = max(zip(shares.fillna(0.0), frame["id"], strict=True))[::-1]
        yield (
            f"{int(starved.sum())} of {len(frame)} trials waited for data for more than {STARVED:.0%} of their "
            f"training, {most} for {share:.0%}: more run.threads, a faster disk, or data prepared at a smaller size "
            f"would feed the device."
        )


def _added(frame: pd.DataFrame) -> Iterator[str]:
    """Trials with numbers that joined the grid after somebody had seen test numbers."""
    days = (
        frame["added"].astype(object).fillna("") if "added" in frame else pd.Series([], dtype=str)
    )  # a tidy.csv of before lacks it
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
