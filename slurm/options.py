"""Options of sbatch that a cluster file gives as they are, beside the keys that say some of them in other words.

An option that a key says too (time, partition, cpus-per-task, ...) is read as that key. Memory and GPUs have several
options in Slurm: one of those that is given stands in place of memory_gb, or of gpus and gpu_type, and is sent as it is
written. So no option is ever sent twice.
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from backends.errors import MixlabError
from experiments.spec.scalars import Written
from experiments.spec.values import shown
from slurm import needs

Option = str | bool  # what is sent after `=`; True: the option alone; False: it is left out


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Options that Mixlab sets, or that would break what it does.
OWN = _words(
    "array begin clusters dependency error export gid help hold job-name no-requeue ntasks ntasks-per-core "
    "ntasks-per-gpu ntasks-per-node ntasks-per-socket ntasks-per-tres open-mode output parsable quiet requeue signal "
    "test-only uid usage version wait wrap"
)
# Options that a key of a cluster file says.
KEYS = {name: name for name in ("time", "partition", "account", "qos", "constraint", "exclude", "nodelist")}
KEYS |= {"reservation": "reservation", "cpus-per-task": "cpus", "nodes": "nodes"}
MEMORY = ("mem", "mem-per-cpu", "mem-per-gpu")
GPUS = ("gpus", "gpus-per-node", "gpus-per-task", "gres")
# Options after which Mixlab would not know the cores or the GPUs of a job; and the first one of pyxis.
INSTEAD = {"cpus-per-gpu": "cpus", "container-image": "container"}
INSTEAD |= dict.fromkeys(("gpus-per-socket", "tres-per-task", "tres-per-job"), "gpus")
# Short names of options, which are no names here. Case matters.
SHORT = {"A": "account", "c": "cpus-per-task", "C": "constraint", "D": "chdir", "d": "dependency", "e": "error"}
SHORT |= {"G": "gpus", "J": "job-name", "L": "licenses", "M": "clusters", "n": "ntasks", "N": "nodes", "o": "output"}
SHORT |= {"p": "partition", "q": "qos", "t": "time", "w": "nodelist", "x": "exclude", "a": "array", "b": "begin"}
NEAR = 0.85  # of two names that are so alike, one is a misspelling; an option of a site's own is sent as it is
# Source: sbatch(1) of Slurm 22.05 and 24.11.
KNOWN = OWN | {*KEYS, *MEMORY, *GPUS, *INSTEAD}
KNOWN |= _words(
    "acctg-freq batch bb bbf chdir cluster-constraint comment consolidate-segments container container-id contiguous "
    "core-spec cores-per-socket cpu-freq deadline delay-boot distribution exclusive export-file external extra "
    "extra-node-info get-user-env gpu-bind gpu-freq gres-flags hint ignore-pbs input kill-on-invalid-dep licenses "
    "mail-type mail-user mcs-label mem-bind mincpus network nice no-kill nodefile oom-kill-step overcommit "
    "oversubscribe power prefer priority profile propagate reboot resv-ports segment sockets-per-node spread-job "
    "spread-segments stepmgr switches thread-spec threads-per-core time-min tmp tres-bind use-min-nodes verbose "
    "wait-all-nodes wckey x11"
)


def hint(key: str) -> str | None:
    """What to say of a word that is no key of a cluster file, where it is an option of sbatch; None: it is none."""
    name = key.replace("_", "-")
    if (key_for_it := _key_of(name)) is not None:
        return f"it is an option of sbatch; the key for it is {key_for_it!r}"
    if name in OWN:
        return "it is an option of sbatch that Mixlab sets itself; leave it out"
    return f"it is an option of sbatch; put it under sbatch: {{{name}: ...}}" if name in KNOWN else None


def family(key: str) -> str | None:
    """What to say of a word that several options of sbatch begin with, such as mail; None: none does."""
    name = key.replace("_", "-")
    names = sorted(one for one in KNOWN - OWN if one.startswith(f"{name}-"))
    return f"put options of sbatch under sbatch: {{{': ..., '.join(names)}: ...}}" if names else None


def _key_of(name: str) -> str | None:
    """The key of a cluster file that says what an option says; None: there is none."""
    kinds = {"memory_gb": MEMORY, "gpus": GPUS}
    return KEYS.get(name) or INSTEAD.get(name) or next((key for key, names in kinds.items() if name in names), None)


def read(sbatch: Mapping[str, Any], where: str) -> dict[str, Option]:
    """The options by their long names.

    Raises: MixlabError: a name that is no long one, or that Mixlab sets itself; a value that is no text.
    """
    options: dict[str, Option] = {}
    for name, value in sbatch.items():
        _check_name(name, where)
        options[name] = _value(value, f"{where}: {name}")
        if isinstance(options[name], bool) and (key := _key_of(name)):
            raise MixlabError(
                f"{where}: {name}: expected an amount, got {shown(value)}; the key for it is {key!r} (null: left out)"
            )
    return options


def _check_name(name: str, where: str) -> None:
    if name not in KNOWN and (why := _misnamed(name)):
        raise MixlabError(f"{where}: {shown(name)} {why}")
    if name in OWN:
        raise MixlabError(f"{where}: {name!r} is set by Mixlab itself; leave it out")
    if name in INSTEAD or (name.startswith("container-") and name not in KNOWN):
        key = INSTEAD.get(name, "container")
        raise MixlabError(f"{where}: {name!r} leaves Mixlab not knowing what a job has; say it by the key {key!r}")


def _misnamed(name: str) -> str | None:
    """What is wrong with a name that is not known; None: it may be an option of a site's own."""
    if long := SHORT.get(name):
        key = _key_of(long)
        fix = f"the key for it is {key!r}" if key else "Mixlab sets it itself" if long in OWN else "write it out"
        return f"is the short name of {long}; {fix}"
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        long = name.lower().strip("-").replace("_", "-")
        return f"is no option; allowed: a long name such as mail-user{f'; did you mean {long!r}?' * (long in KNOWN)}"
    if whole := sorted(option for option in KNOWN if option.startswith(name)):
        return f"is a part of a name; write it out: {', '.join(whole[:3])}"  # sbatch takes it for the name
    alike = get_close_matches(name, KNOWN, n=1, cutoff=NEAR)
    return f"is no option of sbatch; did you mean {alike[0]!r}?" if alike else None


