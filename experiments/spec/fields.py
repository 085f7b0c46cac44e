"""Fields of a trial by dotted name: which there are, their types, and how to set one."""

import dataclasses
import itertools
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from backends.errors import MixlabError, choices
from backends.models.config import ModelConfig, with_variant
from experiments.spec import values
from experiments.spec.config import TrialConfig

NUMBER = re.compile(r"(^|\.)[-+]?[0-9]+([eE][-+]?[0-9]+)?$")
# What fields are called elsewhere, by their last part; difflib finds none of them.
ALIASES = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "bs": "batch_size",
    "batch": "batch_size",
    "depth": "num_blocks",
    "layers": "num_blocks",
    "dim": "hidden_dim",
    "width": "hidden_dim",
    "warmup": "warmup_steps",
    "framework": "backend",
    "seeds": "seed",
}
# Words that other codes write into a field, and the field that says it here.
SAID_BY = {("data.augment.crop", "inception"): "; an area is cut by data.augment.inception=tf or torchvision"}
COMMA = "inside of braces a comma ends a value: several are a list such as [0, 1], and 1,5 is written 1.5"


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Every field by dotted name: `model.hidden_dim`, ..., `backend`, `seed`."""
    return tuple(_names(TrialConfig(), ""))


def _names(config: Any, prefix: str) -> list[str]:
    dotted = []
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        is_section = dataclasses.is_dataclass(value)
        dotted += _names(value, f"{prefix}{f.name}.") if is_section else [prefix + f.name]
    return dotted


def is_section(name: str) -> bool:
    """Whether a name is that of a section of fields, such as `model` or `data.augment`."""
    return any(field.startswith(f"{name}.") for field in names())


def check_name(name: str, where: str) -> None:
    """Check that a field has a name.  Raises: MixlabError: none has; says the nearest."""
    if name not in names():
        by_last_part = {short(field): field for field in names()}
        near = by_last_part.get(ALIASES.get(short(name), short(name)))
        hint = f"did you mean {near!r}?" if near else COMMA if NUMBER.search(name) else _allowed(name)
        raise MixlabError(f"{where}: {values.shown(name)} is not a field of a trial; {hint}")


def _allowed(name: str) -> str:
    """The end of an error sentence: the fields of the name's section, or else the sections."""
    first = name.partition(".")[0]
    section = [field for field in names() if field.startswith(first + ".")]
    if section:
        return choices(name, section)
    return choices(first, dict.fromkeys(field.partition(".")[0] for field in names()))


def flatten(tree: Mapping[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    """A nested mapping as dotted names and values; dotted keys are allowed in it too.

    Raises: MixlabError: a key is not a field or a section of fields, or a field is set twice.
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name, settings = f"{prefix}{key}", {f"{prefix}{key}": value}
        if is_section(name) and isinstance(value, Mapping):
            settings = flatten(value, where, f"{name}.")
        elif is_section(name):
            raise MixlabError(f"{where}: {name}: expected a mapping of fields, got {values.shown(value)}")
        else:
            check_name(name, where)
        if twice := [field for field in settings if field in flat]:
            raise MixlabError(f"{where}: {twice[0]} is set twice, by its whole name and inside its section; remove one")
        flat |= settings
    return flat


def typed(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values by field, converted to the fields' types and checked against their ranges.

    Raises: MixlabError: a value does not fit its field; see values.typed.
    """
    return {name: _typed(name, value, where) for name, value in settings.items()}


def _typed(name: str, value: Any, where: str) -> Any:
    if value == "???":
        raise MixlabError(f"{where}: {name}: '???' stands for a value that is not given; give one")
    try:
        return values.typed(*holder(name), value, f"{where}: {name}")
    except MixlabError as error:
        hint = SAID_BY.get((name, value), "") if isinstance(value, str) else ""
        raise MixlabError(f"{error}{hint}") from error


@cache
def holder(name: str) -> tuple[type, str]:
    """The dataclass that holds a field, and the field's name in it."""
    section, _, last = name.rpartition(".")
    return (type(get_field(TrialConfig(), section)) if section else TrialConfig), last


def set_fields(config: Any, settings: Mapping[str, Any]) -> Any:
    """The config with some fields replaced, by dotted name; a variant brings the fields that it stands for."""
    own = {name: value for name, value in settings.items() if "." not in name}
    sections = {name.partition(".")[0] for name in settings if "." in name}
    for section in sections:
        inner = {name.partition(".")[2]: value for name, value in settings.items() if name.startswith(f"{section}.")}
        own[section] = set_fields(getattr(config, section), inner)
    return dataclasses.replace(config, **(with_variant(own) if isinstance(config, ModelConfig) else own))


def short(name: str) -> str:
    """The last part of a dotted name."""
    return name.rpartition(".")[2]


def text(value: Any) -> str:
    """A value as tables and labels show it: digits enough to tell two apart that differ in the ninth.

    A list of words is told by its runs: `10 tied + 2 attention`, `6 (tied + attention)`; one of numbers is `[2, 4]`.
    """
    if isinstance(value, (list, tuple)):
        words = [text(one) for one in value]
        return _runs(words) if is_words(tuple(value)) else f"[{', '.join(words)}]"
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def is_words(value: Any) -> bool:
    """Whether a value is a word or a list of them."""
    return isinstance(value, str) or (isinstance(value, tuple) and value != () and all(map(is_words, value)))


def of_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fields with their values as a file of JSON gives them: its lists are values of fields that hold lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}


def _runs(words: list[str]) -> str:
    """Words in their order, what repeats told once: `2 tied + attention`, `3 (tied + attention)`."""
    length = next(n for n in range(1, len(words) + 1) if words == words[:n] * (len(words) // n))
    if 1 < length < len(words):
        return f"{len(words) // length} ({_runs(words[:length])})"
    runs = [(word, len(list(run))) for word, run in itertools.groupby(words)]
    return " + ".join(f"{number} {word}" if number > 1 or len(runs) == 1 else word for word, number in runs)


def get_field(config: Any, name: str) -> Any:
    """The value of a field by dotted name."""
    for part in name.split("."):
        config = getattr(config, part)
    return config
