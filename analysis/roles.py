"""The parts that a table's fields play on the page and in figures, and settings in words.

What is compared has a colour, what stands beside it a panel or a group of rows, and the frameworks, which are one
experiment done several times, a mark each.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from analysis.labels import NUMBER_OF, Label, field_words, keys, speaks_for_itself, value_text
from analysis.report import Report
from analysis.settings import FRAMEWORK
from experiments.spec.fields import text

NOTHING = "none"  # a value that is no word without its field


@dataclass(frozen=True, eq=False)
class Roles:
    """The fields that have several values in the table of a report."""

    report: Report
    compared: tuple[str, ...]  # those of the baseline; without one, the last that is no framework
    beside: tuple[str, ...]  # the others, but for the framework
    frameworks: tuple[str, ...]  # none where the table does not tell them apart, or compares them
    speaking: frozenset[str]  # fields whose values are words that no other field has

    def part(self, label: Label, names: Iterable[str]) -> Label:
        """The values of some of a cell's fields."""
        values = dict(zip(keys(self.report.ablation), label, strict=True))
        return tuple(values[name] for name in names)

    def framework(self, label: Label) -> str:
        """Empty where the table has one."""
        return str(self.part(label, [FRAMEWORK])[0]) if self.frameworks else ""

    def framework_text(self, name: str) -> str:
        return value_text(self.report.ablation, FRAMEWORK, name)

    def setting(self, label: Label) -> Label:
        """A cell without its framework."""
        return self.part(label, (*self.beside, *self.compared))

    @cached_property
    def groups(self) -> list[Label]:
        """The values of the fields beside what is compared, in the order of the grid."""
        return list(dict.fromkeys(self.part(label, self.beside) for label in self.report.labels))

    @cached_property
    def _cells(self) -> dict[Label, list[Label]]:
        cells: dict[Label, list[Label]] = {}
        for label in self.report.labels:
            cells.setdefault(self.setting(label), []).append(label)
        return cells

    def cells_of(self, label: Label) -> list[Label]:
        """The cells of a cell's setting, a framework each."""
        return self._cells[self.setting(label)]

    def phrase(self, names: Sequence[str], values: Sequence[Any], baseline: bool = False) -> str:
        """`untied, 4 blocks`; with `baseline`, no more than what differs from it where several fields are compared."""
        named = dict(zip(names, values, strict=True))
        base = self.report.ablation.report.baseline
        if baseline and len(named) > 1 and set(named) <= set(base):
            named = {name: value for name, value in named.items() if value != base[name]}
            if not named:
                return "baseline"
        return ", ".join(self.words(name, value) for name, value in named.items())

    def words(self, name: str, value: Any, whole: bool = False) -> str:
        """`untied`, `4 blocks`, `no position embedding`, `flip on`; `untied token mixing` where it is to be whole."""
        field, shown = field_words(self.report.ablation, name), value_text(self.report.ablation, name, value)
        if name in self.speaking and not (whole and name != FRAMEWORK):
            return shown
        if shown == NOTHING:
            return f"no {field}"
        if isinstance(value, bool) and shown == text(value):
            return f"{field} {'on' if value else 'off'}"
        if field.startswith(NUMBER_OF) and _is_number(value):
            things = field.removeprefix(NUMBER_OF)
            return f"{shown} {things.removesuffix('s') if value == 1 else things}"
        return f"{shown} {field}" if isinstance(value, str) else f"{field} {shown}"

    def names_text(self, names: Iterable[str]) -> str:
        return ", ".join(field_words(self.report.ablation, name) for name in names)


def roles_of(report: Report) -> Roles:
    varying = {name: values for name in keys(report.ablation) if len(values := report.values(name)) > 1}
    fields = [name for name in varying if name != FRAMEWORK]
    compared = tuple(name for name in varying if name in report.ablation.report.baseline) or tuple(fields[-1:])
    is_framework = FRAMEWORK in varying and FRAMEWORK not in compared
    frameworks = tuple(map(str, varying[FRAMEWORK])) if is_framework else ()
    beside = tuple(name for name in fields if name not in compared)
    speaking = frozenset(name for name in varying if _speaks(report, name))
    return Roles(report, compared, beside, frameworks, speaking)


def _speaks(report: Report, name: str) -> bool:
    words = (value_text(report.ablation, name, value) for value in report.values(name))
    return speaks_for_itself(report.ablation, report.table, name) and NOTHING not in words


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
