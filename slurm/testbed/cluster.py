"""A running cluster, as tests use it: its clients' environment, and daemons that are killed and started again."""

import signal
from dataclasses import dataclass

from backends.errors import MixlabError, choices
from slurm.testbed import daemons, processes
from slurm.testbed.layout import Layout

SERVERS = ("munged", "mariadbd", "slurmdbd", "slurmctld")  # in the order of their start


@dataclass(frozen=True)
class Cluster:
    """The cluster in a directory. A daemon is called by its program; a node's slurmd is called as the node is."""

    layout: Layout

    @property
    def environment(self) -> dict[str, str]:
        """Variables to add to the environment of a client such as sbatch."""
        return {"SLURM_CONF": str(self.layout.slurm_conf), "PATH": daemons.search_path()}

    @property
    def nodes(self) -> tuple[str, ...]:
        return daemons.nodes(self.layout)

    def kill(self, daemon: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End one daemon and return when it is gone; jobs run on under their slurmstepd."""
        self._check(daemon)
        processes.end(lambda: processes.of_daemons(self.layout, daemon), number)

    def crash(self, node: str) -> None:
        """End a node's slurmd with its slurmstepd and their tasks, as a power failure does."""
        self._check(node)
        processes.end(lambda: [p for p in processes.of_cluster(self.layout) if p.daemon == node], signal.SIGKILL)

    def start(self, daemon: str) -> None:
        """Start one daemon again, unless it runs, and return when it answers."""
        self._check(daemon)
        if daemon not in processes.daemons(self.layout):
            daemons.start(self.layout, daemon)
        daemons.wait_for(self.layout, daemon)

    def _check(self, daemon: str) -> None:
        if daemon not in SERVERS + self.nodes:
            raise MixlabError(
                f"{self.layout.directory}: expected a daemon of the cluster, got {daemon!r}; "
                f"{choices(daemon, SERVERS + self.nodes)}"
            )
