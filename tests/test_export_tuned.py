"""Exports of ablations that tune: followed until nothing goes on by itself, and runs that halving has stopped."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.export import runs as of_runs
from analysis.export.run import Asked, Run, Runs
from analysis.export.runs import read_runs
from experiments.design.ablation import Ablation
from experiments.results.store import Store
from mixlab import export
from tests.conftest import Ended
from tests.test_halving import come_to, end, evaluate, halved, rate
from tests.test_tune import ablation_of, known, record
from tests.test_tune_run import STEPS, end_of

Command = Callable[..., Ended]
Follow = Callable[..., list[str]]
KILLED = {"status": "failed", "cause": "killed", "reason": "its process was killed"}


@pytest.fixture
def follow(run: Command, monkeypatch: pytest.MonkeyPatch) -> Follow:
    def follow(*steps: Callable[[], Any]) -> list[str]:
        """The counts of a followed export that each look but the first finds after one more step."""
        left: Iterator[Callable[[], Any]] = iter(steps)
        monkeypatch.setattr(export, "exporter", lambda name: lambda runs, folder: [])
        monkeypatch.setattr(export.time, "sleep", lambda seconds: next(left)())
        ended = run("export", "a.yaml", "--to", "tensorboard", "out", "--follow")
        assert ended.code == 0, ended.err
        assert not list(left)
        counts = [line for line in ended.err.splitlines() if line.endswith(" trials have ended")]
        return [count.removesuffix(" trials have ended") for count in counts]

    return follow


def read(folder: Path, ablation: Ablation) -> Runs:
    return read_runs(ablation, known(ablation, folder), Store(folder / "runs"), Asked())


def statuses(folder: Path, ablation: Ablation) -> Counter[str]:
    return Counter(run.status for run in read(folder, ablation).of_trials)


def table_ends(folder: Path, ablation: Ablation) -> None:
    for planned in known(ablation, folder):
        if not planned.tunes:
            record(folder, planned, 0.5)


# --- until nothing goes on --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("diverges", [False, True])
def test_a_table_is_followed_as_it_is_chosen_and_one_that_never_is_is_not_waited_for(
    tmp_path: Path, quick: Path, follow: Follow, diverges: bool
) -> None:
    ablation = ablation_of(tmp_path)

    def step(mix: str, tunes: bool) -> Callable[[], None]:
        score = None if diverges and mix == "untied" else 0.5
        return lambda: end_of(tmp_path, ablation, mix, tunes, score)

    steps = [step(*one) for one in (STEPS[:-1] if diverges else STEPS)]
    last = ["14 of 14"] if diverges else ["14 of 16", "16 of 16"]
    assert follow(*steps) == ["0 of 16", "6 of 16", "8 of 16", *last]


def test_a_grid_of_nothing_but_a_choice_that_is_lost_is_over_at_once(
    tmp_path: Path, quick: Path, follow: Follow
) -> None:
    ablation = ablation_of(tmp_path)
    for mix in ("tied", "untied"):
        end_of(tmp_path, ablation, mix, True, None)
    assert follow() == ["12 of 12"]


@pytest.mark.parametrize(("place", "name", "first"), [(export, "find", "12 of 16"), (of_runs, "read_runs", "12 of 16")])
def test_a_choice_that_is_made_during_a_look_is_seen_at_the_next(
    tmp_path: Path, quick: Path, follow: Follow, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, first: str
) -> None:
    """All that tune end once the trials are listed, or once they are known and before their runs are read."""
    ablation, whole = ablation_of(tmp_path), getattr(place, name)

    def end_all() -> None:
        for mix in ("tied", "untied"):
            end_of(tmp_path, ablation, mix, True)

    def find(*arguments: Any) -> Any:
        found = whole(*arguments)
        end_all()
        return found

    def read_runs(*arguments: Any) -> Any:
        end_all()
        return whole(*arguments)

    def once(*arguments: Any) -> Any:
        monkeypatch.setattr(place, name, whole)
        return {"find": find, "read_runs": read_runs}[name](*arguments)

    monkeypatch.setattr(place, name, once)
    assert follow(lambda: table_ends(tmp_path, ablation)) == [first, "12 of 16", "16 of 16"]


def test_what_halving_has_pruned_has_ended(tmp_path: Path, quick: Path, follow: Follow) -> None:
    ablation = halved(tmp_path)
    steps = [
        lambda: come_to(tmp_path, ablation, 3, rate),
        lambda: come_to(tmp_path, ablation, 6, rate),
        lambda: end(tmp_path, ablation, 0.5),
        lambda: table_ends(tmp_path, ablation),
    ]
    assert follow(*steps) == ["0 of 9", "4 of 9", "6 of 9", "8 of 9", "9 of 9"]
    assert statuses(tmp_path, ablation) == {"done": 3, "pruned": 6}


def test_what_is_paused_is_waited_for_until_a_failure_keeps_the_choice_from_being_made(
    tmp_path: Path, quick: Path, follow: Follow
) -> None:
    ablation = halved(tmp_path)
    first, *others = known(ablation, tmp_path)
    for planned in others:
        evaluate(tmp_path, planned, {3: rate(planned)})
    assert follow(lambda: record(tmp_path, first, 0.5, **KILLED)) == ["0 of 9", "1 of 8"]
    assert statuses(tmp_path, ablation) == {"failed": 1, "paused": 7}


# --- their runs -------------------------------------------------------------------------------------------------------


def test_a_run_that_halving_has_stopped_says_so_and_has_its_curve(tmp_path: Path, quick: Path) -> None:
    ablation = halved(tmp_path)
    assert statuses(tmp_path, ablation) == {"missing": 8}
    evaluate(tmp_path, known(ablation, tmp_path)[0], {3: 0.001})
    assert statuses(tmp_path, ablation) == {"paused": 1, "missing": 7}
    come_to(tmp_path, ablation, 3, rate)
    runs = read(tmp_path, ablation).of_trials
    assert {(run.config["train.learning_rate"], run.status) for run in runs} == {
        (0.001, "pruned"), (0.01, "pruned"), (0.1, "missing"), (0.3, "missing")
    }  # fmt: skip
    assert all([step for step, _ in run.points] == [3] for run in runs)
    record(tmp_path, known(ablation, tmp_path)[0], 0.5, **KILLED)  # after it: what is pruned is not trained again
    pruned = read(tmp_path, ablation).of_trials[0]
    assert (pruned.status, pruned.why, pruned.has_ended, pruned.final) == ("pruned", "", True, {})
    record(tmp_path, known(ablation, tmp_path)[0], 0.5)  # of a run without halving
    assert read(tmp_path, ablation).of_trials[0].status == "done"


def test_mlflow_ends_a_run_that_is_pruned_and_has_one_wait_that_is_paused(
    tmp_path: Path, quick: Path, run: Command
) -> None:
    from mlflow import MlflowClient

    def found() -> list[tuple[str, bool]]:
        ended = run("export", "a.yaml", "--to", "mlflow", "out")
        assert ended.code == 0, ended.err
        uri = f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}"
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        (experiment,) = [one for one in client.search_experiments() if one.name == "a"]
        infos = [one.info for one in client.search_runs([experiment.experiment_id])]
        return [(str(info.status), info.end_time is not None) for info in infos]

    ablation = halved(tmp_path)
    for planned in known(ablation, tmp_path)[1:]:
        evaluate(tmp_path, planned, {3: rate(planned)})
    assert Counter(found()) == {("SCHEDULED", False): 8}
    come_to(tmp_path, ablation, 3, rate)
    assert Counter(found()) == {("SCHEDULED", False): 4, ("KILLED", True): 4}


@pytest.mark.parametrize(
    ("status", "has_ended"),
    [("done", True), ("failed", True), ("pruned", True), ("paused", False), ("running", False), ("missing", False)],
)
def test_what_may_go_on_has_not_ended(tmp_path: Path, quick: Path, status: str, has_ended: bool) -> None:
    from dataclasses import replace

    run: Run = read(tmp_path, halved(tmp_path)).of_trials[0]
    assert replace(run, status=status).has_ended == has_ended
