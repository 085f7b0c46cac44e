"""Values of an axis, as YAML and the command line write them.

    [0.001, 0.01]              these
    [tied, [tied, attention]]  these, in a field that may hold a list, one a block
    0.001                      this one
    log(1e-4, 1e-2, 5)         5 values, each the same multiple of the one before; both ends are among them
    uniform(0, 0.3)            drawn: each number between the ends is as likely as another
    loguniform(1e-4, 1e-2)     drawn: so is its logarithm
    choice(adamw, sgd)         drawn: one of these

What is computed or drawn is rounded to DIGITS significant digits, for whole numbers to the nearest one, so that the
same trial can be written by hand. In fields that hold any text such words are a text like any other.

Axes that are drawn need `samples` and `samples_seed`. Together they are one axis: sample i takes value i of each, which
depends on samples_seed, the field's name and i alone. So more samples keep the first ones, and the value of one field
does not depend on the others. A sample that repeats an earlier one is passed over, and the next is drawn.
"""

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.errors import MixlabError, choices
from experiments import streams
from experiments.spec import fields, scalars
from experiments.spec.scalars import TwoReadings, Unfit, as_list
from experiments.spec.values import is_free_text, is_list, is_whole, shown

Point = dict[str, Any]  # field -> value, what one trial of a grid sets

CALLS = LOG, UNIFORM, LOGUNIFORM, CHOICE = ("log", "uniform", "loguniform", "choice")
CALL = re.compile(rf"\s*(?P<name>{'|'.join(CALLS)})\((?P<inside>.*)\)\s*", re.S)
BEGUN = re.compile(r"\s*(?P<name>[A-Za-z]\w*)\(")
DIGITS = 6
MAX_VALUES = 10_000  # of one log(...), and of samples
DRAWS_A_SAMPLE = 1000  # that may repeat earlier samples


@dataclass(frozen=True)
class Call:
    """A call such as `log(1e-4, 1e-2, 5)`, taken apart."""

    name: str
    arguments: tuple[str, ...]
    text: str

    @property
    def is_drawn(self) -> bool:
        return self.name != LOG


def values(axis: Any, field: str, where: str) -> list[Any]:
    """The values of an axis of one field, in the field's type.

    Args:   axis: a list, one value, or `log(from, to, number)`.    where: what the error sentence begins with.
    Raises: MixlabError: there are none, one does not fit the field, or they are to be drawn.
    """
    check_calls(axis, field, where)
    call = read_call(axis, field)
    if call is not None and call.is_drawn:
        raise MixlabError(
            f"{where}: {field}: {call.text} is drawn, which needs samples and samples_seed in a grid; "
            f"write its values as a list, or {LOG}(from, to, number)"
        )
    if call is not None:
        return _logarithmic(call, field, where)
    several = axis if isinstance(axis, list) else [axis]
    if not several:
        raise MixlabError(f"{where}: {field}: expected one value or several, got no values")
    if is_list(*fields.holder(field)) and not any(isinstance(one, (list, tuple)) or one is None for one in several):
        raise MixlabError(
            f"{where}: {field}: a value of it is a list, and an axis a list of such; for this one value write "
            f"[{as_list(', '.join(map(str, several)))}]"
        )
    return [fields.typed({field: value}, where)[field] for value in several]


def read_call(axis: Any, field: str) -> Call | None:
    """The call that an axis is written as; None: it is none, or the field holds any text."""
    fields.check_name(field, "axis")
    match = CALL.fullmatch(axis) if isinstance(axis, str) and not is_free_text(*fields.holder(field)) else None
    if match is None:
        return None
    return Call(match["name"], tuple(part.strip() for part in match["inside"].split(",")), axis.strip())


def check_calls(axis: Any, field: str, where: str) -> None:
    """Raises: MixlabError: the axis, or a value of it, begins like a call and is none that can be read there."""
    if is_free_text(*fields.holder(field)):
        return
    for one in axis if isinstance(axis, list) else [axis]:
        begun = BEGUN.match(one) if isinstance(one, str) else None
        if begun is None:
            continue
        place = f"{where}: {field}: {shown(one)}"
        if begun["name"] not in CALLS:
            raise MixlabError(f"{place} is no call that is read; {choices(begun['name'], CALLS)}")
        if not CALL.fullmatch(one):
            raise MixlabError(f"{place} has no closing bracket; inside of [] and {{}} a comma ends a value: use quotes")
        if isinstance(axis, list):
            raise MixlabError(f"{place} is a whole axis; write it without the brackets of a list")


