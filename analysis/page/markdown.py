"""The report page as Markdown, beside its pictures: small enough to commit, and read on any host of repositories."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from analysis.figures.style import Drawn
from analysis.table.layout import markdown, paragraph, plain
from analysis.table.render import Rendered


def markdown_page(parts: Mapping[str, Any], rendered: Rendered, figures: Sequence[Drawn], command: str) -> str:
    """The page of one ablation, whose pictures are the files in `figures/`. All text from outside is escaped.

    Args: parts: of page.section.    figures: in the order of the page.    command: the one that made it.
    """
    return "\n".join(_lines(parts, rendered, figures, command)).rstrip() + "\n"


def _lines(parts: Mapping[str, Any], rendered: Rendered, figures: Sequence[Drawn], command: str) -> Iterator[str]:
    yield from (f"# {plain(parts['question'])}", "", paragraph(parts["answer"]))
    yield from _listed("", parts["others"])
    yield from map(paragraph, parts["about"])
    yield from (*markdown(rendered.layout), "")
    yield from map(paragraph, [*rendered.differences, *parts["notes"]])
    yield from _listed("What the paper says", [f"{line} (arXiv 2105.01601)" for line in parts["findings"]])
    for figure in figures:
        yield from (f"## {plain(figure.title)}", "", f"![{plain(figure.title)}](figures/{figure.name}.svg)", "")
        yield paragraph(figure.caption)
    yield from _listed("Marginal effects", parts["marginal"], parts["about_marginal"])
    yield from _listed("Trends", parts["trends"])
    if parts["cost"]:
        yield from ("## Cost", "", *markdown([[*parts["cost_columns"]], *parts["cost"]]), "")
    yield from _listed("Parity", parts["parity"])
    yield from _listed("Environment", parts["environments"])
    yield from ("## To reproduce", "", "```bash", _one_line(parts["run"]), _one_line(command), "```", "")
    yield paragraph(f"Ids of {parts['num_trials']} trials, {len(parts['ids'])} shown: {' '.join(parts['ids'])}")


def _listed(title: str, lines: Sequence[str], about: str = "") -> Iterator[str]:
    """A list below its title, and a sentence on it; nothing where there are no lines."""
    if lines:
        yield from (f"## {title}", "") if title else ()
        yield from (paragraph(about),) if about else ()
        yield from (*(f"- {plain(line)}" for line in lines), "")


def _one_line(command: str) -> str:
    """A command that cannot end the block of code which holds it."""
    return " ".join(command.split())
