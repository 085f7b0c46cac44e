"""The job that goes on with a tuned ablation's table: when it is sent, what it holds, what it does not send again."""

from pathlib import Path
from typing import Any

import pytest

from experiments.design import archive
from experiments.design.ablation import Ablation, GridTrial
from experiments.files import write_json
from experiments.results.store import Store
from slurm import following, ledger
from slurm.cluster import ClusterSpec
from slurm.cluster_keys import tree_of
from slurm.following import NEXT
from slurm.holding import held
from slurm.missing import missing
from slurm.request import Request
from slurm.software import Container
from tests.test_tune import ablation_of, known, record

SILENT = "echo 'Unable to contact slurm controller (connect failure)' >&2; exit 1"


class Sent:
    """A tuned ablation, one array of which was sent with two of its tuning trials."""

    def __init__(self, folder: Path, job: str | None, **cluster: Any):
        self.ablation: Ablation = ablation_of(folder)
        self.store, self.trials = Store(folder / "runs"), known(self.ablation, folder)
        self.folder = ledger.new_submission(self.store, "a")
        write_json(self.folder / ledger.CLUSTER, tree_of(ClusterSpec(**cluster)))
        archive.write(self.folder / archive.FILE, self.ablation, self.trials)
        about = {"store": str(self.store.root), "cache": str(folder / "data"), "snapshot": str(folder / "s" / "code")}
        write_json(self.folder / NEXT, {**about, "job": job})
        write_json(self.folder / "report.json", {**about, "job": following.LATER})
        self.name, packs = ledger.next_name(self.folder), (tuple(one.trial.id for one in self.trials[:2]),)
        self.array = ledger.Array(self.folder, 0, ledger.array_name(self.folder, 0), "released", "7", "quick", packs)
        self.array.become()

    def line(self, name: str, job: str = "9") -> str:
        return f"[[ $* == *{name}* ]] && echo '{job}|{name}|PENDING|Dependency||9:00' || true"


@pytest.mark.parametrize(
    ("queue", "job", "why"),
    [
        ("next", "9", "has jobs in the queue"),
        ("empty", "9", ""),
        ("silence", "9", "may be on its way: Slurm does not answer"),
        ("next", None, ""),  # it was never sent: a job of its name is nobody's
    ],
)
def test_code_and_ablation_are_held_while_a_job_goes_on_later(
    tmp_path: Path, quick: Path, fake: Any, queue: str, job: str | None, why: str
) -> None:
    sent = Sent(tmp_path, job)
    sent.array.become(state="void")
    for name in ("packs", "array-0.json"):
        (sent.folder / name).unlink(missing_ok=True)  # nothing but that job is left of the submission
    fake(squeue={"next": sent.line(sent.name), "empty": "true", "silence": SILENT}[queue], sacct="true")
    parts, silence = held(sent.store)
    assert parts.snapshots.get("code", "").removeprefix("a submission ") == why
    assert parts.ablations.get("a", "") == why and bool(silence) == (queue == "silence")


def test_a_job_that_has_begun_is_replaced_and_one_that_waits_is_not(tmp_path: Path, quick: Path, fake: Any) -> None:
    sent = Sent(tmp_path, "9")
    fake(squeue=sent.line(sent.name))
    assert following.next_jobs(sent.store, "a") == ["9"]
    assert following.who_goes_on(sent.store, "a") == "job 9 sends them then"
    write_json(sent.folder / NEXT, {**(ledger.read(sent.folder / NEXT) or {}), "ended": True})
    assert following.next_jobs(sent.store, "a") == []  # for those who ask whether another is needed
    assert following.who_goes_on(sent.store, "a") == "job 9 sends them then"  # it may be at it
    fake(squeue=SILENT)
    assert "it is not known which job sends them" in following.who_goes_on(sent.store, "a")


def test_without_sbatch_in_a_container_nobody_goes_on_and_it_is_said(tmp_path: Path, quick: Path, fake: Any) -> None:
    sent = Sent(tmp_path, None, container=Container("apptainer", "image.sif"))
    fake(squeue="true", scancel="true")
    said: list[str] = []
    following.follow(sent.folder, said.append)
    assert said == [
        "slurm: sbatch is not in the container of the cluster file; no job will send the trials of the table: "
        "mixlab retry a, when those that tune have ended"
    ]
    assert not following.is_sent(sent.folder)


@pytest.mark.parametrize("sends_tuning", [True, False])
def test_the_job_that_goes_on_sends_no_lost_trial_that_tunes_again(
    tmp_path: Path, quick: Path, fake: Any, sends_tuning: bool
) -> None:
    """Both of the array are lost; those of the setting that is chosen already are sent in either case."""
    sent = Sent(tmp_path, "9")
    fake(squeue="true", sacct="true")
    for planned in sent.trials[6:]:
        record(tmp_path, planned, 0.5)
    trials = known(sent.ablation, tmp_path)
    request = Request(sent.ablation, trials, ClusterSpec(), sent.store, tmp_path / "data", sends_tuning=sends_tuning)
    found = missing(request)
    todo = found.todo
    assert found.num_live == 0 and request.num_waiting == 2
    tuning: list[GridTrial] = [planned for planned in todo if planned.tunes]
    assert len(tuning) == (6 if sends_tuning else 0) and len(todo) - len(tuning) == 2
