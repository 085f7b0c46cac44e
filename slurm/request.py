"""A request to submit trials, and what each of its jobs then asks Slurm for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments.design import stages, tune
from experiments.design.ablation import Ablation, GridTrial
from experiments.results.states import Halt
from experiments.results.store import Store
from slurm import packing
from slurm.batch import Ask
from slurm.cluster import ClusterSpec
from slurm.needs import Needs
from slurm.packing import Pack


@dataclass(frozen=True)
class Request:
    """The trials to submit, and how."""

    ablation: Ablation
    trials: Sequence[GridTrial]
    cluster: ClusterSpec
    store: Store
    cache: Path
    states: frozenset[str] | None = None  # those of slurm.status that are wanted; None: all that are not done
    extra: Sequence[GridTrial] = ()  # of earlier forms of the ablation: sent with the others, and not reported
    warn: Callable[[str], None] = print
    sends_tuning: bool = True  # False: trials that tune are not sent again, but for a stage that they were not sent to
    keeps_newer: bool = False  # True: another form of the ablation that has its name by now stays there
    code: Path | None = None  # the snapshot that jobs run, and its commit; None: the code that runs now
    commit: Mapping[str, Any] | None = None

    @property
    def num_waiting(self) -> int:
        """Trials of the table that are not among these, since what is tuned is not chosen."""
        return tune.num_waiting(self.ablation, self.trials)

    @cached_property
    def halts(self) -> dict[str, Halt]:
        """Where halving has trials stand, by id."""
        return stages.halts(self.ablation, self.trials, self.store)

    def needs(self, planned: GridTrial) -> Needs:
        """The needs of a trial's job.  Raises: MixlabError: they contradict the devices of the trial."""
        return self.cluster.needs(planned.trial.backend, planned, self.ablation.base)

    def packs(self, trials: Sequence[GridTrial]) -> list[Pack]:
        return packing.packs(trials, self.needs)

    def ask(self, pack: Pack, code: Path) -> Ask:
        """The Ask that the jobs of the array with this pack have in common."""
        environment = self.cluster.environment(pack.backend)
        folders, needs = seen(self.cluster, self.store.root, self.cache), pack.needs
        return Ask(self.cluster, needs, environment, code, folders, needs.nodes, needs.tasks)

    def unmatched(self) -> Iterator[str]:
        """Sentences on the rules of the cluster file that match none of the trials."""
        for rule in self.cluster.when:
            if not any(rule.matches(planned, self.ablation.base) for planned in (*self.trials, *self.extra)):
                yield f"when: {rule} matches no trial of {self.ablation.name}"


def seen(cluster: ClusterSpec, *folders: Path) -> tuple[Path, ...]:
    """The folders that a job must see."""
    return (*folders, *([Path(cluster.compile_cache)] if cluster.compile_cache else []))
