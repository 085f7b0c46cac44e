"""What words `key=value` of the command line change in an ablation.

seed=[0,1]  model.num_blocks=2         a field, see spec/overrides.py; a list, or log(1e-4, 1e-2, 5), makes an axis
mixing=tied  'mixing=[tied, wide]'     of an axis of mappings the values with these names
samples=16  samples_seed=1             of the axes that are drawn
report.metric=best.test.accuracy  'report.rows=[mixing]'  report.baseline.mixing=tied  report.equivalence=null
"""

from collections.abc import Sequence
from typing import Any

from backends.errors import MixlabError, choices
from experiments.design import axes, grid, names
from experiments.design.axes import Point
from experiments.design.names import AXIS, Axes
from experiments.spec import fields
from experiments.spec.overrides import read_override, read_value
from experiments.spec.values import shown

COMMAND_LINE = "command line"
REPORT = "report"


def of_fields(words: Sequence[str]) -> list[str]:
    """The words that set fields, or choose values of an axis."""
    return [word for word in words if not _is_of_report(word) and _name(word) not in (grid.SAMPLES, grid.SEED)]


def of_report(words: Sequence[str]) -> list[str]:
    """The words that set a part of the report."""
    return [word for word in words if _is_of_report(word)]


def _is_of_report(word: str) -> bool:
    return word.startswith(f"{REPORT}.")


def _name(word: str) -> str:
    return word.partition("=")[0]


def with_samples(tree: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """The tree of an ablation with the numbers of its drawn axes as the words say, where it has them."""
    for word in words:
        name, _, value = word.partition("=")
        if name in (grid.SAMPLES, grid.SEED):
            mappings = tree["grid"] if isinstance(tree.get("grid"), list) else [tree.get("grid")]
            for mapping in mappings:
                if isinstance(mapping, dict) and name in mapping:
                    mapping[name] = value
            tree = {**tree, name: value}
    return tree


def with_report(tree: Any, words: Sequence[str]) -> Any:
    """The tree of a report with the parts that the words name.

    Raises: MixlabError: a word has another form, or sets a part of what is no mapping.
    """
    if not (wanted := of_report(words)):
        return tree
    changed: dict[str, Any] = dict(tree) if isinstance(tree, dict) else {}
    for word in wanted:
        name, value = read_value(word, COMMAND_LINE)
        key, _, inner = name.removeprefix(f"{REPORT}.").partition(".")
        if inner:
            own = changed.get(key)
            if own is not None and not isinstance(own, dict):
                raise MixlabError(f"{COMMAND_LINE}: {name}: {REPORT}.{key} has no parts; it is {shown(own)}")
            changed[key] = {**_flat(own or {}), inner: value}
        elif value is None:
            changed.pop(key, None)
        else:
            changed[key] = value
    return changed


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping by dotted names."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def apply(mappings: list[Axes], words: Sequence[str]) -> Point:
    """Put lists of values, and values of fields that the grid sets, into its mappings; returns the single values."""
    single: Point = {}
    for word in of_fields(words):
        if _name(word) not in fields.names() and any(_is_named(_name(word), mapping) for mapping in mappings):
            _choose(mappings, word)
            continue
        name, value = read_override(word, COMMAND_LINE)
        is_axis = isinstance(value, list) or axes.read_call(value, name) is not None
        holders = [mapping for mapping in mappings if name in mapping]
        for mapping in mappings:
            for axis, points in mapping.items():
                if axis != name and any(name in point for point in points):
                    raise MixlabError(
                        f"{COMMAND_LINE}: the axis {axis!r} of the grid sets {name} together with other fields; change "
                        f"it in the YAML"
                    )
        for mapping in mappings if is_axis else holders:
            mapping[name] = grid.axis_points(name, value, COMMAND_LINE)
        if not is_axis:
            single |= fields.typed({name: value}, COMMAND_LINE)
    return single


def _is_named(name: str, mapping: Axes) -> bool:
    return any(f"{AXIS}{name}" in point for point in mapping.get(name, ()))


def _choose(mappings: list[Axes], word: str) -> None:
    """Leave an axis of mappings the values that a word names.  Raises: MixlabError: none has the name."""
    axis, value = read_value(word, COMMAND_LINE)
    wanted = value if isinstance(value, list) else [value]
    for mapping in mappings:
        points = {point[f"{AXIS}{axis}"]: point for point in mapping.get(axis, ())}
        if unknown := [one for one in wanted if one not in points]:
            raise MixlabError(
                f"{COMMAND_LINE}: {axis}: expected the name of one of its values, or a list of them, "
                f"got {shown(unknown[0])}; {choices(unknown[0], points)}"
            )
        if not wanted:
            raise MixlabError(f"{COMMAND_LINE}: {axis}: expected the names of values, got none")
        mapping[axis] = [points[one] for one in wanted]


def names_of(words: Sequence[str], keys: Sequence[str]) -> list[str]:
    """The keys in points of what the words set. Args: keys: of the axes of mappings."""
    return [names.key_of(_name(word), keys) for word in of_fields(words)]
