"""Ranks: which task of a job of several nodes this process is, and where the tasks meet."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from experiments.machine.environment import slurm_job
from experiments.running.rendezvous import Rendezvous

GPUS = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Rank:
    """A task of a job."""

    index: int  # from 0
    size: int  # tasks of the job
    local: int  # from 0, on its node
    node: str
    host: str  # address of the first task's node
    port: int

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @staticmethod
    def of_this_job() -> "Rank":
        """The rank of this process.

        Names of nodes need not resolve; the launching node's address always does, and is that of the first task. The
        port follows the job's number, so that two jobs on one node differ.

        Source: srun(1), output environment variables.
        """
        variable = os.environ.get
        return Rank(
            int(variable("SLURM_PROCID", "0")),
            int(variable("SLURM_NTASKS", "1")),
            int(variable("SLURM_LOCALID", "0")),
            variable("SLURMD_NODENAME", "this machine"),
            variable("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1"),
            20000 + int(re.sub(r"\D", "", variable("SLURM_JOB_ID", "0"))) % 10000,
        )

    @property
    def device(self) -> str | None:
        """The device of a task, of those that Slurm shows to all tasks of its node; None: it sees its own alone."""
        return f"auto:{self.local}" if len(os.environ.get(GPUS, "").split(",")) > 1 else None

    def rendezvous(self, folder: Path, num_here: int) -> Rendezvous:
        """The place where the tasks of this start of the job meet.

        Args: folder: of what jobs say to themselves.    num_here: tasks of the job on each node.
        """
        job = slurm_job()
        name = f"{job['job']}-{os.environ.get('SLURM_STEP_ID', '0')}-{job['restart']}.json"
        return Rendezvous(folder / "ranks" / name, self.host, self.size, num_here)
