"""Points of a grid: products of axes, without those that are excluded."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.errors import MixlabError, choices
from experiments.design import axes, names
from experiments.design.axes import MAX_VALUES, Call, Point
from experiments.design.names import Axes
from experiments.spec import fields
from experiments.spec.scalars import TwoReadings, Unfit, number
from experiments.spec.values import shown

SAMPLES, SEED = "samples", "samples_seed"  # of the axes that are drawn; see axes.py


@dataclass(frozen=True)
class Sampling:
    """The numbers that axes are drawn with; None: they are not given."""

    samples: int | None = None
    seed: int | None = None


def read_sampling(tree: Mapping[str, Any], above: Sampling, where: str) -> Sampling:
    """The sampling of a mapping with its own keys. Args: above: what it has where it says nothing."""
    return Sampling(
        _count(tree[SAMPLES], 1, f"{where}: {SAMPLES}") if SAMPLES in tree else above.samples,
        _count(tree[SEED], 0, f"{where}: {SEED}") if SEED in tree else above.seed,
    )


def _count(value: Any, least: int, where: str) -> int:
    try:
        found = int(number(str(value), int))
    except (Unfit, TwoReadings):
        found = -1
    if not least <= found <= (MAX_VALUES if least else 2**63):
        raise MixlabError(f"{where}: expected a whole number from {least} on, got {shown(value)}")
    return found


def read_axes(tree: Any, where: str, sampling: Sampling = Sampling()) -> list[Axes]:
    """The axes of each mapping of a grid; see ablation.py for the form.

    Args:   sampling: of mappings that have none of their own.
    Raises: MixlabError: it is empty, or names what is not a field.
    """
    if not tree:
        raise MixlabError(f"{where}: grid: expected a mapping of fields to lists of values, but it is empty")
    mappings = tree if isinstance(tree, list) else [tree]
    if not all(mappings):
        raise MixlabError(
            f"{where}: grid: expected fields with lists of values in each of its mappings, got an empty one"
        )
    grid = [_axes(mapping, sampling, f"{where}: grid") for mapping in mappings]
    names.check_all(grid, f"{where}: grid")
    if sampling != Sampling() and not _is_any_drawn(mappings):
        given = SAMPLES if sampling.samples is not None else SEED
        raise MixlabError(f"{where}: {given}: no axis is drawn; leave it out, or draw one, such as uniform(0, 0.3)")
    return grid


def _is_any_drawn(mappings: Sequence[Mapping[str, Any]]) -> bool:
    written = [
        (str(name), values) for mapping in mappings for name, values in mapping.items() if name in fields.names()
    ]
    calls = [axes.read_call(values, name) for name, values in written]
    return any(call is not None and call.is_drawn for call in calls)


def _axes(mapping: Any, sampling: Sampling, where: str) -> Axes:
    if not isinstance(mapping, dict):
        raise MixlabError(f"{where}: expected a mapping of fields to lists of values, got {shown(mapping)}")
    written = {str(name): values for name, values in mapping.items() if name not in (SAMPLES, SEED)}
    of_fields = {name: values for name, values in written.items() if name in fields.names()}
    for name, values in of_fields.items():
        axes.check_calls(values, name, where)
    calls = {name: axes.read_call(values, name) for name, values in of_fields.items()}
    drawn = {name: call for name, call in calls.items() if call is not None and call.is_drawn}
    if not drawn and (given := [name for name in (SAMPLES, SEED) if name in mapping]):
        raise MixlabError(f"{where}: {given[0]}: no axis beside it is drawn; leave it out, or draw one")
    by_name: Axes = {}
    for name, values in written.items():
        if name not in drawn:
            by_name[name] = axis_points(name, values, where)
        elif name == next(iter(drawn)):  # all that are drawn are one axis, at the place of the first
            own = read_sampling(mapping, sampling, where)
            by_name[name if len(drawn) == 1 else SAMPLES] = _samples(drawn, own, where)
    return by_name


def _samples(drawn: Mapping[str, Call], sampling: Sampling, where: str) -> list[Point]:
    field, call = next(iter(drawn.items()))
    for name in drawn:
        check_varies(name, where)
    if sampling.samples is None or sampling.seed is None:
        missing = SAMPLES if sampling.samples is None else SEED
        raise MixlabError(
            f"{where}: {field}: {shown(call.text)} is drawn, and {missing} is not given; "
            f"add it beside the axis or at the top, such as {SAMPLES}: 8 and {SEED}: 0"
        )
    return axes.samples(drawn, sampling.samples, sampling.seed, where)


def axis_points(name: str, axis: Any, where: str) -> list[Point]:
    values = axis if isinstance(axis, list) else [axis]
    if not values:
        raise MixlabError(f"{where}: {name}: expected one value or several, got no values")
    check_varies(name, where)
    if all(isinstance(value, dict) for value in values):
        return [names.mapping_point(name, value, f"{where}: {name}") for value in values]
    fields.check_name(name, where)
    return [{name: value} for value in axes.values(axis, name, where)]


def check_varies(name: str, where: str) -> None:
    """Raises: MixlabError: a field cannot be an axis, since it changes nothing of what a trial is."""
    if name.startswith("run."):
        raise MixlabError(
            f"{where}: {name} says how a trial runs, not what it is, so it cannot be an axis; set it in the base"
        )


def products(grid: Sequence[Axes], where: str) -> list[Point]:
    points = []
    for mapping in grid:
        for parts in itertools.product(*mapping.values()):
            both = [name for part in parts for name in part]
            if twice := {name for name in both if both.count(name) > 1}:
                raise MixlabError(f"{where}: grid: two axes set {sorted(twice)[0]}; leave it out of one")
            points.append({name: value for part in parts for name, value in part.items()})
    return points


def read_rules(tree: Any, points: Sequence[Point], keys: Mapping[str, Any], where: str) -> list[Point]:
    """The rules of `exclude`; each must match a point of the grid as it is written.

    Args:   keys: of the axes of mappings.
    Raises: MixlabError: a rule is no mapping of fields to values, or matches nothing.
    """
    where = f"{where}: exclude"
    rules: list[Point] = []
    if not isinstance(tree, list):
        raise MixlabError(f"{where}: expected a list of mappings of fields to values, got {shown(tree)}")
    for rule in tree:
        if not isinstance(rule, dict) or not rule:
            raise MixlabError(f"{where}: expected a mapping of fields to values, got {shown(rule)}")
        rules.append(names.typed(rule, keys, where))
        if not any(_matches(point, rules[-1]) for point in points):
            raise MixlabError(f"{where}: {shown(rule)} matches no trial of the grid; {_unmatched(rules[-1], points)}")
    return rules


def _unmatched(rule: Point, points: Sequence[Point]) -> str:
    """The end of an error sentence: the values that the grid has in place of one of a rule that it has not."""
    for name, value in rule.items():
        own = list(dict.fromkeys(point[name] for point in points if name in point))
        if value not in own:
            told = name.removeprefix(names.AXIS)
            return f"{told}: {choices(value, map(fields.text, own))}" if own else f"leave it out: {told} is no axis"
    return "leave it out, or correct it"


def exclude(points: Sequence[Point], rules: Sequence[Point], where: str) -> list[Point]:
    """The points that no rule matches.

    Raises: MixlabError: none is left.
    """
    left = [point for point in points if not any(_matches(point, rule) for rule in rules)]
    if not left:
        raise MixlabError(f"{where}: grid: exclude takes out every trial; leave one of its rules out")
    return left


def _matches(point: Point, match: Point) -> bool:
    return all(name in point and point[name] == value for name, value in match.items())


def varying(points: Sequence[Point]) -> Iterator[str]:
    """Fields and axes that differ between points, or that only some of them set."""
    for name in dict.fromkeys(name for point in points for name in point):
        values = [point.get(name, ...) for point in points]
        if any(value != values[0] for value in values):
            yield name
