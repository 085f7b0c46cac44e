"""Keys of a cluster file: what each may say, and the value that it becomes."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

import backends
from backends.errors import MixlabError, choices
from experiments.running.failures import CAUSES
from experiments.spec import fields, values
from experiments.spec.values import shown
from slurm import needs, options, software
from slurm.cluster import RETRIES, ClusterSpec, Retries
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
            raise MixlabError(f"{where}: {name}: expected a mapping, got {shown(tree[name])}")
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
    """The spec of a mapping in which an option may stand for what a key says too; else as `cluster_from`.

    Args: places: of keys that stand elsewhere in the file: where.
    """
    spec = ClusterSpec(**_read(tree, KEYS, where, "a cluster file", places or {}))
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
    """The keys of a mapping, typed and in range. A null leaves a key out, or says none where that is a value."""
    typed: dict[str, Any] = {}
    for name, value in tree.items():
        key = OLD_NAMES.get(name, name)
        _check_key(name, key, keys, where, what)
        place = f"{where}: {places.get(name, name)}"
        if value is not None:
            typed[key] = READERS[key](value, place) if key in READERS else values.typed(ClusterSpec, key, value, place)
        elif values.may_be_null(ClusterSpec, key):
            typed[key] = None
    return typed


def _check_key(name: str, key: str, keys: Iterable[str], where: str, what: str) -> None:
    """Raises: MixlabError: no key has that name here; says what the name is elsewhere, or the nearest key."""
    if key in keys:
        return
    here = list(keys)
    near = get_close_matches(key, here, n=1)
    if key in KEYS:
        hint = f"it stands for all jobs, beside the others of the file; allowed here: {', '.join(here)}"
    elif of_sbatch := options.hint(key):
        hint = of_sbatch
    elif near:
        hint = f"did you mean {near[0]!r}?"
    elif of_sbatch := options.family(key):
        hint = of_sbatch
    else:
        more = ", ...; all are in slurm/clusters/example.yaml" if len(here) > LISTED else ""
        hint = f"allowed: {', '.join(here[:LISTED])}{more}"
    raise MixlabError(f"{where}: {shown(name)} is not a key of {what}; {hint}")


def _minutes(value: Any, where: str) -> int:
    try:
        return asked_minutes("" if isinstance(value, (list, dict)) else str(value).strip())
    except Unread as error:
        raise MixlabError(f"{where}: {shown(value)} {error}") from error


def _environments(layers: Any, where: str) -> dict[str, dict[str, Any]]:
    by_backend = {}
    for backend, layer in layers.items():
        if backend not in backends.names():
            raise _not_a_backend(backend, where)
        if not isinstance(layer, dict):
            raise MixlabError(f"{where}: {backend}: expected a mapping, got {shown(layer)}")
        by_backend[backend] = _read(layer, (*software.KEYS, *needs.KEYS), f"{where}: {backend}", "it")
    return by_backend


def _not_a_backend(name: str, where: str) -> MixlabError:
    names = backends.names()
    return MixlabError(f"{where}: expected the name of a backend, got {shown(name)}; {choices(name, names)}")


def _rules(rules: Any, where: str) -> tuple[Rule, ...]:
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise MixlabError(f"{where}: expected a list of rules such as [{RULE}], got {shown(rules)}")
    return tuple(_rule(rule, where) for rule in rules)


def _rule(rule: dict[str, Any], where: str) -> Rule:
    if "match" not in rule:
        for key in rule:
            _check_key(key, key, ("match", *needs.KEYS), where, "it")
    match = rule.get("match")
    if not isinstance(match, dict) or not match:
        raise MixlabError(f"{where}: match: expected fields with their values, as in {RULE}, got {shown(match)}")
    place = f"{where}: match"
    wanted = {}
    of_axes = {name: value for name, value in match.items() if _may_be_axis(name)}
    of_fields = fields.flatten({name: value for name, value in match.items() if name not in of_axes}, place)
    for name, value in {**of_axes, **of_fields}.items():
        several = value if isinstance(value, list) else [value]
        if not several:
            raise MixlabError(f"{place}: {name}: it has no values")
        if name in of_axes and not all(isinstance(one, str) for one in several):
            raise MixlabError(f"{place}: {name}: expected names of an axis' values, got {shown(value)}")
        wanted[name] = several if name in of_axes else [_matched(name, one, place) for one in several]
    changes = {key: value for key, value in rule.items() if key != "match"}
    if not changes:
        raise MixlabError(f"{where}: {shown(dict(match))} says no need; allowed beside it: {', '.join(needs.KEYS)}")
    return Rule(wanted, _read(changes, needs.KEYS, where, "it"))


def _may_be_axis(name: str) -> bool:
    """Whether a name may be that of an axis of mappings, which no cluster file can know; fields have other names."""
    alone = [field for field in fields.names() if "." not in field]
    is_word = "." not in name and name not in alone and not fields.is_section(name)
    return is_word and not get_close_matches(name, alone, n=1, cutoff=0.8)


def _matched(name: str, value: Any, where: str) -> Any:
    """A value that a trial can have. Raises: MixlabError."""
    typed = fields.typed({name: value}, where)[name]
    if name == "backend" and typed not in backends.names():
        raise _not_a_backend(typed, f"{where}: {name}")
    return typed


def _retries(numbers: Any, where: str) -> dict[str, int]:
    for cause in numbers:
        if cause not in RETRIES:
            why = f": {CAUSES[cause]}; it is never tried again by itself" if cause in CAUSES else " is no cause"
            raise MixlabError(f"{where}: {shown(cause)}{why}; {choices(cause, RETRIES)}")
    return {cause: values.typed(Retries, cause, number, f"{where}: {cause}") for cause, number in numbers.items()}


def _options(sbatch: Any, where: str) -> dict[str, options.Option]:
    if outside := [name for name in sbatch if name in (*KEYS, *OLD_NAMES) and name not in options.KNOWN]:
        raise MixlabError(f"{where}: {outside[0]!r} is a key of a cluster file; write it there, outside of sbatch")
    return options.read(sbatch, where)


def _gpu_type(value: Any, where: str) -> str:
    name: str = values.typed(ClusterSpec, "gpu_type", value, where)
    if set(name) & set(":, "):
        raise MixlabError(
            f"{where}: expected one type of GPU, such as a100, got {shown(value)}; their number is 'gpus'"
        )
    return name


READERS: dict[str, Callable[[Any, str], Any]] = {
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
    """Hold texts against a batch script, where an option is one line, and the next line something else.

    Raises: MixlabError: a text is empty, or of several lines.
    """
    for key, text in _texts(spec):
        if any(ord(letter) < 32 for letter in text) or not text:
            raise MixlabError(f"{where}: {key}: expected text of one line without control characters, got {text!r}")


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
