"""A check that a cluster does what its file says: limits, accounts, Pythons, and a job that looks around on a node."""

import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import backends
from backends.errors import MixlabError, choices, show_chain
from experiments.files import replace, write_json
from experiments.results.store import Store
from slurm import client, ledger, snapshot
from slurm.batch import Ask, Batch, check_path, python_of
from slurm.cluster import ClusterSpec
from slurm.job import Job
from slurm.limits import check_python
from slurm.needs import Needs
from slurm.ranks import Rank
from slurm.request import seen
from slurm.time_limit import limit_minutes

POLL_S = 0.5


@dataclass(frozen=True)
class Finding:
    """A thing that was checked, and what was found."""

    ok: bool
    what: str
    said: str


class ProbeJob(Job):
    """A job that reports from its node where it is and what it sees, and whether several ranks see each other."""

    def __call__(self) -> None:
        path = Path(self.path)
        probe, rank = json.loads(path.read_text()), Rank.of_this_job()
        answer = {"node": rank.node, "python": sys.executable, "rank": rank.index, "size": rank.size}
        try:
            snapshot.check(Path(probe["snapshot"]))
            backends.load(probe["backend"])
            if rank.size > 1:
                answer["sum"] = backends.add_over_ranks(
                    probe["backend"], rank.index + 1, rank.index, rank.size, rank.address
                )
        except Exception as error:  # whatever it is, it is what the user wants to know
            show_chain(error)
            answer["error"] = f"{type(error).__name__}: {error}"
        replace(path.with_name(f"answer-{rank.index}.json"), json.dumps(answer).encode())


def check(cluster: ClusterSpec, store: Store, nodes: int, wait_s: float) -> Iterator[Finding]:
    """Check a cluster, and yield each finding as it is made. Nothing is left in the queue.

    Args:    nodes: of the probe's job.    wait_s: for the probe to begin and end.
    """
    client.begin()
    check_path(store.root)
    config = client.config()
    yield Finding(
        True, "slurm", f"version {config.get('SLURM_VERSION', 'unknown')}, cluster {config.get('ClusterName')}"
    )
    size = config.get("MaxArraySize", "unknown")
    yield Finding(
        size.isdigit() and int(size) > 1, "arrays", f"MaxArraySize {size}, MaxJobCount {config.get('MaxJobCount')}"
    )
    names = tuple(cluster.environments or backends.names())
    needs = list(cluster.all_needs(names))
    for partition in dict.fromkeys(one.partition for one in needs):
        yield _partition(partition, max(one.time for one in needs if one.partition == partition))
    yield _accounts(config)
    yield from _names(needs)
    signs = "preempt_send_user_signal" in f"{config.get('SlurmctldParameters')}{config.get('PreemptParameters')}"
    kind = config.get("PreemptType", "none")
    effect = f"{kind}; {'jobs are warned' if signs else 'jobs are not warned: they resume from their last checkpoint'}"
    yield Finding(True, "preemption", effect)
    for backend in names:
        try:
            check_python(backend, cluster)
            yield Finding(True, f"python of {backend}", said_of_python(cluster, backend))
        except MixlabError as error:
            show_chain(error)
            yield Finding(False, f"python of {backend}", str(error))
            continue
        yield from _probe(cluster, store, backend, nodes, wait_s)


def said_of_python(cluster: ClusterSpec, backend: str) -> str:
    """The command of a backend's Python, and its container."""
    environment = cluster.environment(backend)
    inside = f" in {environment.container.image}, which a job alone can look at" if environment.container else ""
    return shlex.join(python_of(environment)) + inside


def _partition(asked: str | None, minutes: int) -> Finding:
    """Check a partition's state and time limit. Args: minutes: of the longest job there."""
    named = ["-p", asked] if asked else []
    lines = client.call("sinfo", "-h", *named, "-o", "%R|%l|%D|%c|%m|%G|%a").splitlines()
    if not lines:
        there = sorted(set(client.call("sinfo", "-h", "-o", "%R").split()))
        return Finding(False, "partition", f"Slurm has no partition {asked!r}; {choices(asked, there)}")
    name, limit, nodes, cpus, memory, gres, state = lines[0].split("|")
    about = f"{name} {state}: {nodes} nodes of {cpus} CPUs, {memory} MiB, {gres}; time limit {limit}"
    most = limit_minutes(limit)
    fits = most is None or minutes <= most
    return Finding(
        fits and state == "up",
        "partition",
        about + ("" if fits else f", less than the {minutes} minutes of the cluster file"),
    )


