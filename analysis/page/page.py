"""The report page: one HTML file that needs no network and no other file."""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.figures.inline import inline
from analysis.figures.style import Drawn
from analysis.inference import ALPHA
from analysis.labels import Label, Row, keys
from analysis.page import answer
from analysis.page.main_table import MainTable
from analysis.page.paper import findings
from analysis.report import Report
from analysis.table import marginal, trends, wording
from analysis.table.render import Rendered
from backends.errors import counted

TEMPLATES = Path(__file__).parent / "templates"
MAX_IDS, MAX_ENVIRONMENTS, MAX_OPEN_NOTES, MAX_OPEN_OTHERS = 200, 20, 6, 1
COST_COLUMNS = (
    "cell", "parameters", "TFLOPs a trial", "train s", "images/s", "GFLOP/s", "share of peak",
    "hours of all that are done",
)  # fmt: skip
TRIAL_COLUMNS = ("trial", "seed", "state", "metric", "backend", "best step", "train s", "commit", "why")


def page(parts: Sequence[Mapping[str, Any]], figures: Sequence[Sequence[Drawn]], command: str) -> str:
    """The HTML of the page. All text from outside is escaped.

    Args:   parts: of `section`, of each report.    figures: of each report.    command: the one that made the page.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = [
        {**part, "id": f"a{place}", "figures": [_figure(one, f"a{place}-{one.name}-") for one in drawn]}
        for place, (part, drawn) in enumerate(zip(parts, figures, strict=True))
    ]
    files = {name: (TEMPLATES / f"report.{name}").read_text() for name in ("css", "js")}
    title = ", ".join(part["name"] for part in parts)
    return environment.get_template("report.html.j2").render(title=title, sections=sections, command=command, **files)


def _figure(drawn: Drawn, prefix: str) -> dict[str, str]:
    return {"title": drawn.title, "caption": drawn.caption, "svg": inline(drawn, prefix)}


def section(report: Report, rendered: Rendered) -> dict[str, Any]:
    """What the page says of one ablation, by the names that the templates use; without its figures."""
    first, *others = answer.sentences(report)
    ablation, table = report.ablation, MainTable(report)
    return {
        "name": ablation.name,
        "question": wording.asked_text(ablation) or ablation.name,
        "answer": first,
        "others": others,
        "num_open_others": MAX_OPEN_OTHERS,
        "about": rendered.above[1:],
        "table": table.as_dict(),
        "notes": rendered.notes,
        "num_shown_notes": MAX_OPEN_NOTES,
        "findings": findings(ablation),
        "cost_columns": COST_COLUMNS,
        "cost": [_cost(report, label) for label in report.labels if report.rows[label]["n"]],
        "marginal": rendered.marginal.all(),
        "about_marginal": f"{marginal.ABOUT[0].upper()}{marginal.ABOUT[1:]}.",
        "trends": trends.sentences(report),
        "parity": _parity(report),
        "environments": _environments(report.frame),
        "run": _run(report),
        "num_trials": len(report.frame),
        "ids": list(report.frame["id"][:MAX_IDS]),
        "trial_columns": [ablation.report.metric if name == "metric" else name for name in TRIAL_COLUMNS],
        "trials": _trials(report, table),
    }


def _run(report: Report) -> str:
    """The command that trains the trials of the report."""
    ablation, store = report.ablation, str(report.store.root)
    return shlex.join(["mixlab", "run", ablation.file, *ablation.overrides, "--store", store])


def _trials(report: Report, table: MainTable) -> list[list[list[Any]]]:
    """Trials of each row of the main table: a list of TRIAL_COLUMNS each."""
    groups: dict[Label, list[list[Any]]] = {setting: [] for setting in table.settings}
    setting_of = {label: setting for setting, labels in table.settings.items() for label in labels}
    metric, names = report.ablation.report.metric, keys(report.ablation)
    columns = [*names, "id", "seed", "status", metric, "backend", "best.step", "seconds.train", "commit", "why"]
    frame = report.frame.reindex(columns=list(dict.fromkeys(columns)))
    for row in zip(*(frame[name] for name in columns), strict=True):
        key, (trial, seed, status, value, backend, *rest) = row[: len(names)], row[len(names) :]
        step, seconds, commit, why = rest
        shown = "—" if pd.isna(value) else wording.number(report.ablation, float(value))
        steps, time = "" if pd.isna(step) else int(step), "" if pd.isna(seconds) else f"{seconds:.1f}"
        commit, why = ("" if pd.isna(part) else str(part) for part in (commit, why))
        groups[setting_of[key]].append([trial, int(seed), status, shown, backend, steps, time, commit, why])
    return list(groups.values())


def _cost(report: Report, label: Label) -> list[str]:
    cell = report.rows[label]
    flops, seconds = cell["training_flops"], cell["seconds"]
    rate = flops / seconds / 1e9 if seconds else math.nan
    numbers = [
        (cell["parameters"], ",.0f"), (flops / 1e12, ".3g"), (seconds, ",.1f"), (cell["images_per_s"], ",.0f"),
        (rate, ",.0f"), (cell["peak_share"], ".0%"), (cell["accelerator_hours"], ".3g"),
    ]  # fmt: skip
    return [report.text(label), *("—" if math.isnan(value) else f"{value:{form}}" for value, form in numbers)]


def _parity(report: Report) -> list[str]:
    asked = report.ablation.report.equivalence
    if asked is None:
        return []
    margin, points = f"{wording.scale(report.ablation) * asked.margin:g}", wording.points(report.ablation)
    lines = []
    for label, cell in report.rows.items():
        if cell["equivalence_n"]:
            p = cell["equivalence_p"]
            word = "not known" if math.isnan(p) else "within" if p < ALPHA else "not shown to be within"
            kinds = {"": _tost_text(report, cell), "same": "identical"}
            why = kinds.get(cell["equivalence_kind"], "all differ by the same")
            pairs = counted(int(cell["equivalence_n"]), "pair")
            lines.append(f"{report.text(label)}: {word} ±{margin} {points} ({', '.join(filter(None, (pairs, why)))})")
    return lines


def _tost_text(report: Report, cell: Row) -> str:
    """`p = 0.012, largest difference 0.28 points`; empty without a test."""
    if math.isnan(cell["equivalence_p"]):
        return ""
    largest = wording.number(report.ablation, cell["equivalence_largest"], more=1)
    return f"{wording.p_text(cell['equivalence_p'])}, largest difference {largest} {wording.points(report.ablation)}"


def _environments(frame: pd.DataFrame) -> list[str]:
    """Numbers of trials by the commit and environment that they ran in, the most frequent first."""
    names = ("commit", "ran_on", "processor", "python", "packages")
    done = frame[frame["status"] == "done"].reindex(columns=[*names, "dirty"])
    if not len(done):
        return []
    counts = done.fillna("unknown").astype(str).value_counts(sort=True)
    lines = []
    for values, count in counts.head(MAX_ENVIRONMENTS).items():
        commit, ran_on, processor, python, packages, dirty = values if isinstance(values, tuple) else (values,) * 6
        changed = " with uncommitted changes" if dirty == "True" else ""
        lines.append(f"{count} trials: commit {commit}{changed}; {ran_on}, {processor}; Python {python}, {packages}")
    more = len(counts) - MAX_ENVIRONMENTS
    return lines + ([f"and {more} more environments; see tidy.csv"] if more > 0 else [])
