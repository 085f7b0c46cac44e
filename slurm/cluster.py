"""The cluster file: where and with what the trials of a grid run, in YAML; see clusters/example.yaml."""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import backends
from backends.errors import MixlabError, choices
from experiments.failures import CAUSES
from experiments.resolve import check_ranges
from experiments.spec import option
from experiments.yaml_files import read_mapping

# How often a trial is begun again by itself. A time limit and a preemption count only where the trial made no progress.
RETRIES = {"timed_out": 1, "preempted": 1, "node_lost": 3, "killed": 1, "disk_full": 10, "out_of_memory": 0, "error": 0}

# Options of sbatch that Mixlab sets, or that would break what it does.
OWN_OPTIONS = {
    *("array", "begin", "clusters", "dependency", "error", "export", "gid", "hold", "job-name", "nodes", "no-requeue"),
    *("ntasks", "ntasks-per-node", "open-mode", "output", "parsable", "requeue", "signal", "test-only", "uid", "wait"),
    "wrap",
}
KINDS = {int: "a whole number", float: "a number", bool: "true or false", dict: "a mapping as in the example"}


@dataclass(frozen=True)
class EnvironmentSpec:
    """The Python of a backend."""

    python: Optional[str] = None  # an interpreter that has the framework and submitit; none: the one that submits
    setup: list[str] = field(default_factory=list)  # lines of shell before it, such as module load cuda


@dataclass(frozen=True)
class ClusterSpec:
    """What a job asks Slurm for. Numbers are of one job, which holds a pack of trials."""

    partition: Optional[str] = option(None)  # none: the cluster's default; so are account and qos
    account: Optional[str] = option(None)
    qos: Optional[str] = option(None)
    constraint: Optional[str] = option(None)  # features of nodes
    time_min: int = option(60, low=1)  # minutes
    gpus: int = option(0, low=0)
    cpus: int = option(1, low=1)
    memory_gb: float = option(4.0, low=0.001)  # GiB, which Slurm calls GB
    array_parallelism: int = option(64, low=1)  # jobs of an array that run at a time
    pack: int = option(1, low=1)  # trials of a job, in sequence
    share: int = option(1, low=1)  # trials at a time on one device of a job
    store: Optional[str] = option(None)  # the results directory, which every node sees; none: --store
    signal: str = option("USR2", allowed=("USR1", "USR2"))  # Slurm's warning before a job's end
    signal_delay_s: int = option(90, low=1, high=65535)  # seconds between it and the end: room for a checkpoint
    compile_cache: Optional[str] = option(None)  # folder of compiled programs that all jobs share
    snapshot_limit_mb: float = option(50.0, low=0.001)  # of the code
    report: bool = option(True)  # whether a last job writes the ablation's report
    sbatch: dict[str, str] = field(default_factory=dict)  # further options, by their long names; true: without a value
    environments: dict[str, EnvironmentSpec] = field(default_factory=dict)  # by backend
    retries: dict[str, int] = field(default_factory=dict)  # by cause; what is left out is as in RETRIES

    def environment(self, backend: str) -> EnvironmentSpec:
        return self.environments.get(backend, EnvironmentSpec())

    def tries(self, cause: str) -> int:
        return self.retries.get(cause, RETRIES.get(cause, 0))

    @property
    def jobs(self) -> int:
        """Trials at a time in one job."""
        return self.share * max(1, self.gpus)


def read_cluster(path: Path) -> ClusterSpec:
    """Raises: MixlabError: names the file, the key, what came and what is allowed."""
    return cluster_from(read_mapping(path), str(path))


def cluster_from(tree: dict[str, Any], where: str) -> ClusterSpec:
    """The spec that a mapping holds.

    Raises: MixlabError: an unknown key, a value of a wrong type or out of range, text that no script can hold.
    """
    _check_keys(tree, ClusterSpec, where)
    for name in ("environments", "retries", "sbatch"):
        if not isinstance(tree.get(name) or {}, dict):
            raise MixlabError(f"{where}: {name}: {tree[name]!r} came where a mapping is allowed")
    for backend, given in (tree.get("environments") or {}).items():
        _check_environment(backend, given, where)
    for cause, number in (tree.get("retries") or {}).items():
        _check_retry(cause, number, where)
    for name, value in (tree.get("sbatch") or {}).items():
        if isinstance(value, (dict, list)) or value is None:
            raise MixlabError(f"{where}: sbatch: {name}: {value!r} came where text or a number is allowed")
    spec = ClusterSpec(**{key: _typed(key, value, where) for key, value in tree.items() if value is not None})
    check_ranges(spec, where)
    _check_texts(spec, where)
    return spec


def _check_keys(tree: dict[str, Any], kind: type[Any], where: str) -> None:
    names = [f.name for f in dataclasses.fields(kind)]
    for key in tree:
        if key not in names:
            what = "a cluster file" if kind is ClusterSpec else "it"
            raise MixlabError(f"{where}: {key!r} is not a key of {what}; {choices(key, names)}")


def _check_environment(backend: str, given: Any, where: str) -> None:
    if backend not in backends.names():
        raise MixlabError(f"{where}: environments: {backend!r} is not a backend; {choices(backend, backends.names())}")
    if not isinstance(given, dict):
        raise MixlabError(f"{where}: environments: {backend}: {given!r} came where a mapping is allowed")
    _check_keys(given, EnvironmentSpec, f"{where}: environments: {backend}")


def _check_retry(cause: str, number: Any, where: str) -> None:
    if cause not in RETRIES:
        allowed = choices(cause, RETRIES)
        known = f": {CAUSES[cause]}; it is never tried again by itself" if cause in CAUSES else " is no cause"
        raise MixlabError(f"{where}: retries: {cause!r}{known}; {allowed}")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise MixlabError(f"{where}: retries: {cause}: {number!r} came where a whole number from 0 is allowed")


def _typed(key: str, value: Any, where: str) -> Any:
    try:
        whole = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ClusterSpec), {key: value}))
    except (OmegaConfBaseException, ValueError) as error:
        kind = KINDS.get(type(getattr(ClusterSpec(), key)), "text")
        raise MixlabError(f"{where}: {key}: {value!r} came where {kind} is allowed") from error
    return getattr(whole, key)


def _check_texts(spec: ClusterSpec, where: str) -> None:
    """A batch script holds one option a line: text of several lines would be something else there."""
    for key, text in _texts(spec):
        if any(ord(letter) < 32 for letter in text) or not text:
            raise MixlabError(f"{where}: {key}: {text!r} came; allowed: text of one line, without control characters")
    if wrong := [name for name in spec.sbatch if not re.fullmatch(r"[a-z][a-z0-9-]*", name)]:
        raise MixlabError(f"{where}: sbatch: {wrong[0]!r} is no option; allowed: a long name such as mail-user")
    if taken := sorted(OWN_OPTIONS & set(spec.sbatch)):
        raise MixlabError(f"{where}: sbatch: {taken[0]!r} is set by Mixlab itself; leave it out")


def _texts(spec: ClusterSpec) -> Iterator[tuple[str, str]]:
    for f in dataclasses.fields(spec):
        if isinstance(value := getattr(spec, f.name), str):
            yield f.name, value
    yield from ((f"sbatch: {name}", value) for name, value in spec.sbatch.items())
    for backend, environment in spec.environments.items():
        for text in filter(None, (environment.python, *environment.setup)):
            yield f"environments: {backend}", text
