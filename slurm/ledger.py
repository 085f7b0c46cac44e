"""The store's notes on our own jobs: Slurm forgets, reuses ids, and drops cancelled tasks without a trace.

    ablations/<name>/jobs/<submission>/
        cluster.json         the cluster file as it was read
        array-0.json         an array of packs: its name in Slurm, its state, the trials of each pack
        packs/0-00000.json   what one job needs to know
        attempts/            what each job says of its starts, see attempts.py
        resolved.json        the ablation and its trials, see experiments/design/archive.py
        report.json          what the job that writes the report needs to know
        next.json            what the job needs to know that sends trials which this one's results decide
        cancelled/           trial ids: none of them is begun any more
        stopped-0.json       an array that its own first failure has stopped, and why
        slurm/               of submitit: batch scripts, pickles of a path each, logs

The states of an array, who makes them, and what a kill right after leaves to the next submission (recover):

    intended   before sbatch is asked     it is cancelled by its name, if Slurm has it: void
    held       sbatch has answered, and all files are there; it is to begin in a year: released (again)
    released   Slurm was told to begin    nothing; ended once Slurm no longer has it
"""

import calendar
import contextlib
import json
import math
import os
import re
import secrets
import stat
import time
from collections.abc import Container, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from backends.errors import MixlabError
from experiments import clock
from experiments.design import archive, tune
from experiments.design.ablation import Ablation, GridTrial
from experiments.design.stages import is_halted
from experiments.files import store_errors, write_json, write_whole
from experiments.results.store import Store
from slurm.cluster import ClusterSpec
from slurm.cluster_file import stored_cluster

OPEN = ("intended", "held", "released")
LATE_S = 3600.0  # how long Slurm is asked for an array that is not open
CLUSTER = "cluster.json"
STAMP = 15  # letters of a submission's name that tell when it was made


@dataclass(frozen=True)
class Array:
    """An array of jobs, which one call of sbatch has sent."""

    folder: Path  # of its submission
    number: int  # within the submission
    name: str  # in Slurm, and no other job's ever
    state: str  # intended, held, released; ended: Slurm no longer has it; void: it never began
    job: str | None  # Slurm's number of it
    backend: str
    packs: tuple[tuple[str, ...], ...]  # the ids of the trials of each
    uid: int = field(default_factory=os.getuid)  # of who has submitted it, who alone may release or cancel it
    until: Mapping[str, int] = field(default_factory=dict, hash=False)  # id -> step to which it was sent; none: the end

    @property
    def submitted(self) -> float:
        """The time of submission by the file server's clock: its first file is written before anything is sent."""
        try:
            return (self.folder / CLUSTER).stat().st_mtime
        except FileNotFoundError:
            return float(calendar.timegm(time.strptime(self.folder.name[:STAMP], "%Y%m%d-%H%M%S")))

    @property
    def is_asked(self) -> bool:
        """Tell whether Slurm is asked about the array.

        One that has ended, or never began, is asked for a while longer: sbatch may arrive after its caller has died,
        and one empty answer may be wrong.
        """
        if self.state in OPEN:
            return True
        path = self.folder / f"array-{self.number}.json"
        return clock.now(self.folder.parents[2]) - path.stat().st_mtime < LATE_S

    def task(self, index: int) -> str | None:
        """A pack's job as squeue writes it; an array of one pack is a job without index."""
        return self.job if len(self.packs) == 1 or self.job is None else f"{self.job}_{index}"

    def pack_file(self, index: int) -> Path:
        return self.folder / "packs" / f"{self.number}-{index:05d}.json"

    def log_files(self, index: int) -> list[Path]:
        """Standard output and standard error of a pack's job: of its first task, then of others that have any."""
        task = self.task(index)
        if task is None:
            return []
        files: list[Path] = []
        for rank in count():
            own = [self.folder / "slurm" / f"{task}_{rank}_log.{kind}" for kind in ("out", "err")]
            if rank and not own[0].exists():
                break
            files += own
        return files

    @property
    def stop_file(self) -> Path:
        return self.folder / f"stopped-{self.number}.json"

    def stopped(self) -> dict[str, Any] | None:
        """The cause and the reason for which one of its jobs has stopped all of it; None: none has."""
        return read(self.stop_file)

    def become(self, **changes: Any) -> "Array":
        """The array with changes, on disk first."""
        changed = replace(self, **changes)
        fields = {key: value for key, value in asdict(changed).items() if key not in ("folder", "number")}
        if not changed.until:
            del fields["until"]  # jobs of a code of before there was such a key read the arrays that have none
        write_json(self.folder / f"array-{self.number}.json", fields)
        return changed


@dataclass(frozen=True)
class Place:
    """The array and the pack in which a trial was last submitted."""

    array: Array
    pack: int

    @property
    def task(self) -> str | None:
        return self.array.task(self.pack)

    def sends_to(self, trial_id: str) -> float:
        """The step to which a trial was sent."""
        return float(self.array.until.get(trial_id, math.inf))


