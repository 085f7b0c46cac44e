"""Points of a grid: products of axes, without those that are excluded."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from backends.errors import MixlabError
from experiments.design import axes
from experiments.design.axes import Point
from experiments.spec import fields
from experiments.spec.values import shown

Axes = dict[str, list[Point]]  # name of an axis -> its points


def read_axes(tree: Any, where: str) -> list[Axes]:
    """The axes of each mapping of a grid; see ablation.py for the form.

    Raises: MixlabError: it is empty, or names what is not a field.
    """
    if not tree:
        raise MixlabError(f"{where}: grid: expected a mapping of fields to lists of values, but it is empty")
    mappings = tree if isinstance(tree, list) else [tree]
    if not all(mappings):
        raise MixlabError(
            f"{where}: grid: expected fields with lists of values in each of its mappings, got an empty one"
        )
    return [_axes(mapping, f"{where}: grid") for mapping in mappings]


def _axes(mapping: Any, where: str) -> Axes:
    if not isinstance(mapping, dict):
        raise MixlabError(f"{where}: expected a mapping of fields to lists of values, got {shown(mapping)}")
    return {str(name): axis_points(str(name), values, where) for name, values in mapping.items()}


def axis_points(name: str, axis: Any, where: str) -> list[Point]:
    values = axis if isinstance(axis, list) else [axis]
    if not values:
        raise MixlabError(f"{where}: {name}: expected one value or several, got no values")
    if name.startswith("run."):
        raise MixlabError(
            f"{where}: {name} says how a trial runs, not what it is, so it cannot be an axis; set it in the base"
        )
    if all(isinstance(value, dict) for value in values):
        return [fields.typed(fields.flatten(value, f"{where}: {name}"), f"{where}: {name}") for value in values]
    fields.check_name(name, where)
    return [{name: value} for value in axes.values(axis, name, where)]


def products(grid: Sequence[Axes], where: str) -> list[Point]:
    points = []
    for mapping in grid:
        for parts in itertools.product(*mapping.values()):
            names = [name for part in parts for name in part]
            if twice := {name for name in names if names.count(name) > 1}:
                raise MixlabError(f"{where}: grid: two axes set {sorted(twice)[0]}; leave it out of one")
            points.append({name: value for part in parts for name, value in part.items()})
    return points


def read_rules(tree: Any, points: Sequence[Point], where: str) -> list[Point]:
    """The rules of `exclude`; each must match a point of the grid as it is written.

    Raises: MixlabError: a rule is no mapping of fields to values, or matches nothing.
    """
    where = f"{where}: exclude"
    rules: list[Point] = []
    if not isinstance(tree, list):
        raise MixlabError(f"{where}: expected a list of mappings of fields to values, got {shown(tree)}")
    for rule in tree:
        if not isinstance(rule, dict) or not rule:
            raise MixlabError(f"{where}: expected a mapping of fields to values, got {shown(rule)}")
        rules.append(fields.typed(fields.flatten(rule, where), where))
        if not any(_matches(point, rules[-1]) for point in points):
            raise MixlabError(f"{where}: {shown(rule)} matches no trial of the grid; leave it out, or correct it")
    return rules


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
    """Fields that differ between points, or that only some of them set."""
    for name in dict.fromkeys(name for point in points for name in point):
        values = [point.get(name, ...) for point in points]
        if any(value != values[0] for value in values):
            yield name
