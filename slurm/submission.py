"""Submission of the trials of an ablation to Slurm: at once, and as often as one likes."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from backends.errors import MixlabError, counted
from experiments.design import archive
from experiments.files import write_json
from experiments.machine.environment import environment
from experiments.results import claims
from experiments.results.claims import Claim, ClaimLost
from experiments.results.store import Store
from slurm import client, following, ledger, packing, snapshot
from slurm.batch import Batch, check_path
from slurm.cluster_keys import tree_of
from slurm.job import PackJob
from slurm.limits import Limits, check_python
from slurm.missing import missing
from slurm.packing import Pack
from slurm.request import Request
from slurm.status import overview, queued
from slurm.work import write_work

LOCK = "submitting"  # a folder of the store that whoever submits has claimed
LOCK_WAIT_S, LOCK_POLL_S = 120.0, 0.2


class OthersSubmit(MixlabError):
    """The error that another process submits to the store, for long."""


@dataclass(frozen=True)
class Submitted:
    """The outcome of a request."""

    folder: Path | None  # of the submission; None where there was nothing to send
    jobs: tuple[str, ...]  # Slurm's numbers of the arrays
    num_packs: int
    num_trials: int
    num_done: int
    num_halted: int  # paused or pruned by halving
    num_live: int  # running or in the queue
    num_left: int  # for which there was no room in the queue


def submit(request: Request) -> Submitted:
    """Send every trial that is neither done nor on its way, and complete what an earlier submission has left undone.

    Raises: MixlabError: Slurm refuses or does not answer; a Python lacks its backend; the code is too large.
    """
    client.begin()
    check_path(request.store.root)
    for sentence in request.unmatched():
        request.warn(sentence)
    limits = Limits.read(request.cluster)
    request.store.check_writable()
    with _lock(request.store, request.warn):
        recover(request.store, request.warn)
        found = missing(request)
        packs = request.packs(found.todo)
        arrays = packing.arrays(packs[: limits.room], limits.array)
        left = sum(len(pack.trials) for pack in packs[limits.room :])
        if not arrays:
            _keep(request)
            _go_on(request)
            return Submitted(None, (), 0, 0, found.num_done, found.num_halted, found.num_live, left)
        for backend in dict.fromkeys(pack.backend for pack in packs):
            check_python(backend, request.cluster)
        code = _code(request)
        folder = ledger.new_submission(request.store, request.ablation.name)
        jobs = _send(request, folder, arrays, code)
    sent = sum(len(pack.trials) for array in arrays for pack in array)
    counts = (sum(map(len, arrays)), sent, found.num_done, found.num_halted, found.num_live, left)
    return Submitted(folder, jobs, *counts)


def _keep(request: Request) -> bool:
    """Keep the ablation under its name; returns what archive.keep returns. Raises: StoreError."""
    if request.keeps_newer and not archive.is_kept(request.store, request.ablation):
        return False
    return archive.keep(request.store, request.ablation, request.trials)


def _go_on(request: Request) -> None:
    """See to it that a job sends the trials of the table that wait for trials which are on their way.

    Raises: SlurmSilent.   SlurmError.
    """
    if not request.num_waiting or following.next_jobs(request.store, request.ablation.name):
        return
    tuning = [planned.trial.id for planned in request.trials if planned.tunes]
    if overview(request.store, tuning, request.halts).live:
        folder = ledger.new_submission(request.store, request.ablation.name)
        _prepare(request, folder, [], _code(request))
        following.follow(folder, request.warn)


def _code(request: Request) -> Path:
    """The snapshot that jobs are to run."""
    return request.code or snapshot.take(request.store.root.absolute() / "snapshots", request.cluster.snapshot_limit_mb)


def recover(store: Store, warn: Callable[[str], None]) -> None:
    """Bring what this user's killed submissions have left to one of two ends: it never began, or it is released.

    Raises: SlurmSilent.
    """
    arrays = [array for array in ledger.all_arrays(store) if array.uid == os.getuid()]
    jobs = list(queued(arrays).values())
    names = {job.name for job in jobs}
    for array in arrays:
        if array.state == "intended" or (array.state == "void" and array.name in names):
            array.become(state="void")
            client.cancel(f"--name={array.name}")
        elif array.state in ("held", "released") and array.name not in names:
            array.become(state="ended")
        elif array.state == "ended" and array.name in names:
            array.become(state="released")
    for folder in dict.fromkeys(array.folder for array in arrays if array.state in ledger.OPEN):
        release(folder, warn)


def _send(request: Request, folder: Path, packed: list[list[Pack]], code: Path) -> tuple[str, ...]:
    """Write what the jobs need, hand them to Slurm held, and release them when everything is in its place."""
    # Held: where this process dies in between, no job runs whose submission nobody completes.
    planned = _prepare(request, folder, packed, code)
    try:
        for array, packs in zip(planned, packed, strict=True):
            batch = Batch(folder / "slurm", array.name, request.ask(packs[0], code))
            files = [str(array.pack_file(index).absolute()) for index in range(len(array.packs))]
            after = _jobs_before(request.store, packs)
            job = batch.submit([PackJob(file) for file in files], hold=True, after=after)
            array.become(job=job, state="held")
    except MixlabError:
        for array in ledger.arrays(folder):  # all or nothing: a grid half of which is refused is not what was asked
            with contextlib.suppress(MixlabError):
                client.cancel(f"--name={array.name}")
            array.become(state="void")
        raise
    if _keep(request):
        name = request.ablation.name
        request.warn(f"{name} had other trials here before: status, report and retry of {name} go by this form now")
    return release(folder, request.warn)


def _jobs_before(store: Store, packs: list[Pack]) -> list[str]:
    """Numbers of the jobs, of any submission, that train what these packs begin from. Raises: SlurmSilent."""
    starts = {one.trial.start_id for pack in packs for one in pack.trials}
    left = [start for start in starts if start is not None and store.recorded_status(start) != "done"]
    return following.jobs_of(store, left) if left else []


def _prepare(request: Request, folder: Path, packed: list[list[Pack]], code: Path) -> list[ledger.Array]:
    """Write what the jobs of a submission, and those who look for them, need; returns its arrays, as intended."""
    ledger.make_private(folder)
    write_json(folder / "cluster.json", tree_of(request.cluster))
    archive.write(folder / archive.FILE, request.ablation, request.trials)
    about = {
        "store": str(request.store.root.absolute()),
        "cache": str(request.cache.absolute()),
        "snapshot": str(code),
        "commit": request.commit or {name: environment()[name] for name in ("commit", "dirty")},
    }
    following.prepare(folder, about, request.num_waiting)
    planned = []
    for number, packs in enumerate(packed):
        ids = tuple(tuple(one.trial.id for one in pack.trials) for pack in packs)
        name = ledger.array_name(folder, number)
        until = {one.trial.id: one.until for pack in packs for one in pack.trials if one.until is not None}
        array = ledger.Array(folder, number, name, "intended", None, packs[0].backend, ids, until=until)
        for index, pack in enumerate(packs):
            specs = tuple(map(archive.to_tree, pack.trials))
            write_work(array, index, specs, {**about, "needs": asdict(pack.needs)})
        planned.append(array.become())
    return planned


def release(folder: Path, warn: Callable[[str], None]) -> tuple[str, ...]:
    """Let the held arrays of a submission go, and send the jobs that follow them; returns the arrays' numbers.

    Raises: SlurmSilent.
    """
    held = [array for array in ledger.arrays(folder) if array.state == "held"]
    for array in held:
        waiting = [job.id for job in queued([array]).values() if job.state == "PENDING"]
        try:
            client.release(str(array.job))
        except client.SlurmError:  # some of its tasks have begun: it was released before, by one that was then killed
            for task in waiting:
                with contextlib.suppress(client.SlurmError):
                    client.release(task)
        array.become(state="released")
    following.follow(folder, warn)
    return tuple(str(array.job) for array in held)


@contextlib.contextmanager
def _lock(store: Store, warn: Callable[[str], None]) -> Iterator[None]:
    """Let only one process at a time send trials of a store, so that none is sent twice.

    Raises: OthersSubmit: another one does, for long.
    """
    until, told = time.monotonic() + LOCK_WAIT_S, False
    while True:
        try:
            claim = Claim(store.root / LOCK)
            break
        except ClaimLost as error:
            owner = claims.owner(store.root / LOCK) or {}
            who = f"process {owner.get('pid')} on {owner.get('host')} is submitting to {store.root}"
            if time.monotonic() > until:
                raise OthersSubmit(
                    f"store: {who} for more than {LOCK_WAIT_S:g} s; try again when it has ended"
                ) from error
            if not told:
                warn(f"{who}; waiting")
            told = True
            time.sleep(LOCK_POLL_S)
    try:
        with claim.kept():
            yield
    finally:
        claim.release()


def preview(request: Request) -> Iterator[str]:
    """The packs that would be sent, and the batch script of each array. Raises: as `submit`; of a Python at the end."""
    client.begin()
    check_path(request.store.root)
    limits = Limits.read(request.cluster)
    found = missing(request)
    halted = f", {found.num_halted} paused or pruned" if found.num_halted else ""
    what = f"{found.num_done} done{halted}, {found.num_live} on their way, {len(found.todo)} to send"
    yield f"{counted(len(request.trials), 'trial')}: {what}"
    if request.num_waiting:
        yield f"{request.num_waiting} more wait for the choice of what is tuned; a job sends them then"
    yield from request.unmatched()
    folder = ledger.new_submission(request.store, request.ablation.name)
    packs = request.packs(found.todo)
    for number, array in enumerate(packing.arrays(packs[: limits.room], limits.array)):
        name = ledger.array_name(folder, number)
        yield f"\narray {number}: {len(array)} jobs on {array[0].backend}"
        for index, pack in enumerate(array):
            yield f"  {index}: " + ", ".join(f"{one.trial.id} ({one.label})" for one in pack.trials)
        place = request.store.root.absolute() / "snapshots" / snapshot.name_now()
        batch = Batch((folder / "slurm").absolute(), name, request.ask(array[0], place))
        yield f"  Slurm says: {batch.try_out()}"
        yield "\n" + batch.text(len(array)).strip()
        yield "\n(--begin: at once when Slurm has all jobs; never, if the submission is killed before that)"
    for backend in dict.fromkeys(pack.backend for pack in packs):
        check_python(backend, request.cluster)
