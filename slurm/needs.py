"""Needs: what the job of a trial asks Slurm for. These keys may differ between backends and settings."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from backends.errors import MixlabError, counted
from backends.models import family_of
from backends.specs import option
from experiments.design.ablation import GridTrial
from experiments.design.names import AXIS
from experiments.spec import fields
from experiments.spec.trial import Trial

Layer = Mapping[str, Any]  # keys of Needs that take the place of those before


@dataclass(frozen=True)
class Needs:
    """The needs of one job, which holds a pack of trials. Trials of different needs never share a job."""

    partition: Optional[str] = option(None)  # none: the cluster's default; so are account and qos
    account: Optional[str] = option(None)
    qos: Optional[str] = option(None)
    constraint: Optional[str] = option(None)  # features of nodes
    exclude: Optional[str] = option(None)  # nodes that are not used, such as n1,n[4-7]
    nodelist: Optional[str] = option(None)  # nodes that are
    reservation: Optional[str] = option(None)
    time: int = option(60, low=1)  # minutes; in YAML in the forms of time_limit.py
    nodes: int = option(1, low=1)  # of one job; several: its tasks are the processes of a trial on several devices
    trial_devices: Optional[int] = option(None, low=1)  # that train a trial together; null: as many as run.devices says
    gpus: int = option(0, low=0)  # of each node; so are cpus and memory_gb
    gpu_type: Optional[str] = option(None)  # as the cluster calls it, such as a100
    cpus: int = option(1, low=1)
    memory_gb: Optional[float] = option(4.0, low=0.001)  # GiB, which Slurm calls GB; null: what the cluster gives
    pack: int = option(1, low=1)  # trials of a job, in sequence
    share: int = option(1, low=1)  # trials at a time on one device of a job

    @property
    def jobs(self) -> int:
        """Trials at a time in one job."""
        return 1 if self.nodes > 1 else self.share * max(1, self.gpus // self.devices)

    @property
    def devices(self) -> int:
        return self.trial_devices or 1

    @property
    def tasks(self) -> int:
        """Tasks of a job on each of its nodes: on a single one, a trial's own process starts the others."""
        return self.devices // self.nodes if self.nodes > 1 else 1

    def check(self) -> None:
        """Raises: MixlabError: the devices of a trial are not those of the job's nodes."""
        devices, nodes, gpus = self.devices, self.nodes, self.gpus
        if devices % nodes:
            raise MixlabError(
                f"nodes: expected a number that divides the {counted(devices, 'device')} of a trial, got {nodes}; set "
                f"trial_devices, or nodes: 1"
            )
        if nodes > 1 and gpus and devices != nodes * gpus:
            raise MixlabError(
                f"trial_devices: expected {nodes * gpus}, all GPUs of {nodes} nodes with {gpus}, got {devices}"
            )
        if nodes == 1 and 0 < gpus < devices:
            raise MixlabError(
                f"gpus: expected {devices} or more for a trial on {devices} devices, got {gpus}; or set nodes: "
                f"{-(-devices // gpus)}"
            )
        if devices > 1 and self.share > 1 and (gpus or nodes > 1):
            raise MixlabError(f"share: expected 1 for trials on {devices} devices, got {self.share}")
        if self.cpus % self.tasks:
            raise MixlabError(
                f"cpus: expected a multiple of {self.tasks}, the processes of a trial on a node, got {self.cpus}"
            )


KEYS = tuple(f.name for f in dataclasses.fields(Needs))
OLD_NAMES = {"time_min": "time"}  # of a key, which go on working


@dataclass(frozen=True)
class Rule:
    """A rule of `when`: what trials of some settings need, in place of the needs of the others."""

    match: Mapping[str, list[Any]]  # field of a trial, or axis of mappings -> the values that it may have
    needs: Layer

    def __str__(self) -> str:
        return ", ".join(f"{name}: {' or '.join(map(fields.text, values))}" for name, values in self.match.items())

    def matches(self, planned: GridTrial, base: Layer) -> bool:
        """Tell whether each field has one of its values, as the ablation gives it or as it is resolved.

        Args: base: fields that the ablation gives to all of its trials.
        """
        settings = {**base, **planned.settings}
        own = {
            name: (settings.get(name), settings.get(f"{AXIS}{name}"), resolved(planned.trial, name))
            for name in self.match
        }
        return all(any(value in own[name] for value in values) for name, values in self.match.items())


def resolved(trial: Trial, name: str) -> Any:
    """The value of a field in a trial that runs; of model.variant, the one that has all of its sizes, or none."""
    if name == "model.variant":
        return family_of(trial.model).variant_of(trial.model)
    try:
        return fields.get_field(trial, name)
    except AttributeError:  # a field that is replaced by others as it is resolved
        return None


def layered(needs: Needs, layers: Iterable[Layer]) -> Needs:
    """The needs with some replaced, the last one last; where one takes the GPUs away, their type goes too."""
    for layer in layers:
        typeless = {"gpu_type": None} if layer.get("gpus") == 0 else {}
        needs = dataclasses.replace(needs, **typeless | {key: layer[key] for key in KEYS if key in layer})
    return needs
