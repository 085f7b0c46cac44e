"""The page's table: a row for each setting, beside its baseline; the frameworks of a setting are columns."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from analysis import settings
from analysis.cells import STATES
from analysis.labels import Label, field_text, keys, value_text
from analysis.report import Report
from analysis.roles import Roles, roles_of
from analysis.table import wording
from analysis.table.render import cell_text, equivalence_text
from analysis.table.tested import over_text

MARKS = "●○◐◒"  # of the frameworks, as in figures: full, then empty
BETWEEN = " / "  # numbers of the frameworks in one place of the table
NOTHING, NO_BREAK = "—", "\u00a0"
Cell = dict[str, Any]  # text, value: what it is sorted by, and whether it is the best of its group


@dataclass(frozen=True, eq=False)
class MainTable:
    """Rows and columns of the table, as the page's template has them."""

    report: Report

    @cached_property
    def roles(self) -> Roles:
        return roles_of(self.report)

    @cached_property
    def settings(self) -> dict[Label, list[Label]]:
        """The cells of each setting, the baseline first in its group, and the groups in the order of the grid."""
        found: dict[Label, list[Label]] = {}
        for label in self.report.labels:
            found.setdefault(self.roles.setting(label), []).append(label)
        place = {group: i for i, group in enumerate(self.roles.groups)}
        order = sorted(found, key=lambda one: (place[self._group(one)], not self._is_baseline(found[one][0])))
        return {one: found[one] for one in order}

    @cached_property
    def _compared(self) -> dict[Label, Any]:
        """The difference of each setting, by the setting."""
        rows = settings.rows_of(self.report.ablation, self.report.rows)
        return {self.roles.setting(label): cell for label, cell in rows.items()}

    @cached_property
    def _texts(self) -> tuple[str, ...]:
        """The fields that name a row within its group."""
        return self.roles.compared or tuple(name for name in keys(self.report.ablation) if name != settings.FRAMEWORK)

    def _group(self, setting: Label) -> Label:
        return setting[: len(self.roles.beside)]

    def _is_baseline(self, label: Label) -> bool:
        base = self.report.ablation.report.baseline
        values = dict(zip(keys(self.report.ablation), label, strict=True))
        return bool(base) and all(values.get(name, value) == value for name, value in base.items())

    def as_dict(self) -> dict[str, Any]:
        rows = {setting: self._row(setting, labels) for setting, labels in self.settings.items()}
        groups: dict[Label, list[Cell]] = {}
        for setting, row in rows.items():
            groups.setdefault(self._group(setting), []).append(row)
        for together in groups.values():
            self._set_best(together)
        phrase = self.roles.phrase
        return {
            "columns": self.columns(),
            "has_head": bool(self._texts),
            "groups": [
                {"head": phrase(self.roles.beside, group), "rows": together} for group, together in groups.items()
            ],
            "together": self._together(),
            "has_best": any(cell["is_best"] for row in rows.values() for cell in row["cells"]),
        }

    def _together(self) -> str:
        """The frameworks that differences are a mean of; empty where there is one."""
        ablation = self.report.ablation
        return next(filter(None, (settings.frameworks_text(ablation, cell) for cell in self._compared.values())), "")

    def columns(self) -> list[dict[str, str]]:
        """Name and kind of each column: field, of a group; text, of a row; number; minor, which come last."""
        ablation = self.report.ablation
        names = [(field_text(ablation, name), "field") for name in self.roles.beside]
        names += [(field_text(ablation, name), "text") for name in self._texts]
        numbers = [f"mean ({wording.unit(ablation)})"]
        if ablation.report.baseline:
            numbers += [f"difference ({wording.points(ablation)})", "p (Holm)"]
        words = map(self.roles.framework_text, self.roles.frameworks)
        numbers += [f"{MARKS[i % len(MARKS)]}{NO_BREAK}{name}" for i, name in enumerate(words)] or ["std"]
        numbers += ["n", *(["p (n, largest) of equivalence"] if ablation.report.equivalence else [])]
        numbers += ["parameters", "TFLOPs a trial", "train s"]
        minor = ["interval over", "effect size"] if ablation.report.baseline else []
        minor += [f"{wording.level_text()} interval", "least", "median", "most"]
        names += [(name, "number") for name in numbers] + [(name, "number minor") for name in minor]
        return [{"name": name, "kind": f"{kind} difference" if "difference" in name else kind} for name, kind in names]

    def _row(self, setting: Label, labels: Sequence[Label]) -> Cell:
        cells = [self.report.rows[label] for label in labels]
        names = (*self.roles.beside, *self._texts)
        values = self.roles.part(labels[0], names)
        named = zip(names, values, strict=True)
        shown = [_cell(value_text(self.report.ablation, *one), one[1]) for one in named]
        numbers = [*self._results(setting, cells), *self._frameworks(labels, cells), *self._costs(cells)]
        is_whole = all(cell["n"] == cell["planned"] and not any(cell[state] for state in STATES) for cell in cells)
        words = self.roles.phrase(names, values)
        return {
            "label": words or self.report.ablation.name,
            "cells": [*shown, *numbers, *self._minor(setting, cells)],
            "is_whole": is_whole,
            "is_baseline": self._is_baseline(labels[0]),
        }

    def _results(self, setting: Label, cells: Sequence[Any]) -> list[Cell]:
        """The mean over the frameworks that have one, the difference to the baseline, and its p."""
        ablation = self.report.ablation
        means = [float(cell["mean"]) for cell in cells if not math.isnan(cell["mean"])]
        mean = fmean(means) if means else math.nan
        signs = "".join(dict.fromkeys("".join(wording.marks(cell, self.report.options) for cell in cells)))
        if not ablation.report.baseline:
            return [_cell(wording.number(ablation, mean) + signs if means else self._reason(cells), mean)]
        one = self._compared.get(setting)
        p = math.nan if one is None else float(one["p_holm"])
        difference = NOTHING if one is None else f"{self._difference(one)}{signs}"
        return [
            _cell(wording.number(ablation, mean) if means else self._reason(cells), mean),
            _cell(difference, math.nan if one is None else float(one["difference"])),
            _cell(NOTHING if math.isnan(p) else wording.p_value(p), p),
        ]

    def _difference(self, one: Any) -> str:
        ablation = self.report.ablation
        ends = (one["difference_low"], one["difference_high"])
        interval = wording.interval_and_level_text(ablation, *ends, one["level"])
        for joined in (", ", " %"):
            interval = interval.replace(joined, joined.replace(" ", NO_BREAK))
        return f"{wording.number(ablation, one['difference'], '+', 1)} {interval}".rstrip()

    def _reason(self, cells: Sequence[Any]) -> str:
        """The reason why there is no number."""
        reasons = (cell_text(self.report.ablation, cell, self.report.options) for cell in cells)
        return BETWEEN.join(dict.fromkeys(reasons))

    def _frameworks(self, labels: Sequence[Label], cells: Sequence[Any]) -> list[Cell]:
        """Mean and deviation of each framework, or the deviation of the only one; n; the test of equivalence."""
        ablation = self.report.ablation
        by_name = {self.roles.framework(label): cell for label, cell in zip(labels, cells, strict=True)}
        if self.roles.frameworks:
            shown = [self._own(by_name.get(name)) for name in self.roles.frameworks]
        else:
            shown = [self._joined(cells, "std", lambda value: wording.number(ablation, value))]
        counts = [f"{n}" if n == planned else f"{n} of {planned}" for n, planned in _counts(cells)]
        shown.append(_cell(BETWEEN.join(dict.fromkeys(counts)), min(n for n, _ in _counts(cells))))
        if ablation.report.equivalence:
            tested = [cell for cell in cells if cell["equivalence_n"]]
            p = float(tested[0]["equivalence_p"]) if tested else math.nan
            texts = [equivalence_text(ablation, cell) for cell in tested]
            shown.append(_cell(BETWEEN.join(texts) or NOTHING, p))
        return shown

    def _own(self, cell: Any) -> Cell:
        """`86.1 ± 0.4`, of one framework."""
        if cell is None:
            return _cell(NOTHING, math.nan)
        if math.isnan(cell["mean"]):
            return _cell(self._reason([cell]), math.nan)
        std = "?" if math.isnan(cell["std"]) else wording.number(self.report.ablation, cell["std"])
        return _cell(
            f"{wording.number(self.report.ablation, cell['mean'])}{NO_BREAK}±{NO_BREAK}{std}", float(cell["mean"])
        )

    def _costs(self, cells: Sequence[Any]) -> list[Cell]:
        return [
            self._joined(cells, "parameters", lambda value: f"{value:,.0f}"),
            self._joined(cells, "training_flops", lambda value: f"{value / 1e12:.3g}"),
            self._joined(cells, "seconds", lambda value: f"{value:,.1f}"),
        ]

    def _minor(self, setting: Label, cells: Sequence[Any]) -> list[Cell]:
        ablation = self.report.ablation

        def number(value: float) -> str:
            return wording.number(ablation, value)

        effect = [self._joined(cells, "effect_size", lambda value: f"{value:.2f}")]
        one = self._compared.get(setting)
        over = "" if one is None else over_text(ablation, one)
        tested = [_cell(over or NOTHING, over), *effect] if ablation.report.baseline else []
        intervals = [wording.interval_text(ablation, cell["low"], cell["high"]) or NOTHING for cell in cells]
        width = float(cells[0]["high"] - cells[0]["low"])
        numbers = [self._joined(cells, name, number) for name in ("least", "median", "most")]
        return [*tested, _cell(BETWEEN.join(intervals), width), *numbers]

    def _joined(self, cells: Sequence[Any], name: str, shown: Callable[[float], str]) -> Cell:
        """The numbers of the frameworks, or one that they share."""
        values = [float(cell[name]) for cell in cells]
        texts = [NOTHING if math.isnan(value) else shown(value) for value in values]
        return _cell(BETWEEN.join(texts if len(set(texts)) > 1 else texts[:1]), values[0])

    def _set_best(self, rows: Sequence[Cell]) -> None:
        """Mark the best mean of a group, and those that look the same."""
        place = len(self.roles.beside) + len(self._texts)
        means = [row["cells"][place] for row in rows if row["cells"][place]["value"] != ""]
        if len(means) > 1:
            better = max if wording.metric(self.report.ablation).higher_is_better else min
            best = better(means, key=lambda mean: mean["value"])["text"]
            for mean in means:
                mean["is_best"] = mean["text"] == best


def _counts(cells: Sequence[Any]) -> list[tuple[int, int]]:
    return [(int(cell["n"]), int(cell["planned"])) for cell in cells]


def _cell(words: str, value: Any) -> Cell:
    return {"text": words, "value": _sortable(value), "is_best": False}


def _sortable(value: Any) -> Any:
    """The value as a number or as text; empty text, which sorts last, if there is none."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, (int, float)):
        return "" if math.isnan(value) else float(value)
    return str(value)