def _value(value: Any, where: str) -> Option:
    if isinstance(value, (dict, list)) or value is None:
        raise MixlabError(f"{where}: expected text, a number, true or false, got {shown(value)}")
    if isinstance(value, bool):
        return value
    text = str(value)
    if isinstance(value, Written) and text.lower() in ("yes", "no", "on", "off"):
        raise MixlabError(
            f"{where}: {text} can be read as a text and as a flag; write '{text}' in quotes, true or false"
        )
    return text.lower() == "true" if isinstance(value, Written) and text.lower() in ("true", "false") else text


def moved(tree: Mapping[str, Any], where: str) -> tuple[dict[str, Any], dict[str, str]]:
    """A cluster file's mapping in which each option that a key says is that key, and where those keys stand.

    Raises: MixlabError: the option and the key are both given.
    """
    options = tree.get("sbatch") or {}
    places: dict[str, str] = {}
    keys = {key: value for key, value in tree.items() if key != "sbatch"}
    for name in [name for name in options if name in KEYS]:
        key = KEYS[name]
        for spelling in (key, *(old for old, new in needs.OLD_NAMES.items() if new == key)):
            if keys.get(spelling) is not None:
                raise _twice(where, name, f"the key {spelling}")
            keys.pop(spelling, None)
        keys[key], places[key] = options[name], f"sbatch: {name}"
    for names, same in ((MEMORY, ("memory_gb",)), (GPUS, ("gpus", "gpu_type"))):
        asking = [name for name in names if name in options and (name != "gres" or _gpus_in(str(options[name])))]
        for place, key in _uses(tree, same) if asking else ():
            raise _twice(where, asking[0], f"{place}{key}")
        if len(asking) > 1:
            raise _twice(where, asking[0], asking[1])
    return {**keys, "sbatch": {name: value for name, value in options.items() if name not in KEYS}}, places


