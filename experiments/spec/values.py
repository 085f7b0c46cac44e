"""From the text of a YAML file or the command line to a value of its field's type. The field decides, not the text.

text     as it is written: 2024_01_05, yes and 010 stay what they are
number   a decimal number: 3, -0.5, 1e-3. What YAML 1.1 reads as another number than it looks like (010 is octal
         there, 1:00:00 counts seconds, 1_000, 0x10) is refused with both readings
flag     true or false; also yes, no, on, off
list, mapping   of these
"""

import dataclasses
import math
import re
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from backends.errors import MixlabError
from experiments.spec.expand import expand

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
DIGITS = re.compile(r"[-+]?[0-9]+")
DECIMAL = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
SHOWN = 80  # letters of a value in a sentence
CALL = re.compile(r"\w+\(.*\)")  # such as Hydra's range(0, 3)
SEQUENCE = re.compile(r"(?:choice)?[(\[](.*)[)\]]")  # a list in brackets of another kind, or in Hydra's words
LONGEST = 1000  # letters of a number; Python reads whole numbers of up to 4300 digits


class Written(str):
    """A scalar of YAML, as it is written, that YAML 1.1 takes for something else than text. Shown without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class _Unfit(Exception):
    """A value is not of its field's type. Its text: what to say behind what is allowed."""


class _TwoReadings(_Unfit):
    """A text is a number to YAML 1.1, and another or none to a reader. Its text: what to say behind the value."""


def typed(kind: type, name: str, value: Any, where: str) -> Any:
    """The value as the field `name` of the dataclass `kind` holds it; a path is expanded.

    Args:   value: as read_mapping or the command line gives it, or of the field's type already.
            where: what the error sentence begins with: file and key.
    Raises: MixlabError: what came, and what is allowed or how it could be read; an empty path.
    """
    hint, limits = _field(kind, name)
    try:
        found = _converted(value, hint)
    except _TwoReadings as error:
        raise MixlabError(f"{where}: {shown(value)} {error}") from error
    except _Unfit as error:
        allowed = allowed_values(kind, name)
        raise MixlabError(f"{where}: {shown(value)} came where {allowed} is allowed{error}") from error
    if limits.get("path") and found == "":
        raise MixlabError(f"{where}: it is empty; give a path{' or null' if _may_be_null(hint) else ''}")
    return _expanded(found, where) if limits.get("path") else found


def allowed_values(kind: type, name: str) -> str:
    """What a field may hold, in words: its type and its range."""
    hint, limits = _field(kind, name)
    ends = (("least", "low"), ("most", "high"))
    bounds = [f"at {end} {limits[key]:.9g}" for end, key in ends if limits.get(key) is not None]
    words = " or ".join(_words(one) for one in _alternatives(hint) if one is not types.NoneType)
    if limits.get("allowed"):
        words = f"one of {', '.join(limits['allowed'])}"
    return words + (f" ({', '.join(bounds)})" if bounds else "") + (" or null" if _may_be_null(hint) else "")


def is_free_text(kind: type, name: str) -> bool:
    """Whether a field holds any text, not one of some words."""
    hint, limits = _field(kind, name)
    return str in _alternatives(hint) and not limits.get("word")


def plain(text: str) -> str:
    """A text without quotes, as read_mapping gives it."""
    return Written(text) if _tag(text) else text


def as_list(text: str) -> str:
    """The list of YAML that a text with commas stands for, for an error sentence."""
    inside = SEQUENCE.fullmatch(text.strip())
    listed = f"[{inside[1] if inside else text}]"
    return listed if len(listed) < SHOWN else "[...]"


