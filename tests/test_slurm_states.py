"""What is said of a trial that was sent to Slurm, and what the next submission does with it: one table."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from backends.errors import MixlabError
from experiments.design.ablation import GridTrial, load_ablation
from experiments.files import write_json
from experiments.results.claims import Claim
from experiments.results.store import Store
from slurm import client, ledger, status, submission
from slurm.cluster import ClusterSpec
from slurm.cluster_keys import tree_of
from slurm.missing import missing
from tests.conftest import base, planned, write_yaml
from tests.store_parts import failed, make_older, record

SILENT = "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"
NOT_COMPLETED = "its submission was not completed"


@dataclasses.dataclass(frozen=True)
class Sent:
    """A store with two trials, of which the first was sent as an array of two packs, and the fake Slurm's words."""

    store: Store
    path: Path
    trials: list[GridTrial]
    fake: Any
    tools: Path

    @property
    def key(self) -> str:
        return self.trials[0].trial.id

    def array(self, array_state: str, job: str | None = "7", ablation: str = "a", stamp: str = "") -> ledger.Array:
        folder = ledger.new_submission(self.store, ablation)
        folder = folder.with_name(f"{stamp}{folder.name[len(stamp) :]}")
        write_json(folder / "cluster.json", {**tree_of(ClusterSpec()), "report": False})
        packs = ((self.key,), ("another",))
        return ledger.Array(folder, 0, f"mixlab-{folder.name}-0", array_state, job, "quick", packs).become()

    def queue(self, *lines: str) -> None:
        self.fake(squeue="\n".join(["true", *(f"echo '{line}'" for line in lines)]))

    def submit_again(self) -> str:
        """What a submission does with the first trial: it is sent, or left alone, or nothing is known and all stops."""
        ablation = load_ablation(self.path)
        request = submission.Request(ablation, self.trials, ClusterSpec(), self.store, self.path.parent / "data")
        try:
            submission.recover(self.store, lambda sentence: None)
            todo = missing(request).todo
        except client.SlurmSilent:
            return "stops"
        return "sent" if self.key in [one.trial.id for one in todo] else "left"

    def status(self) -> tuple[str, str]:
        now = status.overview(self.store, [self.key]).states[self.key]
        return now.status, now.why

    def cancelled(self) -> str:
        path = self.tools / "cancelled"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def sent(tmp_path: Path, quick: Path, fake: Any) -> Sent:
    path = write_yaml(tmp_path / "a.yaml", base=base(backend="quick"))
    trials = planned(path, tmp_path / "data")
    fake(squeue="true", sacct="true", scontrol="true", scancel=f'echo "$@" >> {tmp_path}/tools/cancelled')
    return Sent(Store(tmp_path / "runs"), path, trials, fake, tmp_path / "tools")


# array's state, its job in the queue | status, beginning of why | what a submission does, the array's state after it
TABLE = [
    ("intended", None, "missing", NOT_COMPLETED, "sent", "void"),
    ("intended", "PENDING", "queued", f"held: {NOT_COMPLETED}", "sent", "void"),
    ("intended", "silence", "unknown", "submitted; Slurm does not answer", "stops", "intended"),
    ("held", None, "lost", "its job ended without a result", "sent", "ended"),
    ("held", "PENDING", "queued", f"held: {NOT_COMPLETED}", "left", "released"),
    ("held", "RUNNING", "queued", "waits for the trials before it", "left", "released"),
    ("held", "silence", "unknown", "submitted; Slurm does not answer", "stops", "held"),
    ("released", None, "lost", "its job ended without a result", "sent", "ended"),
    ("released", "PENDING", "queued", "Priority", "left", "released"),
    ("released", "RUNNING", "queued", "waits for the trials before it", "left", "released"),
    ("released", "COMPLETING", "queued", "waits for the trials before it", "left", "released"),
    ("released", "silence", "unknown", "submitted; Slurm does not answer", "stops", "released"),
    ("released", "noise", "unknown", "submitted; Slurm does not answer", "error", "released"),
    ("ended", None, "lost", "its job ended without a result", "sent", "ended"),
    ("ended", "RUNNING", "queued", "waits for the trials before it", "left", "released"),
    ("ended", "silence", "unknown", "submitted; Slurm does not answer", "stops", "ended"),
    ("void", None, "missing", "", "sent", "void"),
    ("void", "PENDING", "missing", "", "sent", "void"),
    ("void", "silence", "missing", "", "stops", "void"),
]