def _uses(tree: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The places of a cluster file that hold some keys, each with its key."""
    environments = tree.get("environments") or {}
    places = [("the key ", tree), *((f"environments: {backend}: ", layer) for backend, layer in environments.items())]
    places += [("when: ", rule) for rule in tree.get("when") or []]
    for place, layer in places:
        if isinstance(layer, Mapping):
            yield from ((place, key) for key in keys if layer.get(key) is not None)


def _twice(where: str, name: str, other: str) -> MixlabError:
    kind = "; a type of GPU has the key gpu_type" if name in GPUS else ""
    return MixlabError(f"{where}: sbatch: {name} and {other} ask for the same; give one of them{kind}")


def stands_for(options: Mapping[str, Option]) -> dict[str, Any]:
    """Needs in whose place options stand: the number of GPUs is that of the options, and no memory is asked for.

    Raises: MixlabError: the options do not say how many GPUs one job has.
    """
    layer: dict[str, Any] = {"memory_gb": None} if any(name in options for name in MEMORY) else {}
    for name in GPUS:
        if name in options and (items := _gpus_in(str(options[name])) if name == "gres" else [str(options[name])]):
            layer |= {"gpus": _count(name, items, str(options[name])), "gpu_type": None}
    return layer


def names_gpus(options: Mapping[str, Option]) -> bool:
    """Whether options ask for GPUs, so that the keys must not."""
    return "gpus" in stands_for(options)


def gpus_of_job(options: Mapping[str, Option]) -> str | None:
    """The option that counts the GPUs of a whole job or of a task, where it may have several nodes; None: none does."""
    return next((name for name in ("gpus", "gpus-per-task") if name in options), None)


def _gpus_in(gres: str) -> list[str]:
    """What follows `gpu:` in each item of a list of generic resources that is of GPUs."""
    items = [item.removeprefix("gres/") for item in gres.split(",")]
    return [item.partition(":")[2] or "1" for item in items if item.partition(":")[0] == "gpu"]


def _count(name: str, items: list[str], text: str) -> int:
    """The GPUs of one job. Raises: MixlabError: the text has several types, or no number."""
    last = items[0].rpartition(":")[2]
    number = "1" if name == "gres" and not last.isdecimal() and ":" not in items[0] else last
    if len(items) > 1 or "," in items[0] or not number.isdecimal():
        example = "gpu:a100:1" if name == "gres" else "a100:1"
        raise MixlabError(
            f"sbatch: {name}: expected one type and a whole number of GPUs, such as {example}, got {shown(text)}"
        )
    return int(number)


def replaced(options: Mapping[str, Option]) -> set[str]:
    """Keys of a cluster file in whose place options stand."""
    keys = {KEYS[name] for name in options if name in KEYS}
    if any(name in options for name in MEMORY):
        keys.add("memory_gb")
    if any(name in options and (name != "gres" or _gpus_in(str(options[name]))) for name in GPUS):
        keys |= {"gpus", "gpu_type"}
    return keys


def sent(options: Mapping[str, Option]) -> dict[str, Option]:
    """The options without those that are left out."""
    return {name: value for name, value in options.items() if value is not False}


def for_report(options: Mapping[str, Option]) -> dict[str, Option]:
    """The options of a job that needs no GPU, and whose memory is known."""
    return {name: value for name, value in without_gpus(options).items() if name not in MEMORY}


def without_gpus(options: Mapping[str, Option]) -> dict[str, Option]:
    """The options of a job that needs no GPU."""
    gres = ",".join(item for item in str(options.get("gres", "")).split(",") if not _gpus_in(item))
    without = (*GPUS, "mem-per-gpu", "gpu-bind", "gpu-freq")
    rest = {name: value for name, value in options.items() if name not in without}
    return {**rest, "gres": gres} if gres else rest
