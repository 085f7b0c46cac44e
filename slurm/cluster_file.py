"""Cluster files, in YAML, and their form in the store.

A key of an inner mapping may stand outside by its dotted name, as fields do in an ablation. Variables and ~ are
expanded in every text, once, where the file is read; but in `setup`, whose lines are shell and run on the node, and in
`match`, which holds values of fields.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.errors import MixlabError
from experiments.spec.expand import expand
from experiments.spec.yaml_files import read_mapping
from slurm import options, software
from slurm.cluster import ClusterSpec
from slurm.cluster_keys import cluster_from, spec_from
from slurm.needs import OLD_NAMES


def read_cluster(path: Path) -> ClusterSpec:
    """The spec that a cluster file holds.

    Raises: MixlabError: there is no such file, or a key of it does not fit; see cluster_keys.cluster_from.
    """
    tree = _nested(read_mapping(path), str(path))
    return cluster_from(_expanded(tree, str(path)), str(path))


def stored_cluster(tree: Mapping[str, Any], where: str) -> ClusterSpec:
    """The spec of a submission's cluster.json, as `tree_of` writes it.

    Before `time`, it held every key, a Python as one word, and options as text, which stand in place of keys.
    """
    if "time_min" not in tree:
        return spec_from(tree, where)
    flags = {"true": True, "false": False}
    sbatch = {name: flags.get(value.lower(), value) for name, value in tree["sbatch"].items()}
    environments = {
        backend: {**layer, "python": [layer["python"]] if layer["python"] else None}
        for backend, layer in tree["environments"].items()
    }
    replaced = options.replaced(sbatch)
    kept = {key: value for key, value in tree.items() if OLD_NAMES.get(key, key) not in replaced}
    return cluster_from({**kept, "sbatch": sbatch, "environments": environments}, where)


def _nested(tree: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The mapping with `environments.torch.time` and its like where they belong."""
    nested: dict[str, Any] = {}
    for name, value in tree.items():
        outer, dot, inner = name.partition(".")
        content = {inner: value} if dot else value
        if outer in nested:
            both = [nested[outer], content]
            if not all(isinstance(one, dict) for one in both) or set(both[0]) & set(both[1]):
                raise MixlabError(f"{where}: {name} is given twice, by a dotted name and inside of a mapping")
            content = both[0] | both[1]
        nested[outer] = content
    return {
        key: _nested(value, f"{where}: {key}") if isinstance(value, dict) else value for key, value in nested.items()
    }


def _expanded(value: Any, where: str, key: str = "") -> Any:
    if key in ("setup", "match"):
        return value
    if key == "python" and value is not None:
        value = list(software.python_words(value, where))  # first the words: a variable may hold a space
    if isinstance(value, dict):
        return {name: _expanded(inner, f"{where}: {name}", name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_expanded(item, where) for item in value]
    return expand(value, where) if isinstance(value, str) else value
