"""Fields of a trial by dotted name: which there are, their types, and how to set one."""

import dataclasses
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any, get_args, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from backends.errors import MixlabError, choices
from experiments.spec import TrialConfig

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Every field by dotted name: `model.hidden_dim`, ..., `backend`, `seed`."""
    return tuple(_names(TrialConfig(), ""))


def _names(config: Any, prefix: str) -> list[str]:
    found = []
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        nested = dataclasses.is_dataclass(value)
        found += _names(value, f"{prefix}{f.name}.") if nested else [prefix + f.name]
    return found


def check_name(name: str, where: str) -> None:
    """Raises: MixlabError: no field has that name; says the nearest."""
    if name not in names():
        last = {known.rpartition(".")[2]: known for known in names()}
        near = last.get(name.rpartition(".")[2])
        hint = f"did you mean {near!r}?" if near else _allowed(name)
        raise MixlabError(f"{where}: {name!r} is not a field of a trial; {hint}")


def _allowed(name: str) -> str:
    first = name.partition(".")[0]
    section = [known for known in names() if known.startswith(first + ".")]
    if section:
        return choices(name, section)
    return choices(first, dict.fromkeys(known.partition(".")[0] for known in names()))


def flatten(tree: Mapping[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    """A nested mapping as dotted names and values; dotted keys are allowed in it too.

    Raises: MixlabError: a key is not a field or a section of fields.
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        is_section = any(known.startswith(f"{name}.") for known in names())
        if is_section and isinstance(value, Mapping):
            flat |= flatten(value, where, f"{name}.")
        elif is_section:
            raise MixlabError(f"{where}: {name}: {value!r} came where a mapping of fields is allowed")
        else:
            check_name(name, where)
            flat[name] = value
    return flat


def typed(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values converted to the types of their fields.

    Raises: MixlabError: names the field, what came, and what is allowed.
    """
    return {name: _typed(name, value, where) for name, value in values.items()}


def _typed(name: str, value: Any, where: str) -> Any:
    if value == "???":
        raise MixlabError(f"{where}: {name}: '???' stands for a value that is not given; give one")
    is_flag = isinstance(get_field(TrialConfig(), name), bool)
    scalars = (bool, str) if is_flag else (bool, int, float, str)  # OmegaConf takes 7 for true
    try:
        if value is not None and not isinstance(value, scalars):
            raise ValueError(value)
        return OmegaConf.select(OmegaConf.merge(_schema(name), {"value": value}), "value")
    except (OmegaConfBaseException, ValueError) as error:
        came = "null" if value is None else repr(value)
        raise MixlabError(f"{where}: {name}: {came} came where {_allowed_values(name)} is allowed") from error


def _allowed_values(name: str) -> str:
    """What a field may hold, in words: its type and its range."""
    section, _, last = name.rpartition(".")
    config = type(get_field(TrialConfig(), section)) if section else TrialConfig
    limits = next(f.metadata for f in dataclasses.fields(config) if f.name == last)
    hint = get_type_hints(config)[last]
    kind = next(kind for kind in (get_args(hint) or (hint,)) if kind is not type(None))
    ends = [f"at {end} {limits[key]:g}" for end, key in (("least", "low"), ("most", "high")) if limits[key] is not None]
    words = f"one of {', '.join(limits['allowed'])}" if limits["allowed"] else KINDS[kind]
    return words + (f" ({', '.join(ends)})" if ends else "") + (" or null" if get_args(hint) else "")


def read_override(override: str, where: str) -> tuple[str, Any]:
    """Name and value of a word `key=value` of the command line; the value is read as YAML.

    Raises: MixlabError: the word has another form, or names no field.
    """
    name, equals, text = override.partition("=")
    if not equals:
        raise MixlabError(f"{where}: {override!r} came where key=value is allowed")
    check_name(name, where)
    try:
        tree: Any = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise MixlabError(f"{where}: {override!r} is not a YAML value") from error
    return name, tree["value"]


@cache
def _schema(name: str) -> Any:
    """One field alone: a merge copies all of its schema, and a large grid has as many values as trials."""
    section, _, last = name.rpartition(".")
    hint = get_type_hints(type(get_field(TrialConfig(), section)) if section else TrialConfig)[last]
    default = dataclasses.field(default=get_field(TrialConfig(), name))
    return OmegaConf.structured(dataclasses.make_dataclass("Field", [("value", hint, default)]))


def set_fields(config: Any, values: Mapping[str, Any]) -> Any:
    """The config with some fields replaced, by dotted name."""
    here = {name: value for name, value in values.items() if "." not in name}
    sections = {name.partition(".")[0] for name in values if "." in name}
    for section in sections:
        inner = {name.partition(".")[2]: value for name, value in values.items() if name.startswith(f"{section}.")}
        here[section] = set_fields(getattr(config, section), inner)
    return dataclasses.replace(config, **here)


def short(name: str) -> str:
    """The last part of a dotted name."""
    return name.rpartition(".")[2]


def text(value: Any) -> str:
    """A value as tables and labels show it: digits enough to tell two apart that differ in the ninth."""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def get_field(config: Any, name: str) -> Any:
    """The value of a field by dotted name."""
    for part in name.split("."):
        config = getattr(config, part)
    return config
