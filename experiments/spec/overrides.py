"""Words `key=value` of the command line.

seed=3                       a number, a flag or a word, read as in YAML
data.source=my set #2        a text field takes what follows `=` as it is
data.source='[a, b]'         quotes around all of it, which the shell has left, fall away
seed=[0,1,2]                 a list makes an axis; in a text field it has two items or more
model.pyramid=[[2,4]]        a field that holds a list: this list in a list is one value, several are an axis
data.subset=null             none
"""

from typing import Any

from backends.errors import MixlabError
from experiments.spec import fields, scalars, values
from experiments.spec.yaml_files import parse


def read_override(override: str, where: str, *, axes: bool = True) -> tuple[str, Any]:
    """Name and value of a word; the value is still to be typed.

    Args:   axes: whether a list makes an axis; else it is a text like any other.
    Raises: MixlabError: the word has another form, names no field, or its value can be read in two ways.
    """
    name, equals, text = override.partition("=")
    if not equals:
        raise MixlabError(f"{where}: expected key=value, got {values.shown(override)}")
    if fields.is_section(name) and text.strip().startswith("{"):
        words = _words(name, text, where)
        raise MixlabError(f"{where}: {name!r} is not a field of a trial, but a section of them; write {words}")
    fields.check_name(name, where)
    if not text.strip():
        raise MixlabError(f"{where}: {name}: expected a value behind '=', got nothing; for none write {name}=null")
    if text in ("null", "Null", "NULL"):
        return name, None
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return name, _unquoted(text)
    is_free = values.is_free_text(*fields.holder(name))
    is_written_as_list = text.strip().startswith("[")
    if is_written_as_list and values.may_be_list(*fields.holder(name)):
        return name, _list_of_lists(name, text, where, axes)
    if axes and is_written_as_list:
        return name, (_list_or_text if is_free else _list)(name, text, where)
    if axes and not is_free and "," in text and not _is_call(text):
        shown = values.shown(f"{name}={scalars.as_list(text)}")
        raise MixlabError(f"{where}: {name}: expected one value, got {values.shown(text)}; write a list as {shown}")
    return name, scalars.plain(text)


def read_value(word: str, where: str) -> tuple[str, Any]:
    """Name and value of a word that sets no field: a text, none, or a list or a mapping of YAML in its brackets.

    Raises: MixlabError: the word has another form.
    """
    name, equals, text = word.partition("=")
    if not equals or not text.strip():
        raise MixlabError(f"{where}: expected key=value, got {values.shown(word)}")
    if text in ("null", "Null", "NULL"):
        return name, None
    if text.strip()[0] in "[{'\"":
        return name, parse(text, f"{where}: {name}")
    return name, scalars.plain(text)


def _words(section: str, text: str, where: str) -> str:
    """The words that set what a mapping of YAML sets.  Raises: MixlabError: it is none, or names no fields."""
    told = fields.flatten({section: parse(text, f"{where}: {section}")}, where)
    return " ".join(f"{name}={'null' if value is None else str(value)}" for name, value in told.items())


def _is_call(text: str) -> bool:
    """Whether a text is a call such as range(0,3), whose values are not those between its commas."""
    return bool(scalars.CALL.fullmatch(text)) and not scalars.SEQUENCE.fullmatch(text)


def _unquoted(text: str) -> str:
    """The text inside the quotes, where these are the two ends of one quoted text; else the text as it is."""
    try:
        inside = parse(text, "")
    except MixlabError:
        return text
    return inside if isinstance(inside, str) else text


def _list_of_lists(name: str, text: str, where: str, axes: bool) -> Any:
    """The axis of a field that holds lists, or its one value, as a tuple: without axes every list is one.

    So it is for a field of how a trial runs, which is no axis.
    """
    listed = _list(name, text, where)
    if isinstance(listed, list) and len(listed) == 1 and isinstance(listed[0], list):
        return tuple(listed[0])
    is_axis = axes and not name.startswith("run.")
    return listed if is_axis or not isinstance(listed, list) else tuple(listed)


def _list(name: str, text: str, where: str) -> Any:
    """The axis of a list of YAML.  Raises: MixlabError: the text is no such list."""
    try:
        return parse(text, "")
    except MixlabError as error:
        raise MixlabError(
            f"{where}: {name}: expected a list of YAML such as '{name}=[0, 1]', in quotes, got {values.shown(text)}"
        ) from error


def _list_or_text(name: str, text: str, where: str) -> Any:
    """The axis of a list of texts, or the text as it is where it is no such list.

    Raises: MixlabError: a list of one text could be a text in brackets.
    """
    try:
        axis = parse(text, "")
    except MixlabError:
        return text
    if not isinstance(axis, list) or any(isinstance(item, (list, dict)) for item in axis):
        return text
    if len(axis) > 1:
        return axis
    quoted = "'" + text.replace("'", "''") + "'"
    single, number = (f"{name}={axis[0]} for the value, or ", "of one value") if axis else ("", "of nothing")
    raise MixlabError(
        f"{where}: {name}: {values.shown(text)} is a list {number} and a text in brackets; write {single}"
        f'"{name}={quoted}" for the text'
    )
