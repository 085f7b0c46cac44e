"""Ages are measured by the file server's clock: a machine whose own clock is ten minutes off sees what others see."""

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import pytest

from experiments import clock
from experiments.data import decoded
from experiments.design.ablation import GridTrial
from experiments.files import write_whole
from experiments.results.claims import STALE_S, Claim, ClaimLost
from experiments.results.states import state
from experiments.results.store import Store
from slurm import ledger, status
from slurm.attempts import Attempts
from slurm.cluster import ClusterSpec
from slurm.needs import Needs
from slurm.work import Work
from tests.conftest import Ended, base, planned, write_yaml
from tests.store_parts import ID, failed, leave_heartbeat, make_older, record, skew_our_clock, temporaries

SKEWS = (-600.0, 0.0, 600.0)  # seconds by which our clock is ahead


@pytest.fixture(autouse=True)
def looks_anew() -> None:
    clock.forget()


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize(("age_s", "is_dead"), [(0.0, False), (STALE_S - 20, False), (STALE_S + 20, True)])
def test_owners_are_alive_or_dead_by_the_file_servers_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew: float, age_s: float, is_dead: bool
) -> None:
    leave_heartbeat(tmp_path, age_s, host="elsewhere")
    skew_our_clock(monkeypatch, skew)
    assert (Store(tmp_path).owner(ID) is None) == is_dead
    assert (state(Store(tmp_path), ID).status == "running") == (not is_dead)
    if is_dead:
        assert Claim(Store(tmp_path).folder(ID)).is_held()
    else:
        with pytest.raises(ClaimLost):
            Claim(Store(tmp_path).folder(ID))


def test_a_clock_that_is_set_between_two_questions_kills_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_heartbeat(tmp_path, host="elsewhere")
    assert Store(tmp_path).owner(ID) is not None
    skew_our_clock(monkeypatch, 600.0)
    assert Store(tmp_path).owner(ID) is not None
    monkeypatch.setattr(clock, "RENEW_S", 0.0)
    assert Store(tmp_path).owner(ID) is not None


