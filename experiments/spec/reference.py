"""Every field of a trial, for people: what it may be, its default, what it means, and whether an id depends on it."""

import ast
import dataclasses
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from backends.models import FAMILIES
from experiments.spec import fields, values
from experiments.spec.config import TrialConfig
from experiments.spec.resolve import resolve
from experiments.spec.trial import DataInfo, values_before

EXAMPLE = DataInfo(
    "", image_size=32, image_channels=3, num_classes=10, num_train=1000, num_validation=100, num_test=100
)
FOR_MYPY = re.compile(r"type: ignore\[\w+\]")
BY_NAME, BY_CONTENT, BY_RESULT, NOT = "yes", "content", "resolved", "no"  # how an id depends on a field

WHERE_FROM = ("data.storage", "data.labels_real")  # they change neither images nor labels


@dataclass(frozen=True)
class FieldRow:
    """One field as the table shows it."""

    name: str
    allowed: str
    default: str
    meaning: str  # the comment beside the field, which is its one description
    in_id: str  # BY_NAME, BY_CONTENT, BY_RESULT or NOT


def rows() -> list[FieldRow]:
    """Every field, in the order of names()."""
    trial = resolve(TrialConfig(), EXAMPLE, "fields")
    hashed = set(_leaves(trial.science))
    hashed |= {f"model.{f.name}" for family in FAMILIES.values() for f in dataclasses.fields(family.Spec)}
    later = {name: values_before(type(fields.get_field(trial, name))) for name in ("train", "data.augment")}
    hashed |= {f"{section}.{name}" for section, own in later.items() for name in _leaves(own) + list(own)}
    return [_row(name, hashed) for name in fields.names()]


def _row(name: str, hashed: set[str]) -> FieldRow:
    kind, last = fields.holder(name)
    default = _as_yaml(fields.get_field(TrialConfig(), name))
    return FieldRow(name, values.allowed_values(kind, last), default, comments(kind)[last], _in_id(name, hashed))


def _as_yaml(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else fields.text(value)


def _in_id(name: str, hashed: set[str]) -> str:
    """How an id depends on a field.

    Fields of data act through the decoded images and labels, those of other hashed sections through what they become.
    """
    section = name.partition(".")[0]
    if name in WHERE_FROM:
        return NOT
    if name in hashed:
        return BY_NAME
    if not any(other.startswith(f"{section}.") for other in hashed):
        return NOT
    return BY_CONTENT if section == "data" else BY_RESULT


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of a nested mapping's values, but those that are None: a trial has resolved them to other fields."""
    names = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            names += _leaves(value, f"{prefix}{key}.")
        elif value is not None:
            names.append(prefix + key)
    return names


@cache
def comments(kind: type) -> dict[str, str]:
    """The comments beside the fields of a dataclass and of its bases: field -> text."""
    texts: dict[str, str] = {}
    for cls in reversed(kind.__mro__):
        if dataclasses.is_dataclass(cls):
            texts |= _own_comments(textwrap.dedent(inspect.getsource(cls)))
    return texts


def _own_comments(source: str) -> dict[str, str]:
    """The comments on the lines of each field in the source of one dataclass: field -> text."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    notes = [one for one in tokens if one.type == tokenize.COMMENT]
    by_line = {one.start[0]: FOR_MYPY.sub("", one.string).lstrip("# ") for one in notes}
    (cls,) = ast.parse(source).body
    assert isinstance(cls, ast.ClassDef)
    texts = {}
    for node in cls.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            texts[node.target.id] = " ".join(by_line[line] for line in lines if line in by_line)
    return texts
