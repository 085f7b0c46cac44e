"""What every tracker is told: the runs of an ablation, the command around them, and the folder they go to."""

import fcntl
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.export import TARGETS, Target
from analysis.export.folder import MARKER
from analysis.export.run import MEAN, TRIAL, TUNING, Asked, Run, Runs
from analysis.export.runs import read_runs
from experiments.results import curves
from experiments.results.store import Store
from experiments.spec.trial import as_tree
from mixlab import export
from tests import exporting
from tests.conftest import Ended, files
from tests.test_report_files import MIXING, OTHER, Bench
from tests.test_tune import ablation_of, known, record, record_all

Command = Callable[..., Ended]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Bench:
    return exporting.store_of(tmp_path_factory.mktemp("runs"), cache)


@pytest.fixture
def own(tmp_path: Path, cache: Path) -> Bench:
    """A store that a test may change, in the folder of its commands."""
    return exporting.store_of(tmp_path, cache)


def read(bench: Bench, asked: Asked = Asked()) -> Runs:  # noqa: B008
    return read_runs(bench.ablation, bench.trials, Store(bench.store.root), asked)


def means(runs: Runs) -> list[Run]:
    return [run for run in runs.runs if run.kind == MEAN]


# --- the runs ---------------------------------------------------------------------------------------------------------


def test_there_is_a_run_for_each_trial_and_one_for_each_cell(bench: Bench) -> None:
    runs = read(bench)
    assert [run.id for run in runs.of_trials] == [one.trial.id for one in bench.trials]
    assert [run.status for run in runs.of_trials] == ["done"] * 6 + ["missing", "failed"]
    assert [(run.group, run.name) for run in runs.of_trials[:3]] == [
        ("token MLP=tied backend=torch", "seed=0"),
        ("token MLP=tied backend=torch", "seed=1"),
        ("token MLP=tied backend=jax", "seed=0"),
    ]
    assert [run.group for run in means(runs)] == list(dict.fromkeys(run.group for run in runs.of_trials))
    assert len({run.title for run in runs.runs}) == len({run.id for run in runs.runs}) == 12


def test_the_run_of_a_cell_has_the_mean_of_the_table(bench: Bench) -> None:
    table, found = bench.report().table, means(read(bench))
    assert [run.config["trials"] for run in found] == table["n"].tolist() == [2, 2, 2, 0]
    for run, mean in zip(found[:3], table["mean"], strict=False):
        assert run.final["last.validation.accuracy"] == pytest.approx(mean, abs=1e-12)
    assert [run.status for run in found] == ["done"] * 3 + ["running"] and found[3].points == ()
    assert {name for run in found for name in run.config if name.startswith("model.")} > {"model.hidden_dim", MIXING}
    assert "seed" not in found[0].config and found[0].config["backend"] == "torch"


def test_a_mean_is_over_the_steps_that_all_have(own: Bench) -> None:
    longer = exporting.outcome(1, points=8)
    own.store.folder(own.trials[1].trial.id).joinpath("record.json").unlink()
    own.put(None, {**longer, "curve": longer["curve"][1::2]})  # steps 2, 4, 6, 8; the other has 1 to 4
    first = means(read(own))[0]
    assert [step for step, _ in first.points] == [2, 4]
    assert first.points[1][1]["validation.accuracy"] == pytest.approx((0.50 + 0.51 * 4 / 8) / 2)


def test_a_trial_has_its_whole_curve_its_fields_and_its_last_numbers(bench: Bench) -> None:
    run, trial = read(bench).of_trials[3], bench.trials[3].trial
    assert [step for step, _ in run.points] == [1, 2, 3, 4]
    assert run.points[0][1] == pytest.approx(
        {"loss": 0.7, "learning_rate": 0.001, "train.accuracy": 0.53 / 4, "train.loss": 0.5,
         "validation.accuracy": 0.53 / 4, "validation.loss": 0.5}
    )  # fmt: skip
    assert (run.final["best.validation.accuracy"], run.final["parameters"]) == (0.53, 100.0)
    tree = as_tree(trial)
    assert run.config["train.batch_size"] == tree["train"]["batch_size"] and run.config["seed"] == trial.seed
    assert (run.started, run.finished, run.asked) == (
        103.0, 203.0, {"token MLP": "tied", "backend": "jax", "seed": 1}
    )  # fmt: skip


def test_a_long_curve_is_not_thinned(own: Bench) -> None:
    own.store.folder(own.trials[0].trial.id).joinpath("record.json").unlink()
    own.put(exporting.outcome(0, points=300))
    assert len(read(own).of_trials[0].points) == 300


def test_a_trial_that_runs_has_what_there_is_so_far(own: Bench) -> None:
    before = read(own).of_trials[exporting.RUNNING]
    exporting.grow(own, 3)
    after = read(own).of_trials[exporting.RUNNING]
    assert [len(run.points) for run in (before, after)] == [2, 3] and after.points[:2] == before.points
    assert not after.final and before.digest != after.digest
    failed = read(own).of_trials[exporting.FAILED]
    assert (failed.status, failed.why, len(failed.points), failed.final) == ("failed", "boom", 1, {})