def test_a_file_servers_clock_that_is_set_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look is renewed; here it was made when that clock was an hour behind."""
    leave_heartbeat(tmp_path, host="elsewhere")
    seen = clock.now(tmp_path)
    monkeypatch.setattr(clock, "_looks", {str(tmp_path): (seen - 3600 - clock._steady(), clock._steady())})
    assert abs(clock.now(tmp_path) - (seen - 3600)) < 1800
    monkeypatch.setattr(clock, "RENEW_S", 0.0)
    assert abs(clock.now(tmp_path) - seen) < 1800


def test_many_heartbeats_cost_one_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Path] = []
    look = clock._touched

    def note(folder: Path) -> float:
        looks.append(folder)
        return look(folder)

    monkeypatch.setattr(clock, "_touched", note)
    leave_heartbeat(tmp_path, host="elsewhere")
    content = (Store(tmp_path).folder(ID) / "heartbeat").read_bytes()
    for number in range(200):
        write_whole(Store(tmp_path).folder(f"t{number}") / "heartbeat", content)
    assert all(state(Store(tmp_path), key).status == "running" for key in Store(tmp_path).trial_ids())
    assert len(looks) == 1 and temporaries(tmp_path) == []


def test_a_store_without_heartbeats_is_listed_without_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path).finish(ID, record())
    clock.forget()
    monkeypatch.setattr(clock, "_touched", lambda folder: pytest.fail("something was written"))
    assert state(Store(tmp_path), ID).status == "done"


def test_a_store_that_cannot_be_written_is_listed_and_says_whose_clock_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_heartbeat(tmp_path, host="elsewhere")
    real = os.open

    def refuse(path: Any, *arguments: Any, **named: Any) -> int:
        if ".clock" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(clock, "RENEW_S", 0.0)
    for _ in range(3):
        assert state(Store(tmp_path), ID).status == "running"
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "permission is denied" in said[0] and "this machine's clock" in said[0]
    assert len(said[0]) < 300 + len(str(tmp_path))
    skew_our_clock(monkeypatch, 600.0)
    assert state(Store(tmp_path), ID).status == "missing"  # it counts, as was said


# --- Slurm --------------------------------------------------------------------------------------------------------


def submission(root: Path, array_state: str = "released") -> ledger.Array:
    """An array of one trial in the ledger, as submission.py writes it."""
    folder = ledger.new_submission(Store(root), "a")
    write_whole(folder / "cluster.json", b"{}")
    return ledger.Array(folder, 0, f"mixlab-a-{folder.name}-0", array_state, "7", "quick", ((ID,),)).become()


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_failure_is_of_before_or_after_the_submission_by_the_file_servers_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: Any, skew: float, when: str
) -> None:
    """The node on which it failed, and the one that submits, may have other clocks."""
    fake(squeue="true", sacct="true")
    skew_our_clock(monkeypatch, skew)
    array = submission(tmp_path)
    Store(tmp_path).finish(ID, failed())
    path = Store(tmp_path).folder(ID) / "record.json"
    if when == "before":
        make_older(path, 100.0)
    else:
        make_older(array.folder / "cluster.json", 100.0)
    found = status.overview(Store(tmp_path), [ID]).states[ID]
    assert found.status == ("lost" if when == "before" else "failed")


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("array_state", ["void", "ended"])
@pytest.mark.parametrize(("age_s", "is_asked"), [(0.0, True), (3500.0, True), (3700.0, False)])
def test_slurm_is_asked_for_an_hour_after_an_array_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew: float, array_state: str, age_s: float, is_asked: bool
) -> None:
    array = submission(tmp_path, array_state)
    make_older(array.folder / "array-0.json", age_s)
    skew_our_clock(monkeypatch, skew)
    assert array.is_asked == is_asked


@pytest.mark.parametrize("array_state", ["intended", "held", "released"])
def test_slurm_is_always_asked_for_an_array_that_is_open(tmp_path: Path, array_state: str) -> None:
    array = submission(tmp_path, array_state)
    make_older(array.folder / "array-0.json", 1e6)
    assert array.is_asked


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("record_age_s", [100.0, -100.0])
def test_a_pack_keeps_to_the_failures_that_it_has_recorded_itself(
    tmp_path: Path, quick: Path, monkeypatch: pytest.MonkeyPatch, skew: float, record_age_s: float
) -> None:
    """Its first start was on a node with another clock, and the record is written by a third."""
    skew_our_clock(monkeypatch, skew)
    trial: GridTrial = planned(write_yaml(tmp_path / "a.yaml", base=base(backend="quick")), tmp_path / "data")[0]
    key, array = trial.trial.id, submission(tmp_path)
    work = Work(array, 0, ClusterSpec(), Needs(), tmp_path, Store(tmp_path), tmp_path, {}, (trial,))
    assert isinstance(work.attempts, Attempts)  # which begins
    Store(tmp_path).finish(key, {**failed(), "id": key})
    make_older(Store(tmp_path).folder(key) / "record.json", record_age_s)
    skew_our_clock(monkeypatch, -skew)
    assert dataclasses.replace(work)._has_failed_here(key) == (record_age_s < 0)


@pytest.mark.parametrize("skew", [-7200.0, 0.0, 7200.0])
def test_an_entry_in_the_making_is_swept_by_the_file_servers_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew: float
) -> None:
    for name, age_s in (("living", 0.0), ("abandoned", decoded.ABANDONED_S + 60)):
        left = tmp_path / f".new-{name}" / "entry"
        left.mkdir(parents=True)
        for path in (left, left.parent):
            make_older(path, age_s)
    skew_our_clock(monkeypatch, skew)
    decoded._sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".new-living"]


def test_status_writes_nothing_that_stays(run: Any, tmp_path: Path, quick: Path) -> None:
    write_yaml(tmp_path / "a.yaml", base=base(backend="quick"))
    assert run("run", "a.yaml").code == 0
    leave_heartbeat(tmp_path / "runs", host="elsewhere")
    before = sorted(path for path in (tmp_path / "runs").rglob("*"))
    ended: Ended = run("status", "a")
    assert ended.code == 0 and sorted(path for path in (tmp_path / "runs").rglob("*")) == before


def test_the_look_is_of_the_file_and_not_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skew_our_clock(monkeypatch, 600.0)
    assert 500 < time.time() - clock.now(tmp_path) < 700