def shown(value: Any) -> str:
    """A value in an error sentence, of any length."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


@cache
def _field(kind: type, name: str) -> tuple[Any, Mapping[str, Any]]:
    metadata = {f.name: f.metadata for f in dataclasses.fields(kind)}
    return get_type_hints(kind)[name], metadata[name]


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _may_be_null(hint: Any) -> bool:
    return types.NoneType in _alternatives(hint)


def _words(hint: Any) -> str:
    inner = get_args(hint)
    of = f" of {KINDS.get(inner[-1], 'such')}" if inner else ""
    return KINDS.get(hint) or {list: "a list", dict: "a mapping"}.get(get_origin(hint) or hint, "a mapping") + of


def _converted(value: Any, hint: Any) -> Any:
    """Raises: _Unfit: it is not of that type."""
    for one in _alternatives(hint):
        outer, inner = get_origin(one), get_args(one)
        if one is types.NoneType and value is None:
            return None
        if outer is list and isinstance(value, list):
            return [_converted(item, inner[0]) for item in value]
        if outer is dict and isinstance(value, dict):
            return {str(key): _converted(item, inner[1]) for key, item in value.items()}
        if one in KINDS and value is not None and not isinstance(value, (list, dict)):
            return _scalar(value, one)
    raise _Unfit("")


def _scalar(value: Any, kind: type) -> Any:
    if isinstance(value, str):
        if kind is str:
            return str(value)
        return _flag(value.strip()) if kind is bool else _number(value.strip(), kind)
    if isinstance(value, bool) != (kind is bool) or kind is str or (kind is int and not isinstance(value, int)):
        raise _Unfit("")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return _number(str(value), float)
    return value + 0.0 if kind is float else value  # -0.0 is 0.0


def _flag(text: str) -> bool:
    if text.lower() not in FLAGS:
        raise _Unfit("")
    return FLAGS[text.lower()]


def _number(text: str, kind: type) -> int | float:
    if len(text) > LONGEST:
        raise _Unfit(f"; this one has {len(text)} letters")
    looks, by_yaml = int(text) if DIGITS.fullmatch(text) else None, _by_yaml(text)
    if looks != by_yaml and not _is_decimal(text):
        first, second = ("text" if number is None else number for number in (by_yaml, looks))
        raise _TwoReadings(f"is {first} to YAML 1.1 and {second} to others; write the decimal number that is meant")
    if kind is int and WHOLE.fullmatch(text):
        return int(text)
    if kind is int or not DECIMAL.fullmatch(text):
        raise _Unfit(_hint(text))
    number = float(text)
    if math.isinf(number) or (number == 0 and re.search("[1-9]", re.split("[eE]", text)[0])):
        raise _Unfit("; no float holds a number of this size")
    return number + 0.0  # -0.0 is 0.0


def _is_decimal(text: str) -> bool:
    """Whether a text has one reading as a number: YAML 1.1 calls some of them text, such as 1e3, and none another."""
    return bool(WHOLE.fullmatch(text) or (DECIMAL.fullmatch(text) and not DIGITS.fullmatch(text)))


def _by_yaml(text: str) -> int | float | None:
    """The finite number that YAML 1.1 reads; None: it reads none."""
    if not _tag(text).endswith((":int", ":float")):
        return None
    number: int | float = yaml.safe_load(text)
    return number if math.isfinite(number) else None


def _tag(text: str) -> str:
    """The type that YAML 1.1 gives a plain scalar; "": text."""
    resolvers = yaml.SafeLoader.yaml_implicit_resolvers.get(text[:1], [])
    return next((str(tag) for tag, pattern in resolvers if pattern.match(text)), "")


def _hint(text: str) -> str:
    if DECIMAL.fullmatch(text) and abs(float(text)) < 2**53 and float(text).is_integer():
        return f"; write {int(float(text))}"
    if CALL.fullmatch(text):
        return "; a call is not read: write its values, several as a list such as [0, 1]"
    if "," in text:
        return f"; several values are a list: {as_list(text)}"
    return "; for none write null" if text.lower() == "none" else ""


def _expanded(value: Any, where: str) -> Any:
    if isinstance(value, list):
        return [_expanded(item, where) for item in value]
    return expand(value, where) if isinstance(value, str) else value
