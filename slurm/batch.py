"""Batch scripts, by submitit: what a job asks for, which code it runs, and what it is called with."""

import contextlib
import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor

from backends.errors import MixlabError
from slurm import client, executor, options, software
from slurm.cluster import ClusterSpec
from slurm.needs import Needs
from slurm.software import PYXIS, EnvironmentSpec

# submitit counts time limits; here it is decided in work.py whether a job may go on.
TIMEOUTS = 10**6
# A signal that comes before submitit has its handlers would end Python, and with it the job; and where something else
# kills Python or it crashes, nobody else puts the job back into the queue; one that Slurm ends was told so by TERM.
# How often a pack is begun again is decided in attempts.py. A Python in a container, which has no scontrol, asks for
# the queue by its exit code; so does this shell itself, where pyxis puts it into the container too (code 127).
REQUEUE = 'scontrol requeue "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}"'
SHIELD = f"""trap '' USR1 USR2; trap 'told=1' TERM
"$0" "$@"; code=$?
case "$told-$code" in *-{client.GO_BACK}|-134|-135|-137|-139)
    {REQUEUE}
    [ $? -ne 127 ] || code={client.GO_BACK};;
esac
exit $code"""
AFTER_PYXIS = ("code=$?", f'[ "$code" -ne {client.GO_BACK} ] || {REQUEUE}', 'exit "$code"')
# Slurm looks at once whether a job that begins later fits any node; of one that is held, only when it is released.
LATER = "now+52weeks"
SMALL_MIN, SMALL_MEMORY_GB = 20, 2.0  # minutes and memory of a job that trains nothing
IN_CONTAINER = "python3"  # where no Python is named


def check_path(path: Path) -> None:
    """Check that a batch script can hold a path. Raises: MixlabError: it cannot."""
    if any(letter in str(path) for letter in "%\\") or any(ord(letter) < 32 for letter in str(path)):
        raise MixlabError(
            f"store: expected a path without '%', '\\' and control characters, which Slurm reads as its own in a "
            f"batch script, got {str(path)!r}"
        )


@dataclass(frozen=True)
class Ask:
    """The part of a call of sbatch that all of its jobs have in common."""

    cluster: ClusterSpec
    needs: Needs
    environment: EnvironmentSpec
    snapshot: Path
    seen: tuple[Path, ...] = ()  # folders that must be seen in a container, beside the snapshot and the working folder
    nodes: int = 1  # of one job
    tasks: int = 1  # on each of them

    @staticmethod
    def small(cluster: ClusterSpec, snapshot: Path, seen: tuple[Path, ...]) -> "Ask":
        """The Ask of a job that trains nothing: one core, no GPU, little memory, and the first environment."""
        memory = None if cluster.memory_gb is None else SMALL_MEMORY_GB
        needs = replace(cluster.common, time=SMALL_MIN, cpus=1, gpus=0, gpu_type=None, memory_gb=memory)
        cluster = replace(cluster, sbatch=options.for_report(cluster.sbatch))
        return Ask(cluster, needs, cluster.environment(next(iter(cluster.environments), "")), snapshot, seen)


