"""What a worker tells its parent reaches it as it was told, and is shown."""

import io
import json
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from experiments.design.ablation import GridTrial
from experiments.files import write_whole
from experiments.machine.environment import ROOT
from experiments.results.claims import Claim
from experiments.results.store import Store
from experiments.running import progress
from experiments.running.events import Ended, Evaluated, Event, Noted, Returned, Spent, Started, Stepped, Train
from experiments.running.failures import Failure
from experiments.running.local import LocalRun
from experiments.running.opener import WorkerSpec
from experiments.running.pool import Pool, Summary
from experiments.running.progress import LiveReporter, PlainReporter
from experiments.running.worker import Worker
from slurm.attempts import Attempts, PackReporter
from slurm.cluster import ClusterSpec
from tests.conftest import base, planned, records, write_yaml


class Listener:
    """Keeps what the parent hears of each trial."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, planned: GridTrial, event: Event) -> None:
        assert not isinstance(event, Spent) and event.trial_id == planned.trial.id
        self.events.append(event)


def trials(folder: Path, **train: Any) -> list[GridTrial]:
    given = base(backend="quick", train={"steps": 6, "evaluate_every": 3, **train})
    return planned(write_yaml(folder / "a.yaml", base=given, grid={"seed": [0]}), folder / "data")


def heard(folder: Path, trials: Sequence[GridTrial]) -> tuple[list[Event], Summary]:
    """What a parent hears of trials that a process of its own trains."""
    listener = Listener()
    run = LocalRun(trials, Store(folder / "runs"), folder / "data", Pool(environment={}), listener)
    return listener.events, run.run()


def told(folder: Path, trial: GridTrial) -> list[Event]:
    """What a worker tells, here in this process."""
    events: list[Event] = []
    spec = WorkerSpec("quick", (0,), folder / "runs", folder / "data", {}, ROOT, time.monotonic())
    Worker(spec, threading.Event(), events.append).run(trial.trial)
    return events


def test_a_parent_hears_the_start_each_chunk_each_evaluation_and_the_end(tmp_path: Path, quick: Path) -> None:
    (one,) = trials(tmp_path)
    events, summary = heard(tmp_path, [one])
    key = one.trial.id
    assert events[0] == Started(key, 0) and events[-1] == Ended(key, "done")
    stepped = [event for event in events if isinstance(event, Stepped)]
    assert [event.step for event in stepped] == sorted({event.step for event in stepped})
    assert {event.num_steps for event in stepped} == {6} and stepped[-1].step == 6
    assert all(event.loss > 0 and event.images_per_s > 0 for event in stepped)
    assert summary.done == [key] and summary.spent.keys() >= {"start", "data", "train", "evaluate", "record"}


def test_a_parent_hears_the_points_that_the_record_has(tmp_path: Path, quick: Path) -> None:
    (one,) = trials(tmp_path)
    events, _ = heard(tmp_path, [one])
    (record,) = records(tmp_path / "runs").values()
    points = [
        {"step": event.step, "loss": event.loss, "learning_rate": event.learning_rate, **event.scores}
        for event in events
        if isinstance(event, Evaluated)
    ]
    assert points == record["curve"] and [point["step"] for point in points] == [3, 6]


def test_a_parent_hears_what_was_set_aside(tmp_path: Path, quick: Path) -> None:
    (one,) = trials(tmp_path)
    path = Store(tmp_path / "runs").checkpoint(one.trial.id)
    write_whole(path, b"no checkpoint")
    notes = [event for event in heard(tmp_path, [one])[0] if isinstance(event, Noted)]
    assert [note.sentence for note in notes] == records(tmp_path / "runs")[one.trial.id]["notes"]
    assert len(notes) == 1 and f"{path} is corrupt" in notes[0].sentence


def test_a_parent_hears_why_a_trial_failed(tmp_path: Path, quick: Path) -> None:
    (one,) = trials(tmp_path, label_smoothing=0.25)
    events, summary = heard(tmp_path, [one])
    failure = Failure("error", "RuntimeError: boom")
    assert events == [Started(one.trial.id, 0), Ended(one.trial.id, "failed", failure)]
    assert summary.failed == {one.trial.id: "RuntimeError: boom"}


def test_a_worker_says_of_an_unexpected_error_that_it_is_not_to_be_used_again(tmp_path: Path, quick: Path) -> None:
    (one,) = trials(tmp_path, label_smoothing=0.25)
    assert told(tmp_path, one)[-1] == Ended(one.trial.id, "crashed", Failure("error", "RuntimeError: boom"))
    (two,) = trials(tmp_path, learning_rate=2.0)
    assert told(tmp_path, two)[-1] == Ended(two.trial.id, "failed", Failure("diverged", "diverged at step 1"))


def test_a_worker_tells_what_it_has_spent_before_it_lets_go_of_a_trial(tmp_path: Path, quick: Path) -> None:
    (one,) = trials(tmp_path)
    *_, spent, ended = told(tmp_path, one)
    assert isinstance(spent, Spent) and spent.seconds["train"] > 0 and isinstance(ended, Ended)


def test_a_start_says_from_which_step(tmp_path: Path, quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = trials(tmp_path, evaluate_every=2)
    stop, events = threading.Event(), list[Event]()

    def send(event: Event) -> None:
        events.append(event)
        if isinstance(event, Stepped):
            stop.set()

    spec = WorkerSpec("quick", (0,), tmp_path / "runs", tmp_path / "data", {}, ROOT, time.monotonic())
    Worker(spec, stop, send).run(one.trial)
    stepped = next(event for event in events if isinstance(event, Stepped))
    assert events[-1] == Ended(one.trial.id, "stopped") and 0 < stepped.step < 6
    assert told(tmp_path, one)[0] == Started(one.trial.id, stepped.step)


def test_status_hears_each_chunk_from_the_heartbeat(tmp_path: Path) -> None:
    claim = Claim(tmp_path / "trials" / "0123456789ab")
    before = claim.said
    claim.say(3, 6, 0.5, 100.0, 0.25)
    assert claim.said == before | {"step": 3, "steps": 6, "loss": 0.5, "images_per_s": 100.0, "waiting": 0.25}
    assert "step" not in before, "the thread that beats may be reading the old one"


def test_a_trial_goes_through_a_pipe_as_it_is(tmp_path: Path, quick: Path) -> None:
    (one,) = trials(tmp_path)
    order = pickle.loads(pickle.dumps(Train((one.trial,))))
    assert order == Train((one.trial,)) and order.trials[0].id == one.trial.id


# --- what is shown ------------------------------------------------------------------------------------------------

KEY = "0123456789ab"
SPLITS = {"train": {"accuracy": 1.0, "loss": 0.1}, "validation": {"accuracy": 0.625, "loss": 0.2}, "test": None}
STEP = Stepped(KEY, 3, 6, 0.5, 1234.4)
POINT = Evaluated(KEY, 3, 0.4, 0.01, SPLITS)
UNSEEN = Evaluated(KEY, 3, 0.4, 0.01, {**SPLITS, "validation": None})


def lines(
    make: Callable[[Console, int], PlainReporter], one: GridTrial, events: Sequence[Event], terminal: bool = False
) -> list[str]:
    console = Console(file=io.StringIO(), width=200, force_terminal=terminal, color_system=None)
    with make(console, 2) as reporter:
        for event in events:
            reporter.on_event(one, event)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([Started(KEY, 0)], ["[0/2] KEY seed=0: start"]),
        ([STEP], ["[0/2] KEY seed=0: step 3 of 6, loss 0.5000, 1,234 images/s"]),
        ([POINT, STEP], ["[0/2] KEY seed=0: step 3 of 6, loss 0.5000, 1,234 images/s, validation 62.5 %"]),
        ([UNSEEN, STEP], ["[0/2] KEY seed=0: step 3 of 6, loss 0.5000, 1,234 images/s"]),
        ([STEP, STEP], ["[0/2] KEY seed=0: step 3 of 6, loss 0.5000, 1,234 images/s"]),
        ([Noted(KEY, "it was damaged")], ["    it was damaged"]),
        ([Ended(KEY, "done")], ["[1/2] KEY seed=0: done"]),
        ([Ended(KEY, "failed", Failure("error", "boom"))], ["[1/2] KEY seed=0: failed", "    boom"]),
        ([Ended(KEY, "busy")], ["[0/2] KEY seed=0: is run by another process, waiting"]),
        ([Ended(KEY, "stopped")], ["[0/2] KEY seed=0: stopped, its state is saved"]),
    ],
)
def test_each_event_has_its_line(tmp_path: Path, quick: Path, events: list[Event], expected: list[str]) -> None:
    """A chunk has one at most every 30 s."""
    shown = lines(PlainReporter, trials(tmp_path)[0], events)
    assert shown == [line.replace("KEY", KEY) for line in expected]


def test_a_pack_notes_by_which_step_each_of_its_trials_was_begun(tmp_path: Path, quick: Path) -> None:
    attempts = Attempts(tmp_path / "attempts.json")
    reporter = PackReporter(Console(file=io.StringIO()), 2, attempts)
    for event in (Started(KEY, 3), STEP, POINT):
        reporter.on_event(trials(tmp_path)[0], event)
    assert json.loads((tmp_path / "attempts.json").read_text())[-1]["steps"] == {KEY: 3}


def test_a_trial_that_was_given_back_has_made_no_attempt(tmp_path: Path, quick: Path) -> None:
    """Two such starts, each ended by another job, leave it innocent; as two that began it alone do not."""
    path, (one,) = tmp_path / "attempts.json", trials(tmp_path)
    for events, is_given_up in (
        ([Started(KEY, 3), Returned(KEY, 1, crashed=True)], False),
        ([Returned(KEY, 1)], False),
        ([Started(KEY, 3), Returned(KEY, 1), Started(KEY, 3)], True),
    ):
        path.unlink(missing_ok=True)
        for _ in range(2):
            attempts = Attempts(path)
            reporter = PackReporter(Console(file=io.StringIO()), 2, attempts)
            for event in events:
                reporter.on_event(one, event)
            attempts.end("preempted")
        failure = Attempts(path).given_up(KEY, 3, ClusterSpec())
        assert (failure is not None) == is_given_up, events


def test_a_terminal_shows_a_bar_of_each_trial_and_one_of_all(tmp_path: Path, quick: Path) -> None:
    (one,) = trials(tmp_path)
    reporter: LiveReporter
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    with LiveReporter(console, 2) as reporter:

        def bars() -> list[tuple[str, float, str]]:
            return [(task.description, task.completed, task.fields["said"]) for task in reporter.bars.tasks]

        for event, expected in (
            (Started(KEY, 2), [("trials", 0, ""), ("seed=0", 2, "starting")]),
            (POINT, [("trials", 0, ""), ("seed=0", 2, "starting")]),
            (STEP, [("trials", 0, ""), ("seed=0", 3, "loss 0.5000, 1,234 images/s, validation 62.5 %")]),
            (Started(KEY, 0), [("trials", 0, ""), ("seed=0", 0, "starting")]),  # begun again
            (Ended(KEY, "failed", Failure("error", "boom")), [("trials", 1, "")]),
            (Ended(KEY, "failed", Failure("error", "boom")), [("trials", 2, "")]),  # of one that never began
        ):
            reporter.on_event(one, event)
            assert bars() == expected, event
    assert progress.reporter(console, 2).__class__ is LiveReporter
