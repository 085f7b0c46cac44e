"""Environment of a result: the commit, the packages, the machine."""

import os
import platform
import socket
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = "analysis/results"  # committed results, which are no code
# What a result can depend on, as git names paths: its own code. A user's YAML, notebooks and results do not count.
CODE = (
    *(f":(glob){package}/**/*.py" for package in ("analysis", "backends", "experiments", "mixlab", "slurm")),
    "analysis/page/templates",
    "pyproject.toml",
    f":(exclude){RESULTS}",
)
PACKAGES = (
    "numpy",
    "scipy",
    "datasets",
    "pillow",
    "scikit-learn",
    "safetensors",
    "torch",
    "jax",
    "jaxlib",
    "flax",
    "optax",
)


@lru_cache(maxsize=1)
def environment() -> dict[str, Any]:
    """The commit, whether the code differs from it (None outside git), the packages, and the machine."""
    status = _git("status", "--porcelain", "--untracked-files=all", "--", *CODE)
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
        "snapshot": None,  # of the code, where a job runs one; see slurm/snapshot.py
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def slurm_job() -> dict[str, Any]:
    """The Slurm job of this process: `job` as in squeue, `restart` (number of requeues), `node`; elsewhere {}."""
    variable = os.environ.get
    if "SLURM_JOB_ID" not in os.environ:
        return {}
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{variable('SLURM_ARRAY_JOB_ID')}_{variable('SLURM_ARRAY_TASK_ID')}"
    return {"job": job, "restart": int(variable("SLURM_RESTART_COUNT", "0")), "node": variable("SLURMD_NODENAME", "")}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # not for commands that only read

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
