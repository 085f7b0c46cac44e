"""The job that goes on with a tuned ablation's table: when it is sent, what it holds, what it does not send again."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.design import archive
from experiments.design.ablation import Ablation, GridTrial
from experiments.files import write_json
from experiments.results.store import Store
from slurm import following, ledger, next_round, snapshot, submission
from slurm.cluster import ClusterSpec
from slurm.cluster_keys import tree_of
from slurm.following import NEXT
from slurm.holding import held
from slurm.limits import Limits
from slurm.missing import missing
from slurm.request import Request
from slurm.software import Container
from tests.test_tune import MIXING, ablation_of, known, record

SILENT = "echo 'Unable to contact slurm controller (connect failure)' >&2; exit 1"


class Sent:
    """A tuned ablation, one array of which was sent with two of its tuning trials."""

    def __init__(self, folder: Path, job: str | None, **cluster: Any):
        self.ablation: Ablation = ablation_of(folder)
        self.store, self.trials = Store(folder / "runs"), known(self.ablation, folder)
        self.folder = ledger.new_submission(self.store, "a")
        write_json(self.folder / ledger.CLUSTER, tree_of(ClusterSpec(**cluster)))
        archive.write(self.folder / archive.FILE, self.ablation, self.trials)
        about = {
            "store": str(self.store.root),
            "cache": str(folder / "data"),
            "snapshot": str(folder / "s" / "code"),
            "commit": {"commit": "c", "dirty": False},
        }
        write_json(self.folder / NEXT, {**about, "job": job})
        write_json(self.folder / "report.json", {**about, "job": following.LATER})
        self.name, packs = ledger.next_name(self.folder), (tuple(one.trial.id for one in self.trials[:2]),)
        self.array = ledger.Array(self.folder, 0, ledger.array_name(self.folder, 0), "released", "7", "quick", packs)
        self.array.become()

    def record(self, folder: Path, which: Callable[[GridTrial], bool]) -> None:
        """Record the trials that are known by now, of which this is so, as done."""
        for planned in filter(which, known(self.ablation, folder)):
            record(folder, planned, 0.5)

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


@pytest.fixture
def answers(fake: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A Slurm that takes every job as number 11, whatever Python and code it is to run."""
    tools = ("squeue", "sacct", "scontrol", "scancel", "srun")
    fake(sbatch="echo 'Submitted batch job 11'", **dict.fromkeys(tools, "true"))
    monkeypatch.setattr(snapshot, "check", lambda path: None)
    monkeypatch.setattr(submission, "check_python", lambda backend, cluster: None)
    monkeypatch.setattr(Limits, "read", staticmethod(lambda cluster: Limits(1000, 1000)))
    return fake


def test_the_job_that_goes_on_sends_the_table_and_the_job_after_it_and_no_trial_that_tunes(
    tmp_path: Path, quick: Path, answers: Any
) -> None:
    """One setting is chosen. Of the other one two tuning trials are on their way, and the rest is lost."""
    sent = Sent(tmp_path, "9")
    sent.record(tmp_path, lambda planned: planned in sent.trials[6:])
    answers(squeue=f"{sent.line(sent.name)}; {sent.line(sent.array.name, '7')}")  # this very job is in the queue too
    next_round.send_next(sent.folder / NEXT)
    (folder,) = (one for one in ledger.submissions(sent.store, "a") if one != sent.folder)
    table = {planned.trial.id for planned in known(sent.ablation, tmp_path) if not planned.tunes}
    (array,) = ledger.arrays(folder)
    assert len(table) == 2 and {key for pack in array.packs for key in pack} == table
    assert (ledger.read(folder / NEXT) or {})["job"] == "11" and following.is_sent(folder)
    assert not following.is_sent(sent.folder) and following.is_sent(sent.folder, is_over=True)


def test_with_nothing_to_send_the_job_that_goes_on_is_followed_by_another_one(
    tmp_path: Path, quick: Path, answers: Any
) -> None:
    """It is in the queue itself, and does not count as the one that will go on."""
    sent = Sent(tmp_path, "9")
    answers(squeue=f"{sent.line(sent.name)}; {sent.line(sent.array.name, '7')}")
    next_round.send_next(sent.folder / NEXT)
    (folder,) = (one for one in ledger.submissions(sent.store, "a") if one != sent.folder)
    assert ledger.arrays(folder) == [] and (ledger.read(folder / NEXT) or {})["job"] == "11"


def test_a_job_that_began_long_ago_is_not_asked_for(tmp_path: Path, quick: Path) -> None:
    sent = Sent(tmp_path, "9")
    write_json(sent.folder / NEXT, {**(ledger.read(sent.folder / NEXT) or {}), "ended": True})
    assert following.is_sent(sent.folder, is_over=True)
    os.utime(sent.folder / NEXT, (0, 0))
    assert not following.is_sent(sent.folder, is_over=True)


@pytest.mark.parametrize("is_newer", [True, False])
def test_the_job_that_goes_on_leaves_a_newer_form_of_the_ablation_under_its_name(
    tmp_path: Path, quick: Path, answers: Any, is_newer: bool
) -> None:
    """Where there is none, the trials of the table are added to those that the name stands for."""
    sent = Sent(tmp_path, "9")
    commented = replace(sent.ablation, where="../a.yaml", text=f"# the same\n{sent.ablation.text}")  # is no newer form
    archive.keep(sent.store, commented, sent.trials)
    sent.record(tmp_path, lambda planned: planned.tunes)
    sent.record(tmp_path, lambda planned: not planned.tunes)
    if is_newer:
        newer = ablation_of(tmp_path, grid={MIXING: ["tied", "untied"], "seed": [0, 1, 2]})
        archive.keep(sent.store, newer, known(newer, tmp_path))
    next_round.send_next(sent.folder / NEXT)
    assert len(archive.recall(sent.store, "a")[0].points) == (6 if is_newer else 4)
    assert len(sent.store.ablation_labels("a")) == 12 + (6 if is_newer else 4)
