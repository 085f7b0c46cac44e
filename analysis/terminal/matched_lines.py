"""Lines on the widths that `matched:` of an ablation has solved."""

from collections.abc import Sequence

from analysis.labels import field_text, setting_text
from experiments.design import matched
from experiments.design.ablation import Ablation, GridTrial

LEFT_OUT = ("seed", "backend", "train.")  # the beginnings of fields that change no width


def matched_lines(ablation: Ablation, trials: Sequence[GridTrial]) -> list[str]:
    """A line for each setting whose width was solved: the width, and how close it comes to the baseline."""
    lines: dict[str, None] = {}
    for quantity, width in ablation.matched.items():
        count, noun = matched.COUNTS[quantity], matched.NOUNS[quantity]
        cells = {_label(ablation, one, is_baseline=False): one for one in reversed(trials)}
        for one in trials:
            other = cells.get(_label(ablation, one, is_baseline=True))
            if width not in one.settings or other is None:
                continue
            own, base = count(one.trial.model), count(other.trial.model)
            found = f"{field_text(ablation, width)} {one.settings[width]} gives {own:,} {noun}"
            told = f"{found}, {own / base - 1:+.2%} to the {base:,} of {_baseline(ablation)}"
            lines[f"matched: {_words(ablation, one, width)}: {told}"] = None
    return list(lines)


def _label(ablation: Ablation, planned: GridTrial, *, is_baseline: bool) -> tuple[object, ...]:
    instead = ablation.report.baseline if is_baseline else {}
    return matched.label(planned.settings, dict(ablation.base), ablation.report, instead)


def _words(ablation: Ablation, planned: GridTrial, width: str) -> str:
    hidden = (*planned.implied, width)
    left = [name for name in planned.settings if name not in hidden and not name.startswith(LEFT_OUT)]
    return " ".join(setting_text(ablation, name, planned.settings[name]) for name in left)


def _baseline(ablation: Ablation) -> str:
    return " ".join(setting_text(ablation, name, value) for name, value in ablation.report.baseline.items())
