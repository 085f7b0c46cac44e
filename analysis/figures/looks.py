"""One look for all figures of a report: a colour for each setting that is compared, a line for each framework.

The rest of a table's fields are panels. A setting has the same colour and marker in every figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.style import COLOURS, DIM, LINES, MARKERS, MAX_SETTINGS, draw_legend, left_out, some, wrapped
from analysis.labels import Label, baseline_of, value_text
from analysis.report import Report
from analysis.roles import Roles, roles_of

LEGEND_LETTERS = 44  # on a line of the legend
MARKER = 4.5  # points


@dataclass(frozen=True, eq=False)
class Looks:
    """Settings of a report that have a colour."""

    report: Report
    roles: Roles
    settings: tuple[Label, ...]  # values of the compared fields, the baseline's first
    left_out: str  # a sentence on those without a colour

    def is_shown(self, label: Label) -> bool:
        return self.compared(label) in self.settings

    def compared(self, label: Label) -> Label:
        return self.roles.part(label, self.roles.compared)

    def of(self, label: Label) -> dict[str, Any]:
        """Colour, line and marker of a cell's line; its framework decides the line, and whether markers are full."""
        if not self.is_shown(label):
            return {**self.plain(label), "marker": ".", "markerfacecolor": DIM}
        return self._look(self.settings.index(self.compared(label)), self._framework(label))

    def plain(self, label: Label) -> dict[str, Any]:
        """The look of a line that no single setting has."""
        return {**self._look(0, self._framework(label)), "color": DIM, "marker": ""}

    def of_setting(self, label: Label) -> dict[str, Any]:
        """The look of a cell's setting, whatever its framework."""
        return {**self.of(label), "linestyle": LINES[0], "markerfacecolor": self.of(label)["color"]}

    def _framework(self, label: Label) -> int:
        named = self.roles.framework(label)
        return self.roles.frameworks.index(named) if named else 0

    def _look(self, place: int, framework: int) -> dict[str, Any]:
        look = {"color": COLOURS[place], "marker": MARKERS[place], "markersize": MARKER, "markeredgewidth": 1.1}
        return {
            **look,
            "linestyle": LINES[framework % len(LINES)],
            **({"markerfacecolor": "white"} if framework else {}),
        }

    def text(self, label: Label, without: Sequence[str] = ()) -> str:
        """A cell in words: `untied, 4 blocks, torch`."""
        names = [name for name in (*self.roles.compared, *self.roles.beside) if name not in without]
        words = self.roles.phrase(names, self.roles.part(label, names))
        framework = self.roles.framework_text(self.roles.framework(label)) if self.roles.frameworks else ""
        return ", ".join(filter(None, (words, framework))) or self.report.ablation.name

    def legend(self, figure: Figure, settings: bool = True, frameworks: bool = True, more: Sequence[str] = ()) -> None:
        """Draw the legend of what is shown.

        Args: more: further lines of text.
        """
        shown = self._entries() if settings and len(self.settings) > 1 else []
        title = wrapped(self.roles.names_text(self.roles.compared), LEGEND_LETTERS) if shown else ""
        for place, name in enumerate(self.roles.frameworks if frameworks else ()):
            face = "white" if place else DIM
            look = {**self._look(0, place), "color": DIM, "markerfacecolor": face}
            shown.append((look, self.roles.framework_text(name)))
        shown += [({"linestyle": "", "marker": ""}, line) for line in more]
        if not shown:
            return
        words = [wrapped(line, LEGEND_LETTERS) for _, line in shown]
        draw_legend(figure, [Line2D([], [], **look) for look, _ in shown], words, title)

    def _entries(self) -> list[tuple[dict[str, Any], str]]:
        """The look and the words of each setting."""
        names, has_baseline = self.roles.compared, bool(self.report.ablation.report.baseline)
        entries = []
        for place, setting in enumerate(self.settings):
            if len(names) == 1:
                words = value_text(self.report.ablation, names[0], setting[0])
                words += " (baseline)" if has_baseline and not place else ""
            else:
                words = self.roles.phrase(names, setting, baseline=True)
            entries.append((self._look(place, 0), words))
        return entries


def looks_of(report: Report) -> Looks:
    roles = roles_of(report)
    found = list(dict.fromkeys(roles.part(label, roles.compared) for label in report.labels))
    bases = [baseline_of(report.ablation, label) for label in report.labels]
    first = {roles.part(base, roles.compared): None for base in bases if base is not None}
    ordered = sorted(found, key=lambda setting: setting not in first)
    num_first = 1 if first else 0  # the baseline; the others reach from end to end
    shown = [*ordered[:num_first], *some(ordered[num_first:], MAX_SETTINGS - num_first)]
    what = f"values of {roles.names_text(roles.compared)}"
    return Looks(report, roles, tuple(shown), left_out(len(shown), len(found), what))
