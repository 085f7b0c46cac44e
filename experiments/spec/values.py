"""Values of fields, read by what the field declares: its type, its range, its words. The text decides nothing.

text     as it is written: 2024_01_05, yes and 010 stay what they are
number, flag    as scalars.py reads them
list, mapping   of these

Fields of trials and reports and keys of cluster files are all read here; option() declares their ranges.
"""

import dataclasses
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from backends.errors import MixlabError, listed, nearest
from experiments.spec import scalars
from experiments.spec.expand import expand
from experiments.spec.scalars import SHOWN, TwoReadings, Unfit

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
CONTAINERS = {list: "a list", tuple: "a list", dict: "a mapping"}
SEVERAL = {int: "whole numbers", float: "numbers"}


def typed(kind: type, name: str, value: Any, where: str) -> Any:
    """The value as the field `name` of the dataclass `kind` holds it; a path is expanded.

    Args:   value: as read_mapping or the command line gives it, or of the field's type already.
            where: what the error sentence begins with: file and key.
    Raises: MixlabError: the value is not of the field's type, outside of its range, none of its words, an empty path,
            or has two readings.
    """
    field = _field(kind, name)
    try:
        converted = field.converted(value, field.hint)
    except TwoReadings as error:
        raise MixlabError(f"{where}: {shown(value)} {error}") from error
    except Unfit as error:
        raise MixlabError(f"{where}: expected {field}, got {shown(value)}{error}") from error
    if field.is_path and converted == "":
        raise MixlabError(f"{where}: expected a path{' or null' if field.may_be_null else ''}, got an empty text")
    return _expanded(converted, where) if field.is_path else converted


def allowed_values(kind: type, name: str) -> str:
    """What a field may hold, in words: its type, its range, all of its words."""
    field = _field(kind, name)
    return field.told(", ".join(field.words))


def may_be_null(kind: type, name: str) -> bool:
    """Whether a field may hold None."""
    return _field(kind, name).may_be_null


def may_be_list(kind: type, name: str) -> bool:
    """Whether a list is one value of a field."""
    return any(_is_list(one) for one in _alternatives(_field(kind, name).hint))


def is_list(kind: type, name: str) -> bool:
    """Whether a field holds nothing but lists, or None."""
    return all(_is_list(one) for one in _alternatives(_field(kind, name).hint) if one is not types.NoneType)


def bounds(kind: type, name: str) -> tuple[float | None, float | None]:
    """The least and the greatest number that a field may hold; None: there is none."""
    field = _field(kind, name)
    return field.low, field.high


def is_free_text(kind: type, name: str) -> bool:
    """Whether a field holds any text, not one of some words."""
    field = _field(kind, name)
    return str in _alternatives(field.hint) and not field.is_word


def is_whole(kind: type, name: str) -> bool:
    """Whether a field holds whole numbers."""
    return int in _alternatives(_field(kind, name).hint)


def shown(value: Any) -> str:
    """A value as an error sentence shows it, cut to SHOWN letters."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else _plain_repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _plain_repr(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)


@dataclass(frozen=True)
class _Field:
    """What a field declares: its annotation, and its metadata as option() writes it."""

    hint: Any
    low: float | None = None
    high: float | None = None
    words: tuple[str, ...] = ()
    is_path: bool = False
    is_word: bool = False

    @property
    def may_be_null(self) -> bool:
        return types.NoneType in _alternatives(self.hint)

    def __str__(self) -> str:
        return self.told(listed(self.words))

    def told(self, words: str) -> str:
        """What it may hold, in words. Args: words: those that it may be, in a row."""
        kinds = [one for one in _alternatives(self.hint) if one is not types.NoneType]
        lists = [one for one in kinds if _is_list(one)]
        text = " or ".join(map(_kind, kinds))
        if words:
            text = f"a list of words out of {words}" if kinds == lists else f"one of {words}"
            text += ", or a list of them" if lists and kinds != lists else ""
        ends = (("least", self.low), ("most", self.high))
        bounds = ", ".join(f"at {end} {bound:.9g}" for end, bound in ends if bound is not None)
        each = "each " if kinds == lists else ""
        return text + (f" ({each}{bounds})" if bounds else "") + (" or null" if self.may_be_null else "")

    def converted(self, value: Any, hint: Any) -> Any:
        """A value in the type of an annotation, in range.  Raises: Unfit; TwoReadings."""
        for one in _alternatives(hint):
            outer, inner = get_origin(one), get_args(one)
            if one is types.NoneType and value is None:
                return None
            if outer is list and isinstance(value, list):
                return [self.converted(item, inner[0]) for item in value]
            if outer is tuple and isinstance(value, (list, tuple)):
                return tuple(self.converted(item, inner[0]) for item in value)
            if outer is dict and isinstance(value, dict):
                return {str(key): self.converted(item, inner[1]) for key, item in value.items()}
            if one in KINDS and value is not None and not isinstance(value, (list, tuple, dict)):
                return self._in_range(_scalar(value, one))
        raise Unfit("")

    def _in_range(self, value: Any) -> Any:
        """The value itself.  Raises: Unfit: it is none of the words, not finite, too small or too large."""
        if self.words and value not in self.words:
            raise Unfit(nearest(value, self.words))
        if isinstance(value, float) and not math.isfinite(value):
            raise Unfit("")
        if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
            raise Unfit("")
        return value


@cache
def _field(kind: type, name: str) -> _Field:
    metadata: Mapping[str, Any] = {f.name: f.metadata for f in dataclasses.fields(kind)}[name]
    keys = {"low": "low", "high": "high", "allowed": "words", "path": "is_path", "word": "is_word"}
    declared = {ours: metadata[key] for key, ours in keys.items() if key in metadata}
    return _Field(get_type_hints(kind)[name], **declared)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The types that an annotation allows: `int | None` allows two."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _is_list(hint: Any) -> bool:
    return get_origin(hint) in (list, tuple)


def _kind(hint: Any) -> str:
    """A type in words: `a whole number`, `a list of text`."""
    inner = tuple(one for one in get_args(hint) if one is not ...)
    of = f" of {(KINDS | SEVERAL).get(inner[-1], 'such')}" if inner else ""
    return KINDS.get(hint) or CONTAINERS.get(get_origin(hint) or hint, "a mapping") + of


def _scalar(value: Any, kind: type) -> Any:
    """A value as an int, a float, a bool or a str.  Raises: Unfit; TwoReadings."""
    if isinstance(value, str):
        if kind is str:
            return str(value)
        return scalars.flag(value.strip()) if kind is bool else scalars.number(value.strip(), kind)
    if isinstance(value, bool) != (kind is bool) or kind is str or (kind is int and not isinstance(value, int)):
        raise Unfit("")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return scalars.number(str(value), float)
    return value + 0.0 if kind is float else value  # -0.0 is 0.0


def _expanded(value: Any, where: str) -> Any:
    """A path, or each path of a list, with its variables and its home folder in their place."""
    if isinstance(value, list):
        return [_expanded(item, where) for item in value]
    return expand(value, where) if isinstance(value, str) else value
