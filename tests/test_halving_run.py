"""A tuning by halving that is run: paused, killed, gone on with, told and drawn; on Slurm by what its jobs are sent."""

import io
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Set
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from analysis.figures import draw_all
from analysis.report import make_report
from analysis.tuned import heading_text, tuned_text
from backends.errors import MixlabError
from experiments.design import archive, stages
from experiments.design.ablation import Ablation, GridTrial
from experiments.machine import memory
from experiments.machine.environment import ROOT
from experiments.results import checkpoint
from experiments.results.store import Store
from experiments.running.events import Ended as TrialEnded
from experiments.running.events import Event
from experiments.running.local import LocalRun
from experiments.running.opener import Opener, WorkerSpec
from experiments.running.pool import Pool, Slot
from experiments.running.progress import PlainReporter
from experiments.running.worker import Worker
from slurm import ledger, submission
from slurm.cluster import ClusterSpec
from slurm.missing import missing
from slurm.needs import Needs
from slurm.packing import Pack
from slurm.request import Request
from slurm.status import overview
from slurm.work import read_work, write_work
from tests.conftest import TIMEOUT_S, Ended, base, kill_tree, records, results, start, wait_until, write_yaml
from tests.test_halving import HALVING, ONE, RATES, TRAIN, TUNE, come_to, rate, until
from tests.test_halving import end as end_all
from tests.test_halving import halved as of_two_seeds
from tests.test_tune import known, record

ONE_SEED = {**TUNE, "seeds": [100]}


def halved(folder: Path, changes: Mapping[str, Any] = MappingProxyType({})) -> Ablation:
    """Four values of one setting, of one seed, halved at the steps 3 and 6 of 12."""
    return of_two_seeds(folder, {"seeds": [100], **changes})


def told(folder: Path, planned: GridTrial, step: int | None) -> list[Event]:
    """The events of a worker that trains a trial to a step."""
    events = list[Event]()
    spec = WorkerSpec("quick", (0,), folder / "runs", folder / "data", {}, ROOT, time.monotonic())
    Worker(spec, threading.Event(), events.append).run(planned.trial, until=step)
    return events


def test_a_worker_leaves_a_trial_at_its_step_and_does_not_open_one_that_is_there(
    tmp_path: Path, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, store = known(halved(tmp_path), tmp_path)[0], Store(tmp_path / "runs")
    assert told(tmp_path, planned, 6)[-1] == TrialEnded(planned.trial.id, "paused")
    assert store.owner(planned.trial.id) is None and not records(store.root)
    assert store.can_go_on(planned.trial.id)
    monkeypatch.setattr(Opener, "open", lambda *given: pytest.fail("it is opened"))
    assert told(tmp_path, planned, 3)[-1] == TrialEnded(planned.trial.id, "paused")
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(quick))
    assert told(tmp_path, planned, None)[-1] == TrialEnded(planned.trial.id, "done")


def test_a_worker_that_died_with_a_trial_that_has_come_so_far_has_paused_it(tmp_path: Path, quick: Path) -> None:
    """It died between the trial's evaluation and its word of it: no failure is recorded."""
    planned, store = known(halved(tmp_path), tmp_path)[0], Store(tmp_path / "runs")
    told(tmp_path, planned, 3)
    reporter = PlainReporter(Console(file=io.StringIO()), 1)
    local = LocalRun([planned], store, tmp_path / "data", Pool(), reporter)
    dead = SimpleNamespace(join=lambda: None, exitcode=-9)
    local.oom_kills = memory.oom_kills()
    local._bury(Slot((0,), process=dead, trials={planned.trial.id: planned}))
    assert local.summary.paused == [planned.trial.id] and not local.summary.failed and not records(store.root)


def halving_yaml(folder: Path, **keys: Any) -> None:
    given = {"base": base(backend="quick", train=TRAIN), "tune": ONE_SEED, **ONE, **keys}
    write_yaml(folder / "a.yaml", **given)