def samples(drawn: Mapping[str, Call], number: int, seed: int, where: str) -> list[Point]:
    """Points of the axes that are drawn: see above.

    Args:   drawn: field -> call.    number: of points.    seed: of samples_seed.
    Raises: MixlabError: a call is wrong, or there are not so many different points.
    """
    axes = {field: _Drawn(call, field, seed, where) for field, call in drawn.items()}
    found: dict[tuple[Any, ...], Point] = {}
    for i in range(number * DRAWS_A_SAMPLE):
        point = {field: axis.value(i) for field, axis in axes.items()}
        found.setdefault(tuple(point.values()), point)
        if len(found) == number:
            return list(found.values())
    written = " and ".join(call.text for call in drawn.values())
    raise MixlabError(f"{where}: samples: {written} gave {len(found)} different samples, not {number}; ask for fewer")


class _Drawn:
    """A field's values in order of the samples."""

    def __init__(self, call: Call, field: str, seed: int, where: str):
        self.call, self.field, self.seed = call, field, seed
        if call.name == CHOICE:
            if not all(call.arguments):
                raise MixlabError(f"{where}: {field}: expected values such as {CHOICE}(0, 0.1), got {shown(call.text)}")
            self.choices = [_typed(part, field, where) for part in call.arguments]
        else:
            self.low, self.high = _ends(call, call.arguments, field, where)

    def value(self, i: int) -> Any:
        unit = float(streams.uniforms(self.seed, f"axis/{self.field}", i, 1, ())[0])
        if self.call.name == CHOICE:
            return self.choices[int(unit * len(self.choices))]
        if self.call.name == UNIFORM and is_whole(*fields.holder(self.field)):
            return int(self.low) + int(unit * (self.high - self.low + 1))
        if self.call.name == UNIFORM:
            return _rounded(self.low + unit * (self.high - self.low), self.field)
        return _rounded(math.exp(math.log(self.low) + unit * math.log(self.high / self.low)), self.field)


def _logarithmic(call: Call, field: str, where: str) -> list[Any]:
    if len(call.arguments) != 3:
        raise MixlabError(
            f"{where}: {field}: expected {LOG}(from, to, number), such as log(1e-4, 1e-2, 5), got {shown(call.text)}"
        )
    low, high = _ends(call, call.arguments[:2], field, where, falls=True)
    number = _count(call.arguments[2], f"{where}: {field}")
    inner = (_rounded(low * (high / low) ** (i / (number - 1)), field) for i in range(1, number - 1))
    found = [low, *inner, high]
    if twice := next((one for one, other in itertools.pairwise(found) if one == other), None):
        raise MixlabError(
            f"{where}: {field}: two of the {number} values of {call.text} are {fields.text(twice)}; ask for fewer"
        )
    return found


def _ends(call: Call, written: tuple[str, ...], field: str, where: str, *, falls: bool = False) -> tuple[Any, Any]:
    """Both ends of a range, in the field's type.  Args: falls: whether the second may be the smaller."""
    ends = [_typed(part, field, where) for part in written]
    numbers = [end for end in ends if isinstance(end, (int, float)) and not isinstance(end, bool)]
    if len(ends) != 2 or len(numbers) != 2:
        raise MixlabError(f"{where}: {field}: expected two numbers in {call.name}, got {call.text}")
    low, high = numbers
    if low == high or (high < low and not falls):
        raise MixlabError(f"{where}: {field}: {call.text}: expected a second end above the first one")
    if call.name != UNIFORM and min(low, high) <= 0:
        raise MixlabError(f"{where}: {field}: {call.text}: expected ends above 0, as of every logarithmic axis")
    return low, high


def _typed(text: str, field: str, where: str) -> Any:
    return fields.typed({field: None if text == "null" else text}, where)[field]


def _count(text: str, where: str) -> int:
    try:
        number = int(scalars.number(text, int))
    except (Unfit, TwoReadings):
        number = 0
    if not 2 <= number <= MAX_VALUES:
        raise MixlabError(f"{where}: expected a whole number of values, from 2 to {MAX_VALUES}, got {shown(text)}")
    return number


def _rounded(value: float, field: str) -> int | float:
    return round(value) if is_whole(*fields.holder(field)) else float(f"{value:.{DIGITS}g}")
