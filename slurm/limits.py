"""Obstacles to a submission, found before anything is sent: Slurm's limits, and Pythons without their backend."""

import shlex
import subprocess
from dataclasses import dataclass

import backends
from backends.errors import MixlabError
from slurm import client
from slurm.batch import python_of
from slurm.cluster import ClusterSpec

SAID = 160  # letters of a Python's last words in a sentence
PROBE_S = 60.0  # for a Python to say whether it has a framework; modules on a slow disk take long
LARGEST_ARRAY = 1001  # Slurm's own default of MaxArraySize, which bounds the index


@dataclass(frozen=True)
class Limits:
    """Numbers of jobs that Slurm takes."""

    array: int  # jobs of one array
    room: int  # jobs that may be added to the queue

    @staticmethod
    def read(cluster: ClusterSpec) -> "Limits":
        """Ask Slurm for its limits. Raises: SlurmSilent.   SlurmError."""
        config = client.config()
        largest = config.get("MaxArraySize", "")
        array = int(largest) if largest.isdigit() else LARGEST_ARRAY
        most = [int(config[name]) for name in ("MaxJobCount",) if config.get(name, "").isdigit()]
        for qos in dict.fromkeys(needs.qos for needs in cluster.all_needs(cluster.environments or backends.names())):
            limit = client.qos_submit_limit(qos)
            most += [limit] if limit is not None else []
        room = min(most, default=array) - client.own_jobs() - cluster.report
        return Limits(max(1, array), max(0, room))


def check_python(backend: str, cluster: ClusterSpec) -> None:
    """Hold an environment against what a job needs; one of a container is looked at by a job alone.

    Raises: MixlabError: the environment of a backend does not begin, or lacks the framework or submitit.
    """
    environment = cluster.environment(backend)
    if environment.container is not None:
        return
    words = python_of(environment)
    python = shlex.join(words)
    probe = (
        "import importlib.util, sys; "
        "print('mixlab lacks:', *[name for name in sys.argv[1:] if importlib.util.find_spec(name) is None])"
    )
    needed = ("submitit", "omegaconf", *backends.packages(backend))
    script = "\n".join([*environment.setup, 'exec "$0" "$@"'])
    command = ["bash", "-c", script, *words, "-P", "-c", probe, *needed]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise MixlabError(f"environments: {backend}: {python} did not start in {PROBE_S:g} s") from error
    answer = next((line for line in done.stdout.splitlines() if line.startswith("mixlab lacks:")), None)
    if done.returncode or answer is None:
        said_last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        setup = ", or correct 'setup'" if environment.setup else ""
        raise MixlabError(
            f"environments: {backend}: {python} does not start: {said_last[:SAID]}; name another one in 'python'{setup}"
        )
    if lacking := answer.split()[2:]:
        raise MixlabError(
            f"environments: {backend}: {python} lacks {', '.join(lacking)}; install it there, or name another one in "
            f"'python'"
        )