def new_submission(store: Store, ablation: str) -> Path:
    """The folder of a new submission; later ones sort after earlier ones."""
    name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
    return store.root / "ablations" / ablation / "jobs" / name


def make_private(folder: Path) -> None:
    """Make the folder of a submission: others may read it, and neither write to it nor put another in its place."""
    with store_errors(folder):
        folder.mkdir(parents=True)
        folder.chmod(0o750)
        with contextlib.suppress(PermissionError):  # its owner has done so
            folder.parent.chmod(folder.parent.stat().st_mode | stat.S_ISVTX)


def trials(store: Store, ablation: str) -> dict[str, GridTrial]:
    """Trials that were submitted under an ablation's name, in whatever form it then had, by id."""
    by_id: dict[str, GridTrial] = {}
    for folder in submissions(store, ablation):
        sent = {key for array in arrays(folder) for pack in array.packs for key in pack} - set(by_id)
        if sent:
            known = _as_halved(*archive.read(folder / archive.FILE), store)
            by_id |= {one.trial.id: one for one in known if one.trial.id in sent}
    return by_id


def _as_halved(ablation: Ablation, trials: list[GridTrial], store: Store) -> list[GridTrial]:
    """The trials of a submission, with how far they are trained for now where tuning is by halving."""
    if ablation.tune is None or ablation.tune.halving is None:
        return trials
    staged = {one.trial.id: one for one in tune.known(ablation, trials, store) if one.tunes}
    return [staged.get(one.trial.id, one) for one in trials]


def earlier(store: Store, ablation: str, current: Container[str]) -> list[GridTrial]:
    """Trials of an ablation's earlier forms that were submitted, and neither done nor halted as that form has it.

    Args: current: ids of today's.
    """
    for folder in submissions(store, ablation):
        if any(key not in current for array in arrays(folder) for pack in array.packs for key in pack):
            others = (one for key, one in trials(store, ablation).items() if key not in current)
            left = [one for one in others if store.recorded_status(one.trial.id) != "done"]
            return [one for one in left if not is_halted(one, store)]
    return []


def array_name(folder: Path, number: int) -> str:
    """The name in Slurm of an array of a submission."""
    return f"mixlab-{folder.parent.parent.name}-{folder.name}-{number}"


def report_name(folder: Path) -> str:
    """The name in Slurm of the job that writes a submission's report."""
    return f"mixlab-{folder.parent.parent.name}-{folder.name}-report"


def next_name(folder: Path) -> str:
    """The name in Slurm of the job that goes on when a submission's trials have ended; see following.py."""
    return f"mixlab-{folder.parent.parent.name}-{folder.name}-next"


def submissions(store: Store, ablation: str | None = None) -> list[Path]:
    """Folders of submissions, oldest first; of one ablation, or of all."""
    return sorted(store.root.glob(f"ablations/{ablation or '*'}/jobs/*-*"), key=lambda folder: folder.name)


def arrays(folder: Path) -> list[Array]:
    """The arrays of a submission; a file that is being replaced counts as what it was."""
    parts = []
    for path in folder.glob("array-*.json"):
        number = int(re.sub(r"\D", "", path.stem))
        if fields := read(path):
            packs = tuple(tuple(pack) for pack in fields.pop("packs"))
            parts.append(Array(folder, number, packs=packs, **fields))
    return sorted(parts, key=lambda array: array.number)


def all_arrays(store: Store, ablation: str | None = None) -> Iterator[Array]:
    """The arrays of all submissions, oldest first; of one ablation, or of all."""
    for folder in submissions(store, ablation):
        yield from arrays(folder)


def places(sent: list[Array]) -> dict[str, Place]:
    """The place where each trial was last submitted, by id."""
    return {
        trial_id: Place(array, index)
        for array in sent
        if array.state != "void"
        for index, pack in enumerate(array.packs)
        for trial_id in pack
    }


def last_cluster(store: Store, ablation: str) -> ClusterSpec:
    """The cluster file of the last submission of an ablation.

    Raises: MixlabError: it was never submitted.
    """
    for folder in reversed(submissions(store, ablation)):
        if tree := read(folder / CLUSTER):
            return stored_cluster(tree, str(folder / CLUSTER))
    raise MixlabError(f"store: {ablation!r} was never submitted with {store.root}; name a cluster file with --cluster")


def cancel(folder: Path, trial_id: str) -> None:
    """Note that a trial is cancelled: no job begins it any more, whatever Slurm does."""
    write_whole(folder / "cancelled" / trial_id, b"")


def is_cancelled(folder: Path, trial_id: str) -> bool:
    return (folder / "cancelled" / trial_id).exists()


def read(path: Path) -> dict[str, Any] | None:
    """A JSON mapping; None if there is none that can be read."""
    try:
        tree = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return tree if isinstance(tree, dict) else None
