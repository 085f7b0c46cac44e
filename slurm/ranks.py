"""The tasks of a job of several nodes: which of them this is, and where they meet."""

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
        """Source: srun(1), output environment variables. Names of nodes need not resolve; the launching node's address
        is one, and is that of the first task. The port follows the job's number, so that two jobs of a node differ.
        """
        given = os.environ.get
        port = 20000 + int(re.sub(r"\D", "", given("SLURM_JOB_ID", "0"))) % 10000
        host = given("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1")
        return Rank(
            int(given("SLURM_PROCID", "0")),
            int(given("SLURM_NTASKS", "1")),
            given("SLURMD_NODENAME", "this machine"),
            f"{host}:{port}",
        )
