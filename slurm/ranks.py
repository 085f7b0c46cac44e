"""Ranks: which task of a job of several nodes this process is, and where the tasks meet."""

import os
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Rank:
    """A task of a job."""

    index: int  # from 0
    size: int  # tasks of the job
    node: str
    address: str  # host:port of the first one

    @staticmethod
    def of_this_job() -> "Rank":
        """The rank of this process.

        Names of nodes need not resolve; the launching node's address always does, and is that of the first task. The
        port follows the job's number, so that two jobs on one node differ.

        Source: srun(1), output environment variables.
        """
        variable = os.environ.get
        port = 20000 + int(re.sub(r"\D", "", variable("SLURM_JOB_ID", "0"))) % 10000
        host = variable("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1")
        return Rank(
            int(variable("SLURM_PROCID", "0")),
            int(variable("SLURM_NTASKS", "1")),
            variable("SLURMD_NODENAME", "this machine"),
            f"{host}:{port}",
        )