@pytest.mark.parametrize("line", ["{half", "3", '{"step": "4"}'])
def test_a_trial_that_failed_has_its_newest_evaluations_and_one_that_is_done_those_of_its_record(
    own: Bench, line: str
) -> None:
    """A trial that goes on after a failure evaluates anew, and its record of the failure stays until it ends."""

    def steps(i: int, told: str) -> list[int]:
        (own.store.folder(own.trials[i].trial.id) / curves.FILE).write_text(told)
        return [step for step, _ in read(own).of_trials[i].points]

    newer = "".join(json.dumps(point) + "\n" for point in exporting.outcome(7)["curve"][:3])
    assert steps(exporting.FAILED, newer) == [1, 2, 3] and steps(exporting.FAILED, f"{newer}{line}\n") == [1]
    assert steps(0, newer) == [1, 2, 3, 4]
    assert steps(exporting.RUNNING, newer) == [1, 2, 3] and steps(exporting.RUNNING, f"{newer}{line}\n") == []


def test_test_numbers_are_left_out_unless_they_are_asked_for(bench: Bench) -> None:
    def numbers(runs: Runs) -> set[float]:
        return {
            value
            for run in runs.runs
            for values in (run.final, *dict(run.points).values())
            for value in values.values()
        }

    def names(runs: Runs) -> set[str]:
        return {name for run in runs.runs for values in (run.final, *dict(run.points).values()) for name in values}

    assert exporting.TEST not in numbers(read(bench))
    assert [name for name in names(read(bench)) if "test" in name] == []
    shown = read(bench, Asked(with_test=True))
    assert exporting.TEST in numbers(shown)
    assert names(shown) - names(read(bench)) == {
        *(f"{when}test.{metric}" for when in ("", "last.", "best.") for metric in ("accuracy", "loss"))
    }


def test_a_cell_of_several_commits_has_no_mean_unless_it_is_asked_for(own: Bench) -> None:
    own.store.folder(own.trials[1].trial.id).joinpath("record.json").unlink()
    own.put(None, exporting.outcome(1, commit=OTHER))
    assert read(own).mixed == ("token MLP=tied backend=torch",) and not means(read(own))[0].points
    mixed = read(own, Asked(mix_commits=True))
    assert mixed.mixed == () and mixed.runs[0].config["trials"] == 2


def test_trials_that_tune_are_a_group_of_their_own_and_in_no_mean(tmp_path: Path, quick: Path) -> None:
    ablation = ablation_of(tmp_path)
    record_all(tmp_path, ablation, lambda planned: 0.5)
    trials = known(ablation, tmp_path)
    for planned in trials:
        if not planned.tunes:
            record(tmp_path, planned, 0.9)
    runs = read_runs(ablation, trials, Store(tmp_path / "runs"))
    tuning = [run for run in runs.runs if run.kind == TUNING]
    assert len(tuning) == sum(planned.tunes for planned in trials) > 0
    assert {run.group for run in tuning} == {TUNING} and all("learning_rate=" in run.name for run in tuning)
    assert all(run.final["last.validation.accuracy"] == pytest.approx(0.9) for run in means(runs))
    assert sum(run.config["trials"] for run in means(runs)) == len(trials) - len(tuning)
    assert TUNING not in {run.group for run in runs.runs if run.kind != TUNING}
    assert len({run.title for run in runs.runs}) == len(runs.runs) and {run.kind for run in runs.runs} == {
        TRIAL, MEAN, TUNING
    }  # fmt: skip


def test_runs_of_the_same_words_are_told_apart_by_id(own: Bench) -> None:
    twice = read_runs(own.ablation, [*own.trials[:1], *own.trials[:1]], own.store)
    assert all(run.name == f"seed=0 {run.id}" for run in twice.of_trials)


# --- the command ------------------------------------------------------------------------------------------------------


def test_a_package_that_is_missing_is_a_sentence_with_its_command(
    run: Command, own: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    for name, target in TARGETS.items():
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda asked, *_, gone=target.package: None if asked == gone else found(asked)
        )
        ended = run("export", "one", "--to", name, "out")
        assert ended.code == 2 and f"the package {target.package} is not installed" in ended.err, ended
        assert f"'.[{target.extra}]'" in ended.err and len(ended.err.splitlines()) == 1
        assert not Path("out").exists()
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked, *_: None if asked == "alembic" else found(asked))
    assert "the package alembic is not installed" in run("export", "one", "--to", "mlflow", "out").err


