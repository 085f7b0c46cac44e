"""The points of a grid: products of axes, and what is left out of them."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from backends.errors import MixlabError
from experiments.spec import fields
from experiments.spec.values import shown

Point = dict[str, Any]  # field -> value, what one trial of a grid sets
Axes = dict[str, list[Point]]  # name of an axis -> its points


def read_axes(given: Any, where: str) -> list[Axes]:
    """The axes of each mapping of a grid; see ablation.py for the form.

    Raises: MixlabError: it is empty, or names what is not a field.
    """
    if not given:
        raise MixlabError(f"{where}: grid: it is empty; allowed: a mapping of fields to lists of values")
    mappings = given if isinstance(given, list) else [given]
    if not all(mappings):
        raise MixlabError(f"{where}: grid: one of its mappings is empty; allowed: fields with lists of values")
    return [_axes(mapping, f"{where}: grid") for mapping in mappings]


def _axes(mapping: Any, where: str) -> Axes:
    if not isinstance(mapping, dict):
        raise MixlabError(f"{where}: {shown(mapping)} came where a mapping of fields to lists of values is allowed")
    return {str(name): axis_points(str(name), given, where) for name, given in mapping.items()}


def axis_points(name: str, given: Any, where: str) -> list[Point]:
    values = given if isinstance(given, list) else [given]
    if not values:
        raise MixlabError(f"{where}: {name}: it has no values")
    if name.startswith("run."):
        raise MixlabError(
            f"{where}: {name} says how a trial runs, not what it is, so it makes no axis; set it in the base"
        )
    if all(isinstance(value, dict) for value in values):
        return [fields.typed(fields.flatten(value, f"{where}: {name}"), f"{where}: {name}") for value in values]
    fields.check_name(name, where)
    return [fields.typed({name: value}, where) for value in values]


def products(grid: Sequence[Axes], where: str) -> list[Point]:
    points = []
    for axes in grid:
        for parts in itertools.product(*axes.values()):
            names = [name for part in parts for name in part]
            if twice := {name for name in names if names.count(name) > 1}:
                raise MixlabError(f"{where}: grid: {sorted(twice)[0]} is set by two axes")
            points.append({name: value for part in parts for name, value in part.items()})
    return points


def read_rules(given: Any, points: Sequence[Point], where: str) -> list[Point]:
    """The rules of `exclude`; each must match a point of the grid as it is written.

    Raises: MixlabError: a rule is no mapping of fields to values, or matches nothing.
    """
    where = f"{where}: exclude"
    rules: list[Point] = []
    if not isinstance(given, list):
        raise MixlabError(f"{where}: {shown(given)} came where a list of mappings of fields to values is allowed")
    for rule in given:
        if not isinstance(rule, dict) or not rule:
            raise MixlabError(f"{where}: {shown(rule)} came where a mapping of fields to values is allowed")
        rules.append(fields.typed(fields.flatten(rule, where), where))
        if not any(_matches(point, rules[-1]) for point in points):
            raise MixlabError(f"{where}: {shown(rule)} matches no trial of the grid")
    return rules


def exclude(points: Sequence[Point], rules: Sequence[Point], where: str) -> list[Point]:
    """The points that no rule matches.

    Raises: MixlabError: none is left.
    """
    left = [point for point in points if not any(_matches(point, rule) for rule in rules)]
    if not left:
        raise MixlabError(f"{where}: grid: no trial is left after exclude")
    return left


def _matches(point: Point, match: Point) -> bool:
    return all(name in point and point[name] == value for name, value in match.items())


def varying(points: Sequence[Point]) -> Iterator[str]:
    """Fields that differ between points, or that only some of them set."""
    for name in dict.fromkeys(name for point in points for name in point):
        values = [point.get(name, ...) for point in points]
        if any(value != values[0] for value in values):
            yield name
