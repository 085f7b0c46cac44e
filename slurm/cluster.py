"""The contents of a cluster file: where and with what the trials of a grid run.

Three layers say what a job needs, the later in place of the earlier: the keys of the file, those of
`environments: <backend>`, and those of each rule of `when` that a trial matches, the last rule last.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Optional

from backends.errors import MixlabError
from backends.specs import option
from experiments.design.ablation import GridTrial
from experiments.spec.values import shown
from slurm import needs, options
from slurm.needs import Layer, Needs, Rule
from slurm.options import Option
from slurm.software import Container, EnvironmentSpec


@dataclass(frozen=True)
class Retries:
    """How often a trial is begun again by itself, by the cause of its end."""

    timed_out: int = option(1, low=0)  # counts only where the trial made no progress; so does a preemption
    preempted: int = option(1, low=0)
    node_lost: int = option(3, low=0)
    killed: int = option(1, low=0)
    disk_full: int = option(10, low=0)
    out_of_memory: int = option(0, low=0)
    error: int = option(0, low=0)


RETRIES = asdict(Retries())


@dataclass(frozen=True)
class ClusterSpec(Needs):
    """The needs and the surroundings of jobs. Numbers are of one job, which holds a pack of trials."""

    array_parallelism: int = option(64, low=1)  # jobs of an array that run at a time
    store: Optional[str] = option(None)  # the results directory, which every node sees; none: --store
    signal: str = option("USR2", allowed=("USR1", "USR2"))  # Slurm's warning before a job's end
    signal_delay_s: int = option(90, low=1, high=65535)  # seconds between it and the end: room for a checkpoint
    compile_cache: Optional[str] = option(None)  # folder of compiled programs that all jobs share
    snapshot_limit_mb: float = option(50.0, low=0.001)  # of the code
    report: bool = option(True)  # whether a last job writes the ablation's report
    python: tuple[str, ...] = ()  # what a backend's environment does not say; its lines of setup come after these
    setup: tuple[str, ...] = ()
    container: Optional[Container] = None
    sbatch: Mapping[str, Option] = field(default_factory=dict)  # further options, by their long names: options.py
    environments: Mapping[str, Layer] = field(default_factory=dict)  # by backend: needs, and what it runs in
    when: tuple[Rule, ...] = ()  # needs of some settings
    retries: Mapping[str, int] = field(default_factory=dict)  # by cause; what is left out is as in RETRIES

    @property
    def common(self) -> Needs:
        """The needs that the keys of the file state for all trials."""
        return Needs(**{key: getattr(self, key) for key in needs.KEYS})

    def environment(self, backend: str) -> EnvironmentSpec:
        """The Python, setup and container of a backend's trials."""
        own = self.environments.get(backend, {})
        setup = (*self.setup, *own.get("setup", ()))
        return EnvironmentSpec(own.get("python", self.python), setup, own.get("container", self.container))

    def needs(self, backend: str, planned: GridTrial | None = None, base: Layer | None = None) -> Needs:
        """The needs of a trial's job; without a trial, those of a trial of the backend that no rule matches.

        Args:   base: fields that the ablation gives to all of its trials.
        Raises: MixlabError: a type of GPU, and no GPU; the devices of a trial are not those of its job.
        """
        rules = [rule for rule in self.when if planned is not None and rule.matches(planned, base or {})]
        layered = self._layered(backend, rules)
        if layered.gpu_type and not layered.gpus:
            raise MixlabError(f"gpu_type: {shown(layered.gpu_type)} needs a number of GPUs for {backend}; set gpus: 1")
        if planned is not None:
            if layered.trial_devices is None and planned.trial.run.devices > 1:
                layered = replace(layered, trial_devices=planned.trial.run.devices)
            _check_parts(layered.devices, planned)
        if planned is not None or layered.trial_devices is not None:  # else it is the trial that says it
            layered.check()
        if layered.nodes > 1 and (of_job := options.gpus_of_job(self.sbatch)):
            raise MixlabError(
                f"sbatch: {of_job}: expected the GPUs of each node, by the key gpus, where nodes is {layered.nodes}"
            )
        return layered

    def all_needs(self, names: Iterable[str]) -> Iterator[Needs]:
        """The needs that jobs of some backends may have: of each backend alone, and with each rule alone."""
        for backend in names:
            yield self.needs(backend)
            yield from (self._layered(backend, [rule]) for rule in self.when)

    def check_rules(self) -> None:
        """Check the rules of `when`. Raises: MixlabError: one sets a type of GPU, and nothing sets a number."""
        layers = [*self.environments.values(), *(rule.needs for rule in self.when)]
        kinds = [rule.needs["gpu_type"] for rule in self.when if rule.needs.get("gpu_type")]
        if kinds and not self.gpus and not any(layer.get("gpus") for layer in layers):
            raise MixlabError(f"when: gpu_type: {shown(kinds[0])} needs a number of GPUs; set gpus: 1")

    def _layered(self, backend: str, rules: list[Rule]) -> Needs:
        layers = [self.environments.get(backend, {}), *(rule.needs for rule in rules)]
        return needs.layered(self.common, [*layers, options.stands_for(self.sbatch)])

    def tries(self, cause: str) -> int:
        return self.retries.get(cause, RETRIES.get(cause, 0))


def _check_parts(devices: int, planned: GridTrial) -> None:
    """Raises: MixlabError: a trial's batch cannot be dealt out to so many devices."""
    parts = planned.trial.train.microbatches
    if parts % devices:
        raise MixlabError(
            f"trial_devices: expected a divisor of train.microbatches, {parts} in {planned.label}, got {devices}"
        )
