"""The fields and values that name a cell, and the words for them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.design.ablation import Ablation
from experiments.design.labels import FIELD, Labels, words
from experiments.spec.fields import is_words, short, text

if TYPE_CHECKING:  # a plan's comparisons need none
    import pandas as pd

Label = tuple[Any, ...]  # the values of report.rows and report.columns
Row = Mapping[str, Any]  # a cell: its columns, see cells.cells
Rows = Mapping[Label, Row]
NUMBER_OF = "number of "  # how a field's words begin whose values are counts


def keys(ablation: Ablation) -> list[str]:
    return [*ablation.report.rows, *ablation.report.columns]


def labels(ablation: Ablation, frame: pd.DataFrame) -> list[Label]:
    """The values that name the cell of each row. Args: frame: of cells, or of trials."""
    return _values(frame, keys(ablation))


def rows(ablation: Ablation, table: pd.DataFrame) -> Rows:
    """The cells of a table by the values that name them."""
    return dict(zip(labels(ablation, table), records(table), strict=True))


def records(frame: pd.DataFrame) -> list[Row]:
    """The rows of a frame, which DataFrame.iterrows gives in ten times the time."""
    found: list[Any] = frame.to_dict("records")
    return found


def _values(frame: pd.DataFrame, names: Sequence[str]) -> list[Label]:
    return list(zip(*(frame[name] for name in names), strict=True)) if names else [()] * len(frame)


def baseline_of(ablation: Ablation, label: Label) -> Label | None:
    """The cell that a cell is compared with: it has the baseline's settings, and the same ones otherwise."""
    settings = dict(zip(keys(ablation), label, strict=True))
    return tuple((settings | dict(ablation.report.baseline)).values()) if ablation.report.baseline else None


def field_text(ablation: Ablation, name: str) -> str:
    """A field's label, else the last part of its name; the whole of it where another field of the table ends so too."""
    if (label := ablation.labels.get(name, {}).get(FIELD)) is not None:
        return label
    return name if [short(key) for key in keys(ablation)].count(short(name)) > 1 else short(name)


def field_words(ablation: Ablation, name: str) -> str:
    """A field within a sentence: `token mixing`, `number of blocks`; a label as it is."""
    words = field_text(ablation, name)
    if FIELD in ablation.labels.get(name, {}):
        return words
    return re.sub("^num_", NUMBER_OF, words).replace("_", " ")


def value_text(ablation: Ablation, name: str, value: Any) -> str:
    """A value of a field: its label, else its text."""
    return words(ablation.labels, name, value)


def setting_text(ablation: Ablation, name: str, value: Any) -> str:
    """`num_blocks=4`: a field and its value, in the words of the table."""
    return f"{field_text(ablation, name)}={value_text(ablation, name, value)}"


def plain_text(own: Labels, name: str, value: Any) -> str:
    """`token MLP=per channel`: a field and its value where there is no table."""
    return f"{own.get(name, {}).get(FIELD, short(name))}={words(own, name, value)}"


def label_text(ablation: Ablation, label: Label, without: str = "") -> str:
    """A cell in words: `num_blocks=4 token_mixing=untied backend=jax`; without what is the same in all cells."""
    named = [(name, value) for name, value in zip(keys(ablation), label, strict=True) if name != without]
    told = [(name, value) for name, value in named if name in ablation.varying] or named
    return " ".join(setting_text(ablation, name, value) for name, value in told)


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def head_texts(ablation: Ablation, table: pd.DataFrame) -> dict[Label, str]:
    """A column's head, by the values of report.columns: `untied`, or `token_mixing=untied channel_mixing=tied`.

    A value stands without its field where the field's values are words that no other field of the table has. Rows
    need no such rule: the head of their column is their field.
    """
    columns = ablation.report.columns
    bare = {name for name in columns if speaks_for_itself(ablation, table, name)}
    return {
        values: " ".join(
            value_text(ablation, name, value) if name in bare else setting_text(ablation, name, value)
            for name, value in zip(columns, values, strict=True)
        )
        for values in dict.fromkeys(_values(table, columns))
    }


def speaks_for_itself(ablation: Ablation, table: pd.DataFrame, name: str) -> bool:
    """Tell whether the field's values are words that no other field of the table has."""
    values = dict.fromkeys(table[name])
    own = {value_text(ablation, name, value) for value in values}
    rest = (key for key in keys(ablation) if key != name)
    others = {value_text(ablation, key, value) for key in rest for value in dict.fromkeys(table[key])}
    labelled = ablation.labels.get(name, {})
    speaks = (is_words(value) or text(value) in labelled for value in values)
    return all(speaks) and all(map(_is_word, own)) and not own & others


def _is_word(value: str) -> bool:
    """Tell whether text cannot be taken for a number, a flag or nothing."""
    with contextlib.suppress(ValueError):
        float(value)
        return False
    return bool(value.strip()) and value.lower() not in ("true", "false", "null")