def test_each_command_knows_the_stages(tmp_path: Path, run: Any, quick: Path) -> None:
    halving_yaml(tmp_path)
    planned = run("plan", "a.yaml").out
    assert "4 trials: 4 missing" in planned
    assert "of each setting 4 values to step 3, 2 to step 6, 1 to the end" in planned
    ended: Ended = run("run", "a.yaml")
    assert ended.code == 0, ended.err
    assert ended.err.count(": paused at 3\n") == 4 and ended.err.count(": paused at 6\n") == 2
    assert ended.err.count(": done\n") == 1 + 1 and "failed" not in ended.err
    assert "mixlab: token_mixing=tied: 2 pruned at step 3, 2 left\n" in ended.err
    assert "; 2 pruned at step 3, 1 pruned at step 6\n" in ended.err
    assert "by halving (4 values to step 3, 2 to step 6, 1 to the end): learning_rate of 0.001, 0.01" in ended.out
    trials = known(halved(tmp_path), tmp_path)
    status = run("status", "a").out
    assert "5 trials: 2 done, 3 pruned\n" in status
    for one in trials:
        line = next(line for line in status.splitlines() if line.startswith(one.trial.id))
        assert not one.pruned or (" pruned " in line and line.endswith(f"at {one.until}"))
    assert [line.split() for line in run("status").out.splitlines()][-1] == ["a", "2", "0", "0", "0", "3"]
    assert "nothing to run" in run("run", "a.yaml", "--dry-run").out
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "trials").rglob("*.safetensors")}
    again: Ended = run("run", "a.yaml")
    assert again.code == 0 and again.out == ended.out and ": start" not in again.err
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "trials").rglob("*.safetensors")}
    assert run("report", "a", "--format", "text").code == 0
    assert "by halving (4 values to step 3" in (run("report", "a", "--format", "text").out)


def test_a_pruned_trial_goes_on_where_it_is_asked_for_by_its_id_or_without_halving(
    tmp_path: Path, run: Any, quick: Path
) -> None:
    """To the bits of one that was never paused; the choice stays the same."""
    halving_yaml(tmp_path)
    assert run("run", "a.yaml").code == 0
    first = run("report", "a", "--format", "text").out
    pruned = [one.trial.id for one in known(halved(tmp_path), tmp_path) if one.pruned]
    assert "1 missing" in run("run", "a.yaml", "--only", pruned[0], "--dry-run").out
    assert run("run", "a.yaml", "--only", pruned[0]).code == 0
    assert records(tmp_path / "runs")[pruned[0]]["status"] == "done"
    assert run("report", "a", "--format", "text").out == first
    halving_yaml(tmp_path, tune={**ONE_SEED, "halving": None}, name="whole")
    assert run("run", "a.yaml").code == 0
    assert all(key in records(tmp_path / "runs") for key in pruned)
    assert run("run", "a.yaml", "--store", "apart").code == 0
    apart = results(tmp_path / "apart")
    assert {key: one for key, one in results(tmp_path / "runs").items() if key in apart} == apart
    assert run("report", "a", "--format", "text").out == first


def test_a_paused_trial_is_told_from_one_that_was_stopped(tmp_path: Path, run: Any, quick: Path) -> None:
    """At the end of its stage it waits for the others, and when they have come there it goes on."""
    halving_yaml(tmp_path)
    trials = known(halved(tmp_path), tmp_path)
    run("run", "a.yaml", "--only", "nothing")
    archive.keep(Store(tmp_path / "runs"), halved(tmp_path), trials)
    for planned in trials:
        if planned is not trials[0]:
            told(tmp_path, planned, 3)
    status = run("status", "a").out
    assert "4 trials: 1 missing, 3 paused\n" in status and status.count("at 3 (waits for the others)") == 3
    assert "no value is chosen yet: 1 tuning trial has not reached step 3" in status
    told(tmp_path, trials[0], 3)
    status = run("status", "a").out
    assert "4 trials: 2 paused, 2 pruned\n" in status and status.count("at 3 (goes on)") == 2
    left = {one.trial.id for one in known(halved(tmp_path), tmp_path) if not one.pruned}
    dry = run("run", "a.yaml", "--dry-run").out
    assert all(key in dry for key in left) and "2 paused, 2 pruned" in dry


def points_of(store: Path) -> dict[str, int]:
    """The evaluations of each trial that has begun."""
    paths = store.glob("trials/*/metrics.jsonl")
    return {path.parent.name: len(path.read_text().splitlines()) for path in paths}


