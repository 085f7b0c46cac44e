"""Keys of a cluster file: what each may say, and the value that it becomes."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from types import MappingProxyType, NoneType
from typing import Any, get_args, get_type_hints

import backends
from backends.errors import MixlabError, choices
from experiments.running.failures import CAUSES
from experiments.spec import fields, values
from experiments.spec.config import TrialConfig
from experiments.spec.resolve import check_ranges
from experiments.spec.values import shown
from slurm import needs, options, software
from slurm.cluster import RETRIES, ClusterSpec
from slurm.needs import OLD_NAMES, Rule
from slurm.time_limit import Unread, asked_minutes

KEYS = tuple(f.name for f in dataclasses.fields(ClusterSpec))
LISTED = 13  # keys that a sentence lists
NOWHERE_ELSE: Mapping[str, str] = MappingProxyType({})
RULE = "{match: {model.variant: L/16}, time: 2-0}"


def cluster_from(tree: Mapping[str, Any], where: str) -> ClusterSpec:
    """The spec that a cluster file's mapping holds, its variables expanded.

    Raises: MixlabError: an unknown key, a value of a wrong type or out of range, an option and a key that ask for the
            same, text that no script can hold.
    """
    for name in ("environments", "retries", "sbatch"):
        if not isinstance(tree.get(name) or {}, dict):
            raise MixlabError(f"{where}: {name}: {shown(tree[name])} came where a mapping is allowed")
    _check_old_names(tree, where)
    moved, places = options.moved(tree, where)
    return spec_from(moved, where, places)


def _check_old_names(tree: Mapping[str, Any], where: str) -> None:
    """Raises: MixlabError: a key is given by its old name too."""
    for layer, place in ((tree, where), *_layers(tree, where)):
        for old, new in OLD_NAMES.items():
            if old in layer and new in layer:
                raise MixlabError(f"{place}: {old} is the old name of {new}; give one of them")


def _layers(tree: Mapping[str, Any], where: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """The mappings inside of a cluster file that hold needs, and where they are."""
    for backend, layer in (tree.get("environments") or {}).items():
        if isinstance(layer, Mapping):
            yield layer, f"{where}: environments: {backend}"
    for rule in tree.get("when") or ():
        if isinstance(rule, Mapping):
            yield rule, f"{where}: when"


def spec_from(tree: Mapping[str, Any], where: str, places: Mapping[str, str] | None = None) -> ClusterSpec:
    """As `cluster_from`, of a mapping in which an option may stand for what a key says too.

    Args: places: of keys that stand elsewhere in the file: where.
    """
    spec = ClusterSpec(**_read(tree, KEYS, where, "a cluster file", places or {}))
    check_ranges(spec, where)
    _check_texts(spec, where)
    try:
        for backend in spec.environments or ("every backend",):
            spec.needs(backend)
        spec.check_rules()
    except MixlabError as error:
        raise MixlabError(f"{where}: {error}") from error
    return spec


def _read(
    tree: Mapping[str, Any], keys: Iterable[str], where: str, what: str, places: Mapping[str, str] = NOWHERE_ELSE
) -> dict[str, Any]:
    """The keys of a mapping, typed. A null leaves a key out, or says none where that is a value of its own."""
    found: dict[str, Any] = {}
    for given, value in tree.items():
        key = OLD_NAMES.get(given, given)
        _check_key(given, key, keys, where, what)
        place = f"{where}: {places.get(given, given)}"
        if value is None:
            found |= {key: None} if _may_be_none(key) else {}
        else:
            found[key] = (
                SECTIONS[key](value, place) if key in SECTIONS else values.typed(ClusterSpec, key, value, place)
            )
    return found


@cache
def _may_be_none(key: str) -> bool:
    return NoneType in get_args(get_type_hints(ClusterSpec)[key])


def _check_key(given: str, key: str, keys: Iterable[str], where: str, what: str) -> None:
    if key in keys:
        return
    names = list(keys)
    near = get_close_matches(key, names, n=1)
    if key in KEYS:
        hint = f"it stands for all jobs, beside the others of the file; allowed here: {', '.join(names)}"
    elif said := options.hint(key):
        hint = said
    elif near:
        hint = f"did you mean {near[0]!r}?"
    elif said := options.family(key):
        hint = said
    else:
        more = ", ...; all are in slurm/clusters/example.yaml" if len(names) > LISTED else ""
        hint = f"allowed: {', '.join(names[:LISTED])}{more}"
    raise MixlabError(f"{where}: {shown(given)} is not a key of {what}; {hint}")


def _minutes(value: Any, where: str) -> int:
    try:
        return asked_minutes("" if isinstance(value, (list, dict)) else str(value).strip())
    except Unread as error:
        raise MixlabError(f"{where}: {shown(value)} {error}") from error


def _environments(given: Any, where: str) -> dict[str, dict[str, Any]]:
    found = {}
    for backend, layer in given.items():
        if backend not in backends.names():
            raise MixlabError(f"{where}: {shown(backend)} is not a backend; {choices(backend, backends.names())}")
        if not isinstance(layer, dict):
            raise MixlabError(f"{where}: {backend}: {shown(layer)} came where a mapping is allowed")
        found[backend] = _layer(layer, (*software.KEYS, *needs.KEYS), f"{where}: {backend}")
    return found


def _layer(tree: Mapping[str, Any], keys: tuple[str, ...], where: str) -> dict[str, Any]:
    found = _read(tree, keys, where, "it")
    check_ranges(needs.layered(needs.Needs(), [found]), where)
    return found


def _rules(given: Any, where: str) -> tuple[Rule, ...]:
    if not isinstance(given, list) or not all(isinstance(rule, dict) for rule in given):
        raise MixlabError(f"{where}: {shown(given)} came where a list of rules such as [{RULE}] is allowed")
    return tuple(_rule(rule, where) for rule in given)


def _rule(given: dict[str, Any], where: str) -> Rule:
    match = given.get("match")
    if not isinstance(match, dict) or not match:
        raise MixlabError(f"{where}: match: {shown(match)} came where fields with their values are allowed: {RULE}")
    where = f"{where}: match"
    wanted = {}
    for name, value in fields.flatten(match, where).items():
        several = value if isinstance(value, list) else [value]
        if not several:
            raise MixlabError(f"{where}: {name}: it has no values")
        wanted[name] = [_matched(name, one, where) for one in several]
    changes = {key: value for key, value in given.items() if key != "match"}
    if not changes:
        raise MixlabError(f"{where}: {shown(dict(match))} says no need; allowed beside it: {', '.join(needs.KEYS)}")
    return Rule(wanted, _layer(changes, needs.KEYS, where.removesuffix(": match")))


def _matched(name: str, value: Any, where: str) -> Any:
    """A value that a trial can have. Raises: MixlabError."""
    typed = fields.typed({name: value}, where)
    check_ranges(fields.set_fields(TrialConfig(), typed), where)
    if name == "backend" and value not in backends.names():
        raise MixlabError(f"{where}: {name}: {shown(value)} is not a backend; {choices(value, backends.names())}")
    return typed[name]


def _retries(given: Any, where: str) -> dict[str, int]:
    found = {}
    for cause, number in given.items():
        if cause not in RETRIES:
            known = f": {CAUSES[cause]}; it is never tried again by itself" if cause in CAUSES else " is no cause"
            raise MixlabError(f"{where}: {shown(cause)}{known}; {choices(cause, RETRIES)}")
        found[cause] = _tries(number, f"{where}: {cause}")
    return found


def _tries(number: Any, where: str) -> int:
    text = "" if isinstance(number, bool) else str(number)
    if not text.isdecimal() or text != str(int(text)):
        raise MixlabError(f"{where}: {shown(number)} came where a whole number from 0 is allowed")
    return int(text)


def _options(given: Any, where: str) -> dict[str, options.Option]:
    if outside := [name for name in given if name in (*KEYS, *OLD_NAMES) and name not in options.KNOWN]:
        raise MixlabError(f"{where}: {outside[0]!r} is a key of a cluster file; write it there, outside of sbatch")
    return options.read(given, where)


def _gpu_type(given: Any, where: str) -> str:
    name: str = values.typed(ClusterSpec, "gpu_type", given, where)
    if set(name) & set(":, "):
        raise MixlabError(f"{where}: {shown(given)} came; allowed: one type, such as a100; their number is 'gpus'")
    return name


SECTIONS: dict[str, Callable[[Any, str], Any]] = {
    "time": _minutes,
    "gpu_type": _gpu_type,
    "python": software.python_words,
    "setup": software.lines,
    "container": software.container,
    "sbatch": _options,
    "environments": _environments,
    "when": _rules,
    "retries": _retries,
}


def tree_of(spec: ClusterSpec) -> dict[str, Any]:
    """The spec as plain data, for a submission's cluster.json."""
    tree = dataclasses.asdict(spec)
    rules = [{"match": rule["match"], **rule["needs"]} for rule in tree["when"]]
    return {**tree, "python": tree["python"] or None, "when": rules}


def _check_texts(spec: ClusterSpec, where: str) -> None:
    """A batch script holds one option a line: text of several lines would be something else there."""
    for key, text in _texts(spec):
        if any(ord(letter) < 32 for letter in text) or not text:
            raise MixlabError(f"{where}: {key}: {text!r} came; allowed: text of one line, without control characters")


def _texts(spec: ClusterSpec) -> Iterator[tuple[str, str]]:
    """Every text that reaches a batch script, with its key."""
    tree = tree_of(spec)
    places = [("", {key: value for key, value in tree.items() if key not in ("environments", "when", "sbatch")})]
    places += [(f"environments: {backend}: ", layer) for backend, layer in tree["environments"].items()]
    places += [("when: ", {**rule, "match": None}) for rule in tree["when"]] + [("sbatch: ", tree["sbatch"])]
    yield from ((f"{place}{key}", text) for place, layer in places for key, v in layer.items() for text in _flat(v))


def _flat(value: Any) -> Iterator[str]:
    if isinstance(value, (list, tuple, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _flat(inner)
    elif isinstance(value, str):
        yield value