class Batch:
    """A call of sbatch: jobs of the same needs, with one callable each."""

    def __init__(self, folder: Path, name: str, ask: Ask):
        check_path(folder)
        cluster, container = ask.cluster, ask.environment.container
        seen = (folder, ask.snapshot, *ask.seen, Path.cwd())
        pyxis = container is not None and container.runtime == PYXIS
        self.executor = SlurmExecutor(folder, TIMEOUTS, python=shlex.join(["bash", "-c", SHIELD, *_command(ask, seen)]))
        self.extra: dict[str, Any] = options.sent(cluster.sbatch)
        self.extra |= {"reservation": ask.needs.reservation} if ask.needs.reservation else {}
        self.extra |= {"requeue": True, "signal": f"{cluster.signal}@{cluster.signal_delay_s}"}
        cpus = (
            f"--cpus-per-task={ask.needs.cpus // ask.tasks}"  # which srun no longer takes over from its job by itself
        )
        inside = software.srun_options(container, seen, Path.cwd()) if container and pyxis else []
        self.executor.update_parameters(
            job_name=name,
            **_parameters(ask),
            nodes=ask.nodes,
            ntasks_per_node=ask.tasks,
            array_parallelism=cluster.array_parallelism,
            wckey=None,
            setup=[*ask.environment.setup, *_exports(ask), *(_folders(seen) if container else ())],
            # A rank that ends by itself ends no other one, whatever the site has set for --wait.
            srun_args=[cpus, "--kill-on-bad-exit=1", *(["--wait=0"] if ask.tasks * ask.nodes > 1 else []), *inside],
            teardown=list(AFTER_PYXIS) if pyxis else None,
        )

    def text(self, num_jobs: int) -> str:
        """The batch script, as it would be sent."""
        self._set_extra(hold=True)
        return executor.script(self.executor, num_jobs)

    def try_out(self) -> str:
        """The answer of `sbatch --test-only` on such a job, now."""
        self._set_extra(hold=False)
        script, words = executor.script(self.executor, 1), ["sbatch", "--test-only"]
        done = subprocess.run(words, input=script, capture_output=True, text=True, timeout=client.ANSWER_S)
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


def python_of(environment: EnvironmentSpec) -> list[str]:
    """The command of an environment's Python: its own; else the one that runs now, or python3 of its container."""
    return list(environment.python) or ([IN_CONTAINER] if environment.container else [sys.executable])


def _command(ask: Ask, seen: Sequence[Path]) -> list[str]:
    """The Python of a job, in its container."""
    python, container = python_of(ask.environment), ask.environment.container
    if container is None:
        return python
    inside = software.inside(python, ask.snapshot)
    if container.runtime == PYXIS:
        return inside
    return [*software.run_words(container, seen, Path.cwd(), ask.needs.gpus), *inside]


def _parameters(ask: Ask) -> dict[str, Any]:
    """The needs as submitit's parameters; what the cluster file's options of sbatch say is left out."""
    needs = ask.needs
    same = ("partition", "account", "qos", "constraint", "exclude", "nodelist", "time")
    parameters: dict[str, Any] = {name: getattr(needs, name) for name in same} | {
        "cpus_per_task": needs.cpus // ask.tasks
    }
    if needs.memory_gb is not None:
        parameters["mem"] = f"{max(1, round(1024 * needs.memory_gb))}M"
    if needs.gpus and not options.names_gpus(ask.cluster.sbatch):
        parameters["gpus_per_node"] = f"{needs.gpu_type}:{needs.gpus}" if needs.gpu_type else needs.gpus
    return parameters


def _exports(ask: Ask) -> list[str]:
    """Exports that put the snapshot before anything that is installed, and take the working directory off the path."""
    return [
        f"export PYTHONPATH={shlex.quote(str(ask.snapshot))}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export PYTHONSAFEPATH=1",
        f"export SUBMITIT_PREEMPT_SIGNAL={ask.cluster.signal}",
    ]


def _folders(seen: Sequence[Path]) -> list[str]:
    """The line that makes the folders to mount, since before the first job a cache is not there."""
    return [f"mkdir -p {shlex.join(sorted({str(path.absolute()) for path in seen}))}"]


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turn Slurm's refusal into one sentence, in its own words."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it then raises
            yield
    except executor.REFUSALS as error:
        printed = [line.strip() for line in str(error).splitlines() if line.strip()] or ["it gave no reason"]
        lines = [line for line in printed if "error:" in line] or printed[:1]
        text = lines[-1].partition("error: ")[2] or lines[-1]
        raise client.refusal("sbatch", str(error), text) from error
    except RuntimeError as error:  # submitit's word for a missing srun
        raise client.SlurmError(f"slurm: {error}; PATH is {os.environ.get('PATH')}") from error