def test_kills_in_a_stage_and_between_stages_leave_what_an_undisturbed_run_has(
    tmp_path: Path, run: Any, quick: Path, started: list["subprocess.Popen[str]"]
) -> None:
    """`kill -9` of all processes: as the first trial comes to its step, as the last one does, in the next stage."""
    halving_yaml(tmp_path)
    store, slow = tmp_path / "killed", {"PYTHONPATH": str(quick), "QUICK_STEP_S": "0.02"}
    for least in ([1], [1] * 4, [1, 1, 2, 2]):
        process = start(tmp_path, "run", "a.yaml", "--store", "killed", **slow)
        started.append(process)
        wait_until(lambda: sorted(points_of(store).values())[-len(least) :] >= least, "it has come so far")  # noqa: B023
        os.killpg(process.pid, signal.SIGKILL)
        kill_tree(process.pid)
        process.wait(TIMEOUT_S)
        assert len(records(store)) < 2
    ended: Ended = run("run", "a.yaml", "--store", "killed")
    assert ended.code == 0, ended.err
    assert sorted(points_of(store).values()) == [1, 1, 2, 4, 4] and len(records(store)) == 2
    assert run("run", "a.yaml", "--store", "undisturbed").code == 0
    assert results(store) == results(tmp_path / "undisturbed")
    halving_yaml(tmp_path, tune={**ONE_SEED, "halving": None})
    for name in ("whole", "killed"):  # what was pruned goes on there
        assert run("run", "a.yaml", "--store", name).code == 0
    assert results(tmp_path / "whole").items() <= results(store).items() and len(results(tmp_path / "whole")) == 5


