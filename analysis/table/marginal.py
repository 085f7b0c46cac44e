"""Sentences on the factors of a grid: the effect of each value over all values of the others, and interactions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from analysis.factorial import Contrast, Effect, Factor, Grid, grid_of, interactions, marginal_effects, varying
from analysis.inference import ALPHA
from analysis.labels import field_words
from analysis.report import Report
from analysis.roles import roles_of
from analysis.settings import SEEDS, Tested
from analysis.table.tested import count_text, number_text, split_of, verdict_text
from analysis.table.wording import interval_and_level_text, number, p_text, points
from backends.errors import counted

ABOUT = (
    "of each value of one field, as the mean over all values of the others; Holm's correction counts these effects, "
    "and by itself the contrasts of interactions"
)


@dataclass(frozen=True)
class Told:
    """Lines on the marginal effects; why there are none, where several fields vary; neither where they do not."""

    lines: tuple[str, ...] = ()
    why_not: str = ""

    def all(self) -> list[str]:
        return [*self.lines, *filter(None, (self.why_not,))]


def told(report: Report) -> Told:
    if len(varying(report)) < 2 or not (report.table["n"] > 0).any():
        return Told()
    grid = grid_of(report)
    if isinstance(grid, str):
        return Told(why_not=f"There are no marginal effects: {grid}.")
    effects = [_line(grid, effect, one) for effect, one in marginal_effects(grid).items()]
    return Told((*effects, *_interactions(grid)))


def _line(grid: Grid, effect: Effect, one: Tested) -> str:
    """`untied token mixing over tied: +0.20 points [-0.41, 0.83], n = 3 seeds, not distinguishable, p = 0.4 (Holm)`.

    Where fields vary together, it ends with `; mean over the 3 combinations of learning rate and dropout`.
    """
    tested = ", ".join(
        filter(None, (count_text(one, split_of(grid.report.ablation)), verdict_text(one), holm_text(one)))
    )
    joint = [_combinations_text(grid, place) for place, factor in enumerate(grid.factors) if len(factor) > 1]
    over = f"; mean over {' and '.join(joint)}" if joint else ""
    return f"{_effect_text(grid, effect)}: {_difference_text(grid, one)}, {tested}{over}"


def _effect_text(grid: Grid, effect: Effect) -> str:
    """`untied token mixing over tied`."""
    roles = roles_of(grid.report)
    return f"{roles.words(effect.name, effect.value, whole=True)} over {roles.words(effect.name, effect.base)}"


def _combinations_text(grid: Grid, place: int) -> str:
    """`the 3 combinations of learning rate and dropout`."""
    names = [field_words(grid.report.ablation, name) for name in grid.factors[place]]
    return f"the {len(grid.levels(place))} combinations of {' and '.join(names)}"


def _difference_text(grid: Grid, one: Tested) -> str:
    ablation, found = grid.report.ablation, one.paired
    interval = interval_and_level_text(ablation, found.low, found.high, found.level)
    return f"{number(ablation, found.difference, '+', 1)} {points(ablation)} {interval}".rstrip()


def holm_text(one: Tested) -> str:
    """`p = 0.012 (Holm)`; empty without a test."""
    return f"{p_text(one.p_holm)} (Holm)" if one.over else ""


def _interactions(grid: Grid) -> Iterator[str]:
    """A line for each two fields that interact; one where none do."""
    by_fields: dict[Factor, dict[Contrast, Tested]] = {}
    for contrast, one in interactions(grid).items():
        if one.over:
            by_fields.setdefault((contrast[0].name, contrast[1].name), {})[contrast] = one
    tested = {contrast: one for of_two in by_fields.values() for contrast, one in of_two.items()}
    for names, of_two in by_fields.items():
        clear = {contrast: one for contrast, one in of_two.items() if one.p_holm < ALPHA}
        if clear:
            words = " and ".join(field_words(grid.report.ablation, name) for name in names)
            yield (
                f"{words} interact: {len(clear)} of {counted(len(of_two), 'contrast')} distinguishable from 0; "
                f"{_largest(grid, clear)}; the effect of one depends on the other, so that its mean over the other may "
                f"be true of no cell; look at the cells"
            )
    if tested and not any(one.p_holm < ALPHA for one in tested.values()):
        yield (
            f"no interaction of the fields is shown: 0 of {counted(len(tested), 'contrast')} distinguishable from 0; "
            f"{_largest(grid, tested)}"
        )


def _largest(grid: Grid, tested: Mapping[Contrast, Tested]) -> str:
    """`the largest: from 1 block to 4 blocks, untied over tied changes by +0.40 points [-3.1, 3.9], ...`."""
    ablation, roles = grid.report.ablation, roles_of(grid.report)
    contrast = max(tested, key=lambda one: abs(tested[one].paired.difference))
    one, base = tested[contrast], ablation.report.baseline
    where, effect = contrast if contrast[1].name in base or contrast[0].name not in base else contrast[::-1]
    place = f"from {roles.words(where.name, where.base, whole=True)} to {roles.words(where.name, where.value)}"
    over = f"over {one.over}{' alone' if one.over == SEEDS else ''}"
    return (
        f"{'the largest: ' if len(tested) > 1 else ''}{place}, {_effect_text(grid, effect)} changes by "
        f"{_difference_text(grid, one)}, "
        f"{number_text(one, split_of(ablation))}, {over}, {holm_text(one)}"
    )