@pytest.mark.parametrize(("array_state", "queue", "expected", "why", "action", "after"), TABLE)
def test_state_of_a_trial_and_what_a_submission_does(
    sent: Sent, array_state: str, queue: str | None, expected: str, why: str, action: str, after: str
) -> None:
    array = sent.array(array_state, None if array_state in ("intended", "void") else "7")
    job = (
        "7_0" if array.job or queue is None else "9_0"
    )  # sbatch took it, and its caller died before it could note that
    array = array.become(job="9") if job == "9_0" and array_state == "intended" else array
    if queue == "silence":
        sent.fake(squeue=SILENT)
    elif queue == "noise":
        sent.queue("squeue: nodes are being reconfigured")
    elif queue:
        sent.queue(f"{job}|{array.name}|{queue}|{'Priority' if queue == 'PENDING' else 'None'}|n1|9:00")
    now = sent.status()
    assert now[0] == expected and now[1].startswith(why) and bool(now[1]) == bool(why)
    if action == "error":
        with pytest.raises(MixlabError, match=r"squeue: expected .*, got 'squeue: nodes are"):
            sent.submit_again()
    else:
        assert sent.submit_again() == action
    assert [one.state for one in ledger.arrays(array.folder)] == [after]
    is_called_off = after == "void" and (array_state == "intended" or queue == "PENDING")
    assert (f"--name={array.name}" in sent.cancelled()) == is_called_off


@pytest.mark.parametrize("queue", [None, "RUNNING"])
@pytest.mark.parametrize(
    ("own", "expected", "action"),
    [
        ("done", "done", "left"),
        ("failed after", "failed", "sent"),  # its job has left it, whatever becomes of the others of the pack
        ("running", "running", "left"),
        ("cancelled", "cancelled", "sent"),
    ],
)
def test_the_stores_word_comes_before_the_queues(
    sent: Sent, own: str, expected: str, action: str, queue: str | None
) -> None:
    array = sent.array("released")
    if own == "done":
        sent.store.finish(sent.key, {**record(), "id": sent.key})
    if own == "failed after":
        make_older(array.folder / "cluster.json", 100.0)
        sent.store.finish(sent.key, {**failed(), "id": sent.key})
    if own == "running":
        Claim(sent.store.folder(sent.key))
    if own == "cancelled":
        ledger.cancel(array.folder, sent.key)
    sent.queue(*([f"7_0|{array.name}|{queue}|None|n1|9:00"] if queue else []))
    assert sent.status()[0] == expected
    assert sent.submit_again() == action


def test_a_failure_of_before_the_submission_is_told_of_what_waits(sent: Sent) -> None:
    sent.store.finish(sent.key, {**failed("boom"), "id": sent.key})
    make_older(sent.store.folder(sent.key) / "record.json", 100.0)
    array = sent.array("released")
    sent.queue(f"7_0|{array.name}|PENDING|Priority||9:00")
    assert sent.status() == ("queued", "Priority; failed before: boom")
    assert sent.submit_again() == "left"


def test_a_job_of_long_ago_is_lost_while_slurm_is_silent_on_others(sent: Sent) -> None:
    """Nobody would ask Slurm for it, so its silence says nothing of it."""
    array = sent.array("ended", stamp="20200101")
    make_older(array.folder / "array-0.json", ledger.LATE_S + 100)
    folder = sent.array("released").folder
    write_json(folder / "array-0.json", {**ledger.read(folder / "array-0.json"), "packs": [["another"]]})  # type: ignore[dict-item]
    sent.fake(squeue=SILENT)
    known = status.overview(sent.store, [sent.key, "another"])
    assert known.silence
    assert (known.states[sent.key].status, known.states["another"].status) == ("lost", "unknown")