def test_the_figure_marks_what_was_pruned_where_it_was(tmp_path: Path, quick: Path) -> None:
    """It is on no line, and is not ringed."""
    ablation = halved(tmp_path)
    come_to(tmp_path, ablation, 3, lambda planned: 0.1 + rate(planned))
    come_to(tmp_path, ablation, 6, lambda planned: 1 - rate(planned))
    end_all(tmp_path, ablation, 0.95)
    for planned in known(ablation, tmp_path):
        if not planned.tunes:
            record(tmp_path, planned, 0.9)
    report = make_report(ablation, known(ablation, tmp_path), Store(tmp_path / "runs"))
    (drawn,) = (one for one in draw_all(report) if one.name == "tuning_learning_rate")
    assert drawn.caption.endswith(
        " token_mixing=tied: 10.1 at 0.001 (pruned at step 3), 11.0 at 0.01 (pruned at step 3), 95.0 at 0.1 (chosen), "
        "70.0 at 0.3 (pruned at step 6)."
    )
    assert "crossed: pruned, as it was at that step" in drawn.caption
    (axes,) = drawn.figure.axes
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[0.001, 0.01, 0.3]]
    assert [line.get_linestyle() for line in crosses] == ["None"]
    assert [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"] == [[0.1], [0.1]]
    shown = [text for texts in drawn.values.values() for text in texts]
    assert "token_mixing=tied, learning_rate=0.3: 70.0 % (pruned at step 6)" in shown
    assert tuned_text(ablation).endswith("by best.validation.accuracy, halved at steps 3 and 6.")
    assert "by halving (4 values to step 3" in heading_text(ablation)
    assert "halv" not in tuned_text(halved(tmp_path, {"halving": None}))


class Sent:
    """An ablation that is tuned by halving, and submissions of it that Slurm no longer has."""

    def __init__(self, folder: Path):
        self.ablation: Ablation = halved(folder)
        self.folder, self.store = folder, Store(folder / "runs")
        self.number = 0

    def send(self, trials: list[GridTrial], state: str = "ended") -> ledger.Array:
        """A submission of trials, each to the step to which it is trained then."""
        folder = self.store.root / "ablations" / "a" / "jobs" / f"20260101-00000{self.number}-abcdef"
        self.number += 1
        request = Request(self.ablation, trials, ClusterSpec(), self.store, self.folder / "data")
        (array,) = submission._prepare(request, folder, [[Pack("quick", Needs(), tuple(trials))]], self.folder)
        return array.become(state=state, job="7")

    def todo(self, sends_tuning: bool = False, states: Set[str] | None = None) -> set[float]:
        """The rates of the tuning trials that are sent now."""
        trials = known(self.ablation, self.folder)
        cache = self.folder / "data"
        request = Request(self.ablation, trials, ClusterSpec(), self.store, cache, sends_tuning=sends_tuning)
        return {rate(planned) for planned in missing(replace(request, states=states)).todo if planned.tunes}

    def states(self) -> dict[float, str]:
        trials = known(self.ablation, self.folder)
        view = overview(self.store, [one.trial.id for one in trials], stages.halts(self.ablation, trials, self.store))
        return {rate(one): view.states[one.trial.id].status for one in trials}


@pytest.fixture
def sent(tmp_path: Path, quick: Path, fake: Any) -> Sent:
    fake(squeue="true", sacct="true")
    return Sent(tmp_path)


def test_a_job_sends_a_trial_once_a_stage_and_none_that_was_lost_in_it(sent: Sent, tmp_path: Path) -> None:
    """Whoever submits sends those too."""
    assert sent.todo() == set() and sent.todo(sends_tuning=True) == set(RATES)  # the first stage is not decided
    sent.send(known(sent.ablation, tmp_path))
    assert sent.todo() == set() and sent.todo(sends_tuning=True) == set(RATES)  # lost
    come_to(tmp_path, sent.ablation, 3, rate)
    assert sent.todo() == {0.1, 0.3} == sent.todo(sends_tuning=True)
    sent.send([one for one in known(sent.ablation, tmp_path) if rate(one) == 0.1])
    assert sent.todo() == {0.3} and sent.todo(sends_tuning=True) == {0.1, 0.3}
    sent.send([one for one in known(sent.ablation, tmp_path) if rate(one) == 0.3])
    assert sent.todo() == set()
    come_to(tmp_path, sent.ablation, 6, rate)
    assert sent.todo() == {0.3}


def test_a_paused_trial_is_not_lost_and_one_that_was_sent_further_is(sent: Sent, tmp_path: Path) -> None:
    sent.send(known(sent.ablation, tmp_path))
    assert set(sent.states().values()) == {"lost"}
    for planned in known(sent.ablation, tmp_path):
        told(tmp_path, planned, 3)
    assert sorted(sent.states().values()) == ["paused", "paused", "pruned", "pruned"]
    ids = [one.trial.id for one in known(sent.ablation, tmp_path)]
    assert {now.status for now in overview(sent.store, ids).states.values()} == {"paused"}  # without the ablation
    ahead = [one for one in known(sent.ablation, tmp_path) if not one.pruned]
    sent.send(ahead)
    assert sorted(sent.states().values()) == ["lost", "lost", "pruned", "pruned"]


def test_what_a_local_run_has_paused_is_told_from_what_has_not_begun(
    sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No job had it: that it is paused is known from the ablation alone."""
    come_to(tmp_path, sent.ablation, 3, rate)
    monkeypatch.setattr(checkpoint, "newest_step", lambda path: 3)
    assert sent.todo(sends_tuning=True, states={"paused"}) == {0.1, 0.3}
    assert sent.todo(sends_tuning=True, states={"missing"}) == set()


def test_trials_of_an_earlier_form_that_halving_has_stopped_are_not_sent_again(sent: Sent, tmp_path: Path) -> None:
    sent.send(known(sent.ablation, tmp_path))
    come_to(tmp_path, sent.ablation, 3, rate)
    left = ledger.earlier(sent.store, "a", set())
    assert {rate(one) for one in left} == {0.1, 0.3} and {one.until for one in left} == {6}


def test_a_job_is_told_how_far_it_trains(sent: Sent, tmp_path: Path) -> None:
    """Also where its array was written before there was such a thing."""
    trials = known(sent.ablation, tmp_path)
    array = sent.send(trials)
    about = {"store": str(sent.store.root), "cache": "data", "snapshot": "code", "commit": {}}
    write_work(array, 0, tuple(map(archive.to_tree, trials)), {**about, "needs": asdict(Needs())})
    assert [one.until for one in read_work(array.pack_file(0), array, 0).trials] == [3] * 4
    (path,) = array.folder.glob("array-*.json")
    tree = json.loads(path.read_text())
    assert tree["until"] == {one.trial.id: 3 for one in trials}
    del tree["until"]
    path.write_text(json.dumps(tree))
    assert [one.until for one in ledger.arrays(array.folder)] == [{}]


def test_halving_of_other_trials_is_an_error_of_the_file(tmp_path: Path, run: Any, quick: Path) -> None:
    halving_yaml(tmp_path, tune={**ONE_SEED, "halving": {**HALVING, "steps": [4]}})
    ended: Ended = run("run", "a.yaml")
    assert ended.code == 2 and "Traceback" not in ended.err
    assert "mixlab: a.yaml: tune: halving: steps: expected multiples of train.evaluate_every (3) of" in ended.err
    with pytest.raises(MixlabError):
        until(halved(tmp_path, {"halving": {**HALVING, "steps": [4]}}), tmp_path)
