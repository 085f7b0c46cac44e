"""Numbers and flags in a text of YAML or the command line, read by rules that the text alone does not decide.

number   decimal: 3, -0.5, 1e-3. What YAML 1.1 reads as another number than it looks like (010 is octal there, 1:00:00
         counts seconds, 1_000, 0x10) is refused with both readings
flag     true or false; also yes, no, on, off
"""

import math
import re

import yaml

FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
DIGITS = re.compile(r"[-+]?[0-9]+")
DECIMAL = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
CALL = re.compile(r"\w+\(.*\)")  # such as Hydra's range(0, 3)
SEQUENCE = re.compile(r"(?:choice)?[(\[](.*)[)\]]")  # a list in brackets of another kind, or in Hydra's words
RANGE = re.compile(r"(0|[1-9][0-9]{0,5})\.\.\.?(0|[1-9][0-9]{0,5})")  # such as 0..4, of other languages
LISTED = 12  # numbers of a range that a sentence lists
LONGEST = 1000  # letters that a number may have; Python reads whole numbers of up to 4300 digits
SHOWN = 80  # letters of a value that a sentence shows


class Written(str):
    """A scalar of YAML, as it is written, that YAML 1.1 takes for something else than text. Shown without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Unfit(Exception):
    """A value is not what its field may hold. Its text is the end of an error sentence: what to write instead."""


class TwoReadings(Exception):
    """A text is one number to YAML 1.1, and another or none to a reader. Its text follows the value in a sentence."""


def flag(text: str) -> bool:
    """The flag that a text stands for.  Raises: Unfit: it stands for none."""
    if text.lower() not in FLAGS:
        raise Unfit("")
    return FLAGS[text.lower()]


def number(text: str, kind: type) -> int | float:
    """The number that a text stands for.

    Args:   kind: int or float.
    Raises: Unfit: it stands for no number of that kind.
            TwoReadings: YAML 1.1 reads another number than the one it looks like.
    """
    if len(text) > LONGEST:
        raise Unfit(f"; this one has {len(text)} letters")
    looks, by_yaml = int(text) if DIGITS.fullmatch(text) else None, _by_yaml(text)
    if looks != by_yaml and not _is_decimal(text):
        first, second = ("text" if reading is None else reading for reading in (by_yaml, looks))
        raise TwoReadings(f"is {first} to YAML 1.1 and {second} to others; write the decimal number that is meant")
    if kind is int and WHOLE.fullmatch(text):
        return int(text)
    if kind is int or not DECIMAL.fullmatch(text):
        raise Unfit(_hint(text))
    value = float(text)
    if math.isinf(value) or (value == 0 and re.search("[1-9]", re.split("[eE]", text)[0])):
        raise Unfit("; no float holds a number of this size")
    return value + 0.0  # -0.0 is 0.0


def plain(text: str) -> str:
    """A text without quotes, as a YAML file would give it."""
    return Written(text) if _tag(text) else text


def as_list(text: str) -> str:
    """The list of YAML that a text with commas stands for, for an error sentence."""
    inside = SEQUENCE.fullmatch(text.strip())
    listed = f"[{inside[1] if inside else text}]"
    return listed if len(listed) < SHOWN else "[...]"


def _is_decimal(text: str) -> bool:
    """Whether a text has one reading as a number: YAML 1.1 calls some of them text, such as 1e3, and none another."""
    return bool(WHOLE.fullmatch(text) or (DECIMAL.fullmatch(text) and not DIGITS.fullmatch(text)))


def _by_yaml(text: str) -> int | float | None:
    """The finite number that YAML 1.1 reads; None: it reads none."""
    if not _tag(text).endswith((":int", ":float")):
        return None
    value: int | float = yaml.safe_load(text)
    return value if math.isfinite(value) else None


def _tag(text: str) -> str:
    """The type that YAML 1.1 gives a plain scalar; "": text."""
    resolvers = yaml.SafeLoader.yaml_implicit_resolvers.get(text[:1], [])
    return next((str(tag) for tag, pattern in resolvers if pattern.match(text)), "")


def _hint(text: str) -> str:
    """The end of an error sentence: what to write in place of a text that is no number."""
    if DECIMAL.fullmatch(text) and abs(float(text)) < 2**53 and float(text).is_integer():
        return f"; write {int(float(text))}"
    if match := RANGE.fullmatch(text):
        return f"; several values are a list: {_range(int(match[1]), int(match[2]))}"
    if CALL.fullmatch(text):
        return "; a call is not read: write its values, several as a list such as [0, 1]"
    if "," in text:
        return f"; several values are a list: {as_list(text)}"
    return "; for none write null" if text.lower() == "none" else ""


def _range(first: int, last: int) -> str:
    """The list of YAML of all whole numbers from one to another, which a long one only begins."""
    numbers = range(first, last + 1) if first < last else range(first, last - 1, -1)
    written = list(map(str, numbers[:LISTED]))
    return f"[{', '.join(written)}{', ...' if len(numbers) > LISTED else ''}]"