@pytest.mark.parametrize("names", [("a", "z"), ("z", "a")])
def test_a_trial_is_where_it_was_last_submitted_under_whatever_name(sent: Sent, names: tuple[str, str]) -> None:
    """Submissions sort by their hour, not by their ablation."""
    sent.array("released", "7", names[0], stamp="20200101-000000")
    later = sent.array("released", "8", names[1], stamp="20210101-000000")
    sent.queue(f"8_0|{later.name}|PENDING|Priority||9:00")
    place = ledger.places(list(ledger.all_arrays(sent.store)))[sent.key]
    assert place.array.job == "8" and sent.status()[0] == "queued"


@pytest.mark.parametrize(
    ("packs", "job", "tasks"),
    [
        ((("a",),), "7", ["7"]),
        ((("a",), ("b",)), "7", ["7_0", "7_1"]),
        ((("a",),), None, [None]),
        ((("a",), ("b",)), None, [None, None]),
    ],
)
def test_an_array_of_one_pack_is_a_job_without_index(
    sent: Sent, packs: tuple[tuple[str, ...], ...], job: str | None, tasks: list[str | None]
) -> None:
    array = dataclasses.replace(sent.array("released"), packs=packs, job=job)
    assert [array.task(index) for index in range(len(packs))] == tasks


# --- what Slurm prints --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "squeue: warning",
        "7_0|mixlab-a|RUNNING|None|n1",
        "7_0|mixlab-a",
        "7_[0-3]|mixlab-a|PENDING|None||9:00",
        "|mixlab-a|PENDING|None||9:00",
        "7_0|mixlab-a||None||9:00",
        "JOBID|NAME|STATE|REASON|NODELIST|TIME_LEFT",
    ],
)
def test_a_line_of_squeue_that_cannot_be_read_is_an_error_and_nothing_is_lost(sent: Sent, line: str) -> None:
    array = sent.array("released")
    sent.queue(f"8_0|{array.name}|RUNNING|None|n1|9:00", line)
    with pytest.raises(client.SlurmError) as caught:
        client.queue([array.name])
    assert repr(line) in str(caught.value) and len(str(caught.value)) < 300
    assert sent.status()[0] == "unknown"


def test_a_reason_may_hold_the_separator_and_empty_lines_are_none(fake: Any) -> None:
    fake(squeue="echo; echo '7|mixlab-a|PENDING|(a|b) c|n1|9:00'; echo '  '")
    (job,) = client.queue(["mixlab-a"])
    assert (job.id, job.reason, job.node, job.left) == ("7", "(a|b) c", "n1", "9:00")


@pytest.mark.parametrize(
    ("sacct", "why"),
    [
        ("echo 'Slurm accounting storage is disabled' >&2; exit 1", "Slurm says nothing about it"),
        ("true", "Slurm says nothing about it"),
        (
            "echo 'sacct: error: Access denied' >&2; exit 1",
            "could not be read (slurm: sacct: sacct: error: Access denied)",
        ),
        (SILENT.replace("slurm_load_jobs", "sacct"), "could not be read (slurm: sacct: sacct error: Unable to contact"),
        ("echo 'a banner'", "could not be read (slurm: sacct: expected 'id|name|state', got 'a banner'"),
        ("echo '7_0|{name}|TIMEOUT'", "timed_out: "),
        (
            "echo '7_0|a|b|FAILED'; echo '7_1|{name}|TIMEOUT'",
            "Slurm says nothing about it",
        ),  # another job's odd name
    ],
)
def test_an_error_of_the_accounts_is_not_taken_for_no_accounts(sent: Sent, sacct: str, why: str) -> None:
    array = sent.array("released")
    sent.fake(sacct=sacct.format(name=array.name))
    found = sent.status()
    assert found[0] == "lost" and why in found[1]
