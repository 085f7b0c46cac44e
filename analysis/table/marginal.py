"""Sentences on the factors of a grid: the effect of each value over all values of the others, and interactions."""

from collections.abc import Iterator, Mapping

from analysis.factorial import Contrast, Effect, Factor, Grid, grid_of, interactions, marginal_effects, varying
from analysis.inference import ALPHA
from analysis.labels import field_text, setting_text, value_text
from analysis.report import Report
from analysis.settings import SEEDS, Tested
from analysis.table.tested import counted, number_text, split_of, verdict_text
from analysis.table.wording import interval_and_level_text, number, p_text, points

ABOUT = (
    "of each value of one field, as the mean over all values of the others; Holm's correction counts these effects, "
    "and by itself the contrasts of interactions"
)


def sentences(report: Report) -> list[str]:
    """Lines on the marginal effects; why there are none, where several fields vary; nothing where they do not."""
    if len(varying(report)) < 2 or not (report.table["n"] > 0).any():
        return []
    grid = grid_of(report)
    if isinstance(grid, str):
        return [f"There are no marginal effects: {grid}."]
    effects = [_sentence(grid, effect, one) for effect, one in marginal_effects(grid).items()]
    return [*effects, *_interactions(grid)]


def _sentence(grid: Grid, effect: Effect, one: Tested) -> str:
    """`token_mixing=untied over tied: +0.20 points [-0.41, 0.83], n = 3 seeds, not distinguishable, p = 0.400 (Holm);
    mean over num_blocks`.
    """
    ablation = grid.report.ablation
    others = ", ".join(
        _factor_text(grid, place) for place, factor in enumerate(grid.factors) if factor != (effect.name,)
    )
    tested = ", ".join(filter(None, (number_text(one, split_of(ablation)), verdict_text(one), holm_text(one))))
    return f"{_effect_text(grid, effect)}: {_difference_text(grid, one)}, {tested}; mean over {others}"


def _effect_text(grid: Grid, effect: Effect) -> str:
    """`token_mixing=untied over tied`."""
    ablation = grid.report.ablation
    return f"{setting_text(ablation, effect.name, effect.value)} over {value_text(ablation, effect.name, effect.base)}"


def _factor_text(grid: Grid, place: int) -> str:
    """`num_blocks`, `the 3 combinations of learning_rate and dropout`."""
    names = [field_text(grid.report.ablation, name) for name in grid.factors[place]]
    return names[0] if len(names) == 1 else f"the {len(grid.levels(place))} combinations of {' and '.join(names)}"


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
            words = " and ".join(field_text(grid.report.ablation, name) for name in names)
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
    """`the largest: from num_blocks=1 to 4 untied over tied changes by +0.40 points [-3.10, 3.90] (97.5 %), ...`."""
    ablation = grid.report.ablation
    contrast = max(tested, key=lambda one: abs(tested[one].paired.difference))
    one, base = tested[contrast], ablation.report.baseline
    where, effect = contrast if contrast[1].name in base or contrast[0].name not in base else contrast[::-1]
    place = f"from {setting_text(ablation, where.name, where.base)} to {value_text(ablation, where.name, where.value)}"
    over = f"over {one.over}{' alone' if one.over == SEEDS else ''}"
    return (
        f"{'the largest: ' if len(tested) > 1 else ''}{place}, {_effect_text(grid, effect)} changes by "
        f"{_difference_text(grid, one)}, "
        f"{number_text(one, split_of(ablation))}, {over}, {holm_text(one)}"
    )
