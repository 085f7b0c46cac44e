"""Two trials side by side: what differs in their fields, code, environment and data, and where their curves part."""

import json
from collections.abc import Iterator

from analysis.examples import both
from analysis.one_trial import Fields, OneTrial
from analysis.parting import Numbers, parting
from analysis.table.layout import aligned
from backends.errors import counted
from experiments.results import predictions
from experiments.results.metrics import PREDICTED, STEP_LOSS
from experiments.results.shape import DONE
from experiments.spec.fields import text

MAX_VALUE = 60  # letters
MAX_LINES = 60  # of a section
NOTHING = "—"


def diff_lines(first: OneTrial, second: OneTrial) -> list[str]:
    """Lines on two trials; what is the same in both is counted and not listed."""
    sides = (first, second)
    lines = [f"{name}  {_head(side)}" for name, side in zip("AB", sides, strict=True)]
    lines += [f"damaged: {sentence}" for side in sides for sentence in side.damage]
    sections = (
        ("spec", first.spec, second.spec),
        ("code", first.code, second.code),
        ("environment", first.environment, second.environment),
        ("data", first.data, second.data),
    )
    for title, one, other in sections:
        lines += ["", *_section(title, one, other)]
    lines += ["", *_curve_lines(first, second)]
    return [*lines, *_examples_lines(first, second)]


def _head(side: OneTrial) -> str:
    why = f": {side.state.why}" if side.state.why else ""
    return f"trial {side.id}: {side.state.status}{why} ({side.folder})"


def _section(title: str, first: Fields, second: Fields) -> list[str]:
    """A row for each field that differs."""
    if not first or not second:
        lacks = " and ".join(name for name, fields in (("A", first), ("B", second)) if not fields)
        return [f"{title}: nothing is known of {lacks}"]
    names = list(dict.fromkeys((*first, *second)))
    apart = [name for name in names if _bits(first, name) != _bits(second, name)]
    if not apart:
        return [f"{title}: the same, {counted(len(names), 'field')}"]
    layout = [[title, "A", "B"]]
    layout += [[name, *(_clipped(_text(side, name)) for side in (first, second))] for name in apart[:MAX_LINES]]
    more = [f"and {counted(len(apart) - MAX_LINES, 'more field')}"] if len(apart) > MAX_LINES else []
    return [*aligned(layout), *more, f"{counted(len(names) - len(apart), 'field')} of {title} the same"]


def _bits(fields: Fields, name: str) -> str:
    """A value to the last bit; a whole number that a file may write in two ways is one value."""
    value = fields.get(name)
    return f"{name in fields} {json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)}"


def _text(fields: Fields, name: str) -> str:
    value = fields.get(name)
    return NOTHING if name not in fields else repr(value) if isinstance(value, float) else text(value)


def _clipped(value: str) -> str:
    line = " ".join(value.split())
    return line if len(line) <= MAX_VALUE else f"{line[: MAX_VALUE - 1]}…"


def _curve_lines(first: OneTrial, second: OneTrial) -> Iterator[str]:
    lengths = (len(first.curve), len(second.curve))
    if not all(lengths):
        yield f"curves: {counted(lengths[0], 'evaluation')} of A, {lengths[1]} of B: nothing to compare"
        return
    found = parting(first.curve, second.curve)
    if not found.steps:
        yield f"curves: {counted(lengths[0], 'evaluation')} of A, {lengths[1]} of B, none at the same step"
        return
    common = (
        f"curves: {counted(lengths[0], 'evaluation')} of A, {lengths[1]} of B, {len(found.steps)} at the same steps"
    )
    if found.apart_at is None:
        yield f"{common}: equal to the last bit, to step {found.same_until}"
        return
    before = "" if found.same_until is None else f"equal to the last bit until step {found.same_until}, "
    yield f"{common}: {before}apart from step {found.apart_at} on"
    yield from _numbers(found.apart_at, found.steps[-1], found.first, found.last)


def _numbers(step: int, last_step: int, first: Numbers, last: Numbers) -> list[str]:
    layout = [[f"at step {step}", "A", "B", "B minus A", f"at step {last_step}"]]
    for name, (one, other) in first.items():
        shown = "step loss" if name == STEP_LOSS else name.replace("_", " ")
        layout.append(
            [shown, _number(one), _number(other), _change(one, other), _change(*last.get(name, (None, None)))]
        )
    return aligned(layout)


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.9g}"


def _change(first: float | None, second: float | None) -> str:
    if first is None or second is None:
        return NOTHING
    return "equal" if first == second else f"{second - first:+.3g}"


def _examples_lines(first: OneTrial, second: OneTrial) -> list[str]:
    """How far two trials that are done say the same of each example."""
    if any(side.state.status != DONE for side in (first, second)):
        return []
    lines = []
    for name in PREDICTED:
        when, split = name.split(".")
        found = both(*(predictions.read(side.folder, when, split) for side in (first, second)))
        if found is not None:
            lines.append(
                f"{name}: the same class of {found.same_class:,} of {counted(found.num, 'example')}; "
                f"A alone is right of {found.first_alone:,}, B alone of {found.second_alone:,}"
            )
    return ["", *(lines or ["predictions: none of the same examples on both sides"])]
