"""Batch scripts, by submitit: what a job asks for, which code it runs, and what it is called with."""

import contextlib
import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor

from backends.errors import MixlabError
from slurm import client
from slurm.cluster import ClusterSpec, EnvironmentSpec

# submitit counts time limits; here it is decided in job.py whether a job may go on.
TIMEOUTS = 10**6
# A signal that comes before submitit has its handlers would end Python, and with it the job; and where something else
# kills Python or it crashes, nobody else puts the job back into the queue; one that Slurm ends was told so by TERM.
# How often a pack is begun again is decided in attempts.py.
SHIELD = """trap '' USR1 USR2; trap 'told=1' TERM
"$0" "$@"; code=$?
case "$told-$code" in -134|-135|-137|-139)
    scontrol requeue "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}";;
esac
exit $code"""
# Slurm looks at once whether a job that begins later fits any node; of one that is held, only when it is released.
LATER = "now+52weeks"
REPORT_MIN, REPORT_MEMORY = 20, "2048M"  # minutes and memory of the job that writes the report


def check_path(path: Path) -> None:
    """Raises: MixlabError: a path that a batch script cannot hold."""
    if any(letter in str(path) for letter in "%\\") or any(ord(letter) < 32 for letter in str(path)):
        raise MixlabError(
            f"store: {str(path)!r} cannot stand in a batch script, where Slurm reads '%' and '\\' as its own; "
            f"allowed: a path without '%', '\\' and control characters"
        )


class Batch:
    """One call of sbatch: jobs of the same needs, with one callable each."""

    def __init__(
        self, folder: Path, name: str, cluster: ClusterSpec, backend: str | None, snapshot: Path, nodes: int = 1
    ):
        """Args: backend: whose environment and resources; None: of the report, which needs one core and no GPU.
        nodes: of one job, with a task on each.
        """
        check_path(folder)
        environment = cluster.environment(backend or next(iter(cluster.environments), ""))
        shell = ["bash", "-c", SHIELD, python_of(environment)]
        self.executor = SlurmExecutor(folder, TIMEOUTS, python=shlex.join(shell))
        needs = _needs(cluster) if backend else {"time": REPORT_MIN, "mem": REPORT_MEMORY, "cpus_per_task": 1}
        self.extra: dict[str, Any] = {
            name: True if value.lower() == "true" else value for name, value in cluster.sbatch.items()
        }
        self.extra |= {"requeue": True, "signal": f"{cluster.signal}@{cluster.signal_delay_s}"}
        cpus = f"--cpus-per-task={needs['cpus_per_task']}"  # which srun no longer takes over from its job by itself
        self.executor.update_parameters(
            job_name=name,
            **needs,
            nodes=nodes,
            ntasks_per_node=1,
            **{key: getattr(cluster, key) for key in ("partition", "account", "qos", "constraint")},
            array_parallelism=cluster.array_parallelism,
            wckey=None,
            setup=[*environment.setup, *_exports(snapshot, cluster)],
            srun_args=[cpus, "--kill-on-bad-exit=1"],
        )

    def text(self, num_jobs: int) -> str:
        """The batch script, as it would be sent."""
        self._set_extra(hold=True)
        self.executor.parameters["map_count"] = num_jobs if num_jobs > 1 else None
        return str(self.executor._make_submission_file_text(self.executor._submitit_command_str, "uid"))

    def try_out(self) -> str:
        """What Slurm says of such a job, now."""
        self._set_extra(hold=False)
        self.executor.parameters["map_count"] = None
        script = self.executor._make_submission_file_text(self.executor._submitit_command_str, "uid")
        words = ["sbatch", "--test-only"]
        done = subprocess.run(words, input=str(script), capture_output=True, text=True, timeout=client.ANSWER_S)
        return (done.stderr.strip().splitlines() or ["nothing"])[-1].removeprefix("sbatch: ")

    def submit(self, jobs: Sequence[Callable[[], Any]], hold: bool, after: Sequence[str] = ()) -> str:
        """Hand the jobs to Slurm; returns its number of them.

        Args:    hold: whether they wait until they are released.    after: jobs that must have ended before.
        Raises:  SlurmError: sbatch refuses, in its words.    SlurmSilent.
        """
        self._set_extra(hold)
        if after:
            self.executor.update_parameters(dependency=f"afterany:{':'.join(after)}")
        self.executor.folder.mkdir(parents=True, exist_ok=True)
        self.executor.folder.chmod(self.executor.folder.stat().st_mode & 0o755)  # pickles are written by their owner
        with _refusals(), self.executor.batch():
            submitted = [self.executor.submit(job) for job in jobs]
        return str(submitted[0].job_id).partition("_")[0]

    def _set_extra(self, hold: bool) -> None:
        extra = {**self.extra, "begin": LATER} if hold else self.extra
        self.executor.update_parameters(additional_parameters=extra)


def python_of(environment: EnvironmentSpec) -> str:
    """The interpreter of an environment; the one that runs now, where none is named."""
    return environment.python or sys.executable


def _needs(cluster: ClusterSpec) -> dict[str, Any]:
    gpus = {"gpus_per_node": cluster.gpus} if cluster.gpus else {}
    times = {"time": cluster.time_min, "mem": f"{max(1, round(1024 * cluster.memory_gb))}M"}
    return {**times, "cpus_per_task": cluster.cpus, **gpus}


def _exports(snapshot: Path, cluster: ClusterSpec) -> list[str]:
    """The snapshot comes before anything that is installed, and the working directory not at all."""
    return [
        f"export PYTHONPATH={shlex.quote(str(snapshot))}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export PYTHONSAFEPATH=1",
        f"export SUBMITIT_PREEMPT_SIGNAL={cluster.signal}",
    ]


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Slurm's refusal as one sentence, in its own words."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it then raises
            yield
    except (FailedJobError, FailedSubmissionError) as error:
        said = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no word"]
        lines = [line for line in said if "error:" in line] or said[:1]
        text = lines[-1].partition("error: ")[2] or lines[-1]
        raise client.refusal("sbatch", str(error), text) from error
    except RuntimeError as error:  # submitit's word for a missing srun
        raise client.SlurmError(f"slurm: {error}; PATH is {os.environ.get('PATH')}") from error
