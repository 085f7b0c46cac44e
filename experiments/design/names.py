"""Names of axes whose values are mappings, and of these values.

Such an axis has a name of its own, and each of its values has one: `name` in its mapping, else its values joined by a
space. A point of the grid holds them beside the fields, as `axis.NAME` -> name of the value.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from backends.errors import MixlabError, nearest
from experiments.design.axes import Point
from experiments.spec import fields
from experiments.spec.values import shown

Axes = dict[str, list[Point]]  # name of an axis -> its points
AXIS = "axis."  # how the key of an axis of mappings begins; no field does
NAME = "name"  # in a mapping of such an axis


def mapping_point(axis: str, value: Mapping[str, Any], where: str) -> Point:
    """The point of one mapping, with its name where the axis has a name of its own."""
    if axis in fields.names() or fields.is_section(axis):
        return fields.typed(fields.flatten(value, where), where)
    own = {key: setting for key, setting in value.items() if key != NAME}
    settings = fields.typed(fields.flatten(own, where), where)
    name = value.get(NAME, " ".join(map(fields.text, settings.values())))
    if not isinstance(name, str) or not name.strip():
        raise MixlabError(f"{where}: {NAME}: expected text, got {shown(name)}")
    return {f"{AXIS}{axis}": name, **settings}


def check_all(grid: Sequence[Axes], where: str) -> None:
    """Raises: MixlabError: two values of one axis have the same name."""
    known: dict[tuple[str, str], Point] = {}
    for axis, point in ((axis, point) for mapping in grid for axis, points in mapping.items() for point in points):
        name = point.get(f"{AXIS}{axis}")
        if name is not None and known.setdefault((axis, name), point) != point:
            example = shown({NAME: f"{name} 2"}).replace("'", "")[:-1]
            raise MixlabError(
                f"{where}: {axis}: two of its values are called {shown(name)}; give one a name in its mapping, "
                f"such as {example}, ...}}"
            )


def named(grid: Sequence[Axes]) -> dict[str, tuple[str, ...]]:
    """Axes of mappings, by the keys that they have in points, with the fields that they set."""
    keys = dict.fromkeys(f"{AXIS}{axis}" for mapping in grid for axis in mapping)
    points = [point for mapping in grid for points in mapping.values() for point in points]
    by_key = {key: [point for point in points if key in point] for key in keys}
    return {
        key: tuple(dict.fromkeys(name for point in own for name in point if name != key))
        for key, own in by_key.items()
        if own
    }


def key_of(name: str, keys: Sequence[str] | Mapping[str, Any]) -> str:
    """The key that a name of YAML has in points: a field's is its name, that of an axis of mappings begins with AXIS.

    Args: keys: of the axes of mappings.
    """
    return f"{AXIS}{name}" if f"{AXIS}{name}" in keys else name


def check_name(name: str, keys: Sequence[str] | Mapping[str, Any], where: str) -> str:
    """The key of a name in YAML.  Raises: MixlabError: neither a field nor an axis has it; says the nearest."""
    key = key_of(name, keys)
    if key == name and name not in fields.names():
        if near := nearest(name, [key.removeprefix(AXIS) for key in keys]):
            raise MixlabError(f"{where}: {shown(name)} is neither a field nor an axis of the grid{near}")
        fields.check_name(name, where)
    return key


def typed(tree: Mapping[str, Any], keys: Sequence[str] | Mapping[str, Any], where: str) -> Point:
    """Fields, nested or not, and names of axes, with their values.  Raises: MixlabError: see fields.flatten."""
    of_axes = {name: value for name, value in tree.items() if key_of(name, keys) != name}
    others = {name: value for name, value in tree.items() if name not in of_axes}
    for name in others:
        if not fields.is_section(name):
            check_name(name, keys, where)
    for name, value in of_axes.items():
        if not isinstance(value, str):
            raise MixlabError(f"{where}: {name}: expected the name of one of its values, got {shown(value)}")
    settings = fields.typed(fields.flatten(others, where), where)
    return {f"{AXIS}{name}": str(value) for name, value in of_axes.items()} | settings


def settings(point: Point) -> Point:
    """The fields of a point, without the names of axes."""
    return {name: value for name, value in point.items() if not name.startswith(AXIS)}
