"""`labels:` of an ablation: words for its fields, its axes, and their values in tables, figures and sentences.

labels:
  mixing: {tied 271: "tied, wide"}                      # of a value
  model.token_mixing: {_: token MLP, untied: per channel}   # `_`: of the field itself
  backend: framework                                    # short for {_: framework}
  model.pyramid: {"[]": none, "[2]": in the middle}      # of values that are lists
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from backends.errors import MixlabError, choices
from experiments.design import names
from experiments.design.asked import asked
from experiments.design.axes import Point
from experiments.design.names import AXIS
from experiments.spec import fields
from experiments.spec.values import may_be_list, shown
from experiments.spec.yaml_files import parse

FIELD = "_"  # in place of a value: the field or the axis itself
Labels = Mapping[str, Mapping[str, str]]  # words by field or axis, then by value


def read(tree: Any, base: Point, points: Sequence[Point], where: str) -> dict[str, dict[str, str]]:
    """Words by field or axis, as points hold them, and by value, as `fields.text` shows it.

    Args:   points: of the grid as it is written.
    Raises: MixlabError: a label names no value, is no text, or two values would read the same.
    """
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise MixlabError(f"{where}: expected a mapping of fields to labels, got {shown(tree)}")
    keys = dict.fromkeys(name for point in points for name in point if name.startswith(AXIS))
    found = {}
    for name, own in tree.items():
        key = names.check_name(name, keys, where)
        values = list(dict.fromkeys(fields.text(asked(key, point, base)) for point in points))
        found[key] = _of_values({FIELD: own} if isinstance(own, str) else own, key, values, f"{where}: {name}")
    return found


def _of_values(own: Any, key: str, values: Sequence[str], where: str) -> dict[str, str]:
    if not isinstance(own, dict):
        raise MixlabError(f"{where}: expected a mapping of values to labels, got {shown(own)}")
    labels: dict[str, str] = {}
    for value, words in own.items():
        if not isinstance(words, str) or not words.strip():
            raise MixlabError(f"{where}: {value}: expected text as a label, got {shown(words)}")
        written = FIELD if value == FIELD else _text(key, value)
        if written != FIELD and written not in values:
            raise MixlabError(f"{where}: no trial has the value {shown(value)}; {choices(value, values)}")
        labels[written] = " ".join(words.split())
    read = [labels.get(value, value) for value in values]
    if twice := next((words for words in read if read.count(words) > 1), None):
        raise MixlabError(f"{where}: two of its values would read {shown(twice)}; give each a label of its own")
    return labels


def _text(key: str, value: str) -> str:
    """A value as `fields.text` shows it, from the way that YAML writes it; itself where the field cannot hold it."""
    if key.startswith(AXIS):
        return value
    try:
        typed: Any = parse(value, "") if value.startswith("[") and may_be_list(*fields.holder(key)) else value
        return fields.text(fields.typed({key: None if value == "null" else typed}, "")[key])
    except MixlabError:
        return value


def agreed(several: Iterable[Labels]) -> dict[str, dict[str, str]]:
    """The labels of several ablations on which they agree: none that two give otherwise, nor one for two values."""
    found: dict[str, dict[str, set[str]]] = {}
    for labels in several:
        for key, own in labels.items():
            for value, text in own.items():
                found.setdefault(key, {}).setdefault(value, set()).add(text)
    kept = {key: {value: min(one) for value, one in own.items() if len(one) == 1} for key, own in found.items()}
    return {
        key: {value: text for value, text in own.items() if list(own.values()).count(text) == 1}
        for key, own in kept.items()
    }


def words(labels: Labels, key: str, value: Any) -> str:
    """A value in words: its label, else its text."""
    text = fields.text(value)
    return labels.get(key, {}).get(text, text)