def test_what_is_of_runs_alone_is_refused_where_weights_are_exported(
    run: Command, own: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TARGETS, "weights", Target("json", "none", of_runs=False, has_numbers=False))
    asked: list[tuple[int, Path]] = []
    monkeypatch.setattr(
        export, "exporter", lambda name: lambda store, selection, out: asked.append((len(selection.labels), out)) or []
    )
    for option in ("--follow", "--test", "--mix-commits"):
        ended = run("export", "one", "--to", "weights", "out", option)
        assert ended.code == 2 and option in ended.err and len(ended.err.splitlines()) == 1
    assert run("export", "one", "--to", "weights", "out").code == 0 and asked == [(8, Path("out"))]


def test_only_with_test_numbers_an_export_is_noted(run: Command, own: Bench) -> None:
    before = files(own.store.root)
    noted = own.store.root / "ablations" / "one" / "unsealed"
    assert run("export", "one", "--to", "tensorboard", "out").code == 0
    after = files(own.store.root)
    assert {name for name in after if after[name] != before.get(name)} <= {"ablations/one/records.parquet"}
    assert run("export", "one", "--to", "tensorboard", "out", "--test").code == 0
    (first,) = files(noted)
    assert run("export", "one", "--to", "tensorboard", "out", "--test").code == 0
    assert list(files(noted)) == [first]


def test_an_ablation_is_named_or_a_file(run: Command, own: Bench) -> None:
    named = run("export", "one", "--to", "tensorboard", "a")
    by_file = run("export", "--to", "tensorboard", "one.yaml", "b", "seed=[0]")
    assert (named.code, by_file.code) == (0, 0), by_file.err
    assert "8 runs of trials, 4 of cells" in named.out and "4 runs of trials, 4 of cells" in by_file.out
    assert run("export", "two", "--to", "tensorboard", "c").code == 2


def test_cells_without_a_mean_are_told(run: Command, own: Bench) -> None:
    own.store.folder(own.trials[1].trial.id).joinpath("record.json").unlink()
    own.put(None, exporting.outcome(1, commit=OTHER))
    assert "no mean of 1 cells" in run("export", "one", "--to", "tensorboard", "out").out
    assert "no mean" not in run("export", "one", "--to", "tensorboard", "out", "--mix-commits").out


def test_what_grows_is_followed_until_all_trials_have_ended(
    run: Command, own: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[int]] = []
    steps: list[Callable[[], Any]] = [
        lambda: None,  # nothing new: nothing is written
        lambda: exporting.grow(own, 3),
        lambda: exporting.grow(own, 4),
        lambda: exporting.finish(own),
    ]
    monkeypatch.setattr(export, "exporter", lambda name: lambda runs, folder: _note(told, runs))
    monkeypatch.setattr(export.time, "sleep", lambda s: steps.pop(0)())
    ended = run("export", "one", "--to", "tensorboard", "out", "--follow")
    assert ended.code == 0 and not steps
    assert [counts[exporting.RUNNING] for counts in told] == [2, 3, 4, 4]
    assert [line for line in ended.err.splitlines() if line.endswith("have ended")] == [
        "7 of 8 trials have ended", "7 of 8 trials have ended", "7 of 8 trials have ended", "8 of 8 trials have ended"
    ]  # fmt: skip


def _note(told: list[list[int]], runs: Runs) -> list[str]:
    told.append([len(run.points) for run in runs.of_trials])
    return []


def test_ctrl_c_ends_it_in_one_line(run: Command, own: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(export.time, "sleep", stop)
    ended = run("export", "one", "--to", "tensorboard", "out", "--follow")
    assert ended.code == 130 and ended.err.splitlines() == ["7 of 8 trials have ended", "mixlab: stopped"]
    assert run("export", "one", "--to", "tensorboard", "out").code == 0  # the folder is free again


# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_folder_of_others_is_left_alone(run: Command, own: Bench, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = files(tmp_path)
    for name, why in (("full", "'thesis.tex' in it"), ("file", "got the file")):
        ended = run("export", "one", "--to", "tensorboard", name)
        assert ended.code == 2 and why in ended.err and len(ended.err.splitlines()) == 1
    after = files(tmp_path)
    assert {name for name in after if after[name] != before.get(name)} <= {"runs/ablations/one/records.parquet"}


def test_a_folder_is_of_one_target_and_of_one_process(run: Command, own: Bench, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert run("export", "one", "--to", "tensorboard", "out").code == 0  # an empty folder will do
    marker = tmp_path / "out" / MARKER
    with (tmp_path / "out" / f".{MARKER}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = run("export", "one", "--to", "tensorboard", "out")
    assert ended.code == 2 and "another mixlab export" in ended.err
    marker.write_text(marker.read_text().replace("tensorboard", "wandb"))
    ended = run("export", "one", "--to", "tensorboard", "out")
    assert ended.code == 2 and "holds an export to wandb" in ended.err
    marker.write_text("{")
    ended = run("export", "one", "--to", "tensorboard", "out")
    assert ended.code == 2 and "damaged" in ended.err and len(ended.err.splitlines()) == 1