def _names(needs: Sequence[Needs]) -> Iterator[Finding]:
    """Check that Slurm's accounts have each account and QOS."""
    for kind in ("account", "qos"):
        for asked in dict.fromkeys(getattr(one, kind) for one in needs):
            yield _name(kind, asked)


def _name(kind: str, asked: str | None) -> Finding:
    try:
        column = "format=Name" if kind == "qos" else "format=Account"
        there = sorted(set(client.call("sacctmgr", "-nP", "show", kind, column).split()))
    except MixlabError as error:
        return Finding(True, kind, f"{asked or 'the default'}; {error}")
    if asked is not None and asked not in there:
        return Finding(False, kind, f"Slurm has no {kind} {asked!r}; {choices(asked, there)}")
    most = client.qos_submit_limit(asked) if kind == "qos" else None
    return Finding(True, kind, (asked or "the default") + (f": at most {most} jobs in the queue" if most else ""))


def _accounts(config: dict[str, str]) -> Finding:
    kind = config.get("AccountingStorageType", "none")
    try:
        if kind.endswith("none") or kind == "(null)":
            raise client.SlurmError("Slurm keeps none")
        client.call("sacct", "-n", "-X", "-S", "now")
        return Finding(True, "accounting", f"{kind}: sacct answers")
    except MixlabError as error:
        return Finding(True, "accounting", f"{error}; without it, why a job was lost may not be known")


def _probe(cluster: ClusterSpec, store: Store, backend: str, nodes: int, wait_s: float) -> Iterator[Finding]:
    folder = ledger.new_submission(store, ".probe")
    what = f"job on {nodes} node{'s' if nodes > 1 else ''}, {backend}"
    code = snapshot.take(store.root.absolute() / "snapshots", cluster.snapshot_limit_mb)
    write_json(folder / "probe.json", {"backend": backend, "snapshot": str(code)})
    name = f"mixlab-probe-{folder.name}"
    try:
        environment = cluster.environment(backend)
        ask = Ask(cluster, cluster.needs(backend), environment, code, seen(cluster, store.root), nodes)
        batch = Batch((folder / "slurm").absolute(), name, ask)
        batch.submit([ProbeJob(str((folder / "probe.json").absolute()))], hold=False)
    except MixlabError as error:
        show_chain(error)
        yield Finding(False, what, str(error))
        return
    yield _answer(folder, name, what, nodes, wait_s)
    client.cancel(f"--name={name}")


def _answer(folder: Path, name: str, what: str, nodes: int, wait_s: float) -> Finding:
    until, left = time.monotonic() + wait_s, True
    while time.monotonic() < until and left:
        left = bool(client.queue([name]))
        answers = [read for path in folder.glob("answer-*.json") if (read := ledger.read(path))]
        if errors := [answer for answer in answers if "error" in answer]:
            return Finding(False, what, f"on {errors[0]['node']}: {errors[0]['error']}")
        if len(answers) == nodes:
            expected = nodes * (nodes + 1) / 2
            wrong = [answer for answer in answers if nodes > 1 and answer["sum"] != expected]
            seen = ", ".join(sorted(answer["node"] for answer in answers))
            ranks = f"; {nodes} ranks see each other" if nodes > 1 and not wrong else ""
            return Finding(not wrong, what, f"{seen} sees the store, and runs {answers[0]['python']}{ranks}")
        time.sleep(POLL_S)
    if left:
        waiting = "; ".join(sorted({job.reason for job in client.queue([name])}))
        return Finding(False, what, f"it did not end in {wait_s:g} s (it waits for: {waiting}) and was cancelled")
    logs = "\n".join(path.read_text(errors="replace") for path in (folder / "slurm").glob("*.err"))
    last = (logs.strip().splitlines() or ["none, since the nodes do not see the store"])[-1]
    return Finding(False, what, f"it ended without an answer; its last line: {last}")
