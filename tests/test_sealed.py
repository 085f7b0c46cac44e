"""Test numbers are shown by a report alone, and a grid that grows after it says so."""

import errno
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from experiments import clock
from experiments.results import metrics, unsealed
from experiments.results.store import Store
from tests.conftest import Ended, base, files, planned, records, write_yaml

Run = Callable[..., Ended]
MIXING = "model.token_mixing"
GRID: dict[str, list[Any]] = {MIXING: ["tied", "untied"], "seed": [0, 1]}
REPORT = {"rows": [MIXING], "baseline": {MIXING: "tied"}}
TEST = 0.123456  # a number that no validation split of a few examples can have
JOINED = "joined the grid after a report with test numbers"


@pytest.fixture
def trained(run: Run, tmp_path: Path, quick_package: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of tiny.yaml, trained, with TEST as each trial's accuracy and loss on test."""
    monkeypatch.syspath_prepend(str(quick_package))
    write_yaml(tmp_path / "tiny.yaml", base=base(backend="quick"), grid=GRID, report=REPORT)
    assert run("run", "tiny.yaml").code == 0
    for key, record in records(tmp_path / "runs").items():
        for point in (*record["metrics"].values(), *record["curve"]):
            point["test"] = {"accuracy": TEST, "loss": TEST}
        (tmp_path / "runs" / "trials" / key / "record.json").write_text(json.dumps(record))
    return tmp_path


def extended(folder: Path, **grid: list[Any]) -> Path:
    return write_yaml(folder / "tiny.yaml", base=base(backend="quick"), grid={**GRID, **grid}, report=REPORT)


@pytest.mark.parametrize("name", metrics.names())
def test_only_a_metric_of_test_is_sealed(name: str) -> None:
    when, split, metric = name.split(".", 2)
    metric = "accuracy" if metric == "real" else metric  # right classes are of test examples alone
    assert metrics.sealed(name) == (f"{when}.validation.{metric}" if split == "test" else name)


def test_run_and_status_show_no_test_number(run: Run, trained: Path) -> None:
    ended = run("run", "tiny.yaml")
    said = [ended, run("run", "tiny.yaml", "seed=[0,1,2]"), run("status", "tiny"), run("status", "tiny", "--watch")]
    assert [one.code for one in said] == [0] * 4
    assert [one for one in said if "12.3" in one.out + one.err or "0.123" in one.out + one.err] == []
    assert "last.validation.accuracy in %" in ended.out and "untied" in ended.out
    assert ended.out.splitlines()[-1] == "test numbers: mixlab report tiny"
    assert "12.3 ± 0.0 (2)" in run("report", "tiny.yaml").out


def looks(folder: Path) -> list[Path]:
    return list((folder / "runs" / "ablations" / "tiny" / "unsealed").glob("*"))


@pytest.mark.parametrize("words", [("--test",), ("--predictions", "best.test")])
def test_show_shows_test_numbers_where_they_are_asked_for_and_counts_it_as_a_look(
    run: Run, trained: Path, words: tuple[str, ...]
) -> None:
    key = min(records(trained / "runs"))
    curve = trained / "runs" / "trials" / key / "metrics.jsonl"
    points = [json.loads(line) for line in curve.read_text().splitlines()]
    told = [json.dumps({**point, "test": {"accuracy": TEST, "loss": TEST}}) for point in points]
    curve.write_text("\n".join(told) + "\n")
    shown = run("show", key)
    assert shown.code == 0 and "test accuracy" not in shown.out and "0.1235" not in shown.out
    assert "validation accuracy" in shown.out and shown.out.endswith(f"test numbers: mixlab show {key} --test\n")
    assert "best.validation: " in run("show", key, "--predictions", "best.validation").out and looks(trained) == []
    shown = run("show", key, *words)
    assert "test accuracy" in shown.out and "0.1235" in shown.out and len(looks(trained)) == 1
    assert run("report", "tiny.yaml").code == 0 and len(looks(trained)) == 1  # of the same trials
    extended(trained, seed=[0, 1, 2])
    assert f"2 of 6 trials {JOINED}" in run("run", "tiny.yaml").out


def test_compare_on_a_metric_of_test_is_a_look(run: Run, trained: Path) -> None:
    assert run("compare", "runs", "--metric", "last.validation.accuracy").code == 0 and looks(trained) == []
    shutil.copytree(trained / "runs", trained / "theirs")
    assert run("compare", "runs", "theirs").code == 0
    assert len(looks(trained)) == 1 and (trained / "theirs" / "ablations" / "tiny" / "unsealed").exists()


def test_a_look_at_a_trial_is_noted_for_the_ablations_that_have_it_alone(run: Run, trained: Path) -> None:
    write_yaml(trained / "other.yaml", base=base(backend="quick"), grid={"seed": [7]})
    assert run("run", "other.yaml").code == 0
    store, held = Store(trained / "runs"), set(records(trained / "runs"))
    broken = store.ablation("broken")
    broken.mkdir()
    (broken / "resolved.json").write_text("{")
    (own,) = held - {one.trial.id for one in planned(trained / "tiny.yaml", store.data)}
    assert run("show", own, "--test").code == 0
    assert looks(trained) == [] and (store.ablation("other") / "unsealed").exists()


def test_the_line_on_test_numbers_names_the_store(run: Run, trained: Path) -> None:
    (trained / "runs").rename(trained / "my runs")
    assert run("run", "tiny.yaml", "--store", "my runs").out.endswith("mixlab report tiny --store 'my runs'\n")


def test_without_validation_examples_run_shows_no_table_and_says_so(run: Run, trained: Path) -> None:
    data, train = {"validation_fraction": 0.0}, {"label_smoothing": 0.25}  # of which the backend dies
    write_yaml(trained / "bare.yaml", base=base(backend="quick", data=data, train=train))
    ended = run("run", "bare.yaml")
    assert ended.code == 1 and "bare: 0 of 2 trials are done" in ended.out and "boom" in ended.out
    assert "without a validation split (data.validation_fraction) there are only test numbers" in ended.out
    assert "±" not in ended.out and ended.out.splitlines()[-1] == "test numbers: mixlab report bare"


def test_trials_that_join_after_a_report_are_counted_under_the_table(run: Run, trained: Path) -> None:
    assert JOINED not in run("report", "tiny.yaml").out
    extended(trained, **{MIXING: ["tied", "untied", "pooling"]})
    assert JOINED not in run("report", "tiny.yaml").out  # they are not done, and have no numbers
    shown = run("run", "tiny.yaml")
    for text in (shown.out, run("report", "tiny.yaml").out, run("report", "tiny.yaml").out):
        assert f"2 of 6 trials {JOINED}" in text
    assert f"2 of 6 trials {JOINED}" in (trained / "runs/ablations/tiny/report/report.md").read_text()
    joined = [row["added"] != "" for row in rows(trained)]
    assert joined == [False] * 4 + [True] * 2


def rows(folder: Path) -> list[dict[str, str]]:
    import csv

    with (folder / "runs/ablations/tiny/report/tidy.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_grid_that_was_whole_in_its_first_report_has_not_grown(run: Run, trained: Path) -> None:
    """Also where some of its trials were not done then, and where a part of it was looked at between."""
    extended(trained, seed=[0, 1, 2])
    assert JOINED not in run("report", "tiny.yaml").out
    assert run("report", "tiny.yaml", "seed=[0]", "--format", "text").code == 0
    assert run("run", "tiny.yaml").code == 0
    assert JOINED not in run("report", "tiny.yaml").out


def test_a_report_of_other_data_says_nothing_of_these(run: Run, trained: Path) -> None:
    assert run("report", "tiny.yaml").code == 0
    assert run("run", "tiny.yaml", "data.num_examples=80").code == 0
    assert JOINED not in run("report", "tiny.yaml", "data.num_examples=80").out


@pytest.mark.parametrize(
    ("words", "is_noted"),
    [
        ((), True),
        (("--format", "json"), True),
        (("--metric", "best.test.loss", "--format", "text"), True),
        (("--metric", "last.validation.accuracy"), True),  # its files hold test numbers beside
        (("--metric", "last.validation.accuracy", "--format", "text"), False),
    ],
)
def test_what_shows_test_numbers_is_noted_once(run: Run, trained: Path, words: tuple[str, ...], is_noted: bool) -> None:
    folder = trained / "runs" / "ablations" / "tiny" / "unsealed"
    assert run("report", "tiny.yaml", *words).code == 0
    noted = files(folder)
    assert len(noted) == is_noted
    assert run("report", "tiny.yaml", *words).code == 0
    assert files(folder) == noted


def test_a_look_that_cannot_be_noted_is_told(run: Run, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*given: Any, **keys: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("experiments.files.replace", read_only)
    ended = run("report", "tiny.yaml", "--format", "text")
    assert ended.code == 0 and "12.3 ± 0.0 (2)" in ended.out
    assert "mixlab: test numbers were shown and this is not noted" in ended.err
    assert "the file system is read-only" in ended.err


def test_a_report_without_a_done_trial_unseals_nothing(run: Run, tmp_path: Path) -> None:
    write_yaml(tmp_path / "tiny.yaml", grid=GRID, report=REPORT)
    assert run("report", "tiny.yaml").code == 0
    assert not (tmp_path / "runs" / "ablations" / "tiny" / "unsealed").exists()


def test_the_first_report_of_a_content_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, times = Store(tmp_path), iter([100_000.0, 200_000.0, 300_000.0])
    monkeypatch.setattr(clock, "now", lambda root: next(times))
    unsealed.note(store, "a", {"t1": "x"})
    unsealed.note(store, "a", {"t1": "x", "t2": "x", "u": "y"})
    unsealed.note(store, "a", {"t1": "x"})  # known: it asks for no time
    assert unsealed.added(store, "a", {"t1": "x", "t2": "x", "t3": "x", "u": "y", "v": "z"}) == {
        "t2": "1970-01-02", "t3": "1970-01-02"
    }  # fmt: skip
    assert unsealed.added(store, "b", {"t3": "x"}) == {}
    assert next(times) == 300_000.0


def test_reports_at_once_lose_none_and_a_damaged_note_says_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    grids = [{f"{grid}{i}": f"content{grid}" for i in range(50)} for grid in range(8)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda grid: unsealed.note(store, "a", grid), 4 * grids))
    (tmp_path / "ablations/a/unsealed/damaged.json").write_text('{"at": 0.0, "contents": ')
    assert len(list((tmp_path / "ablations" / "a" / "unsealed").iterdir())) == 8 + 1
    for place in range(8):
        assert list(unsealed.added(store, "a", {"new": f"content{place}", f"{place}0": f"content{place}"})) == ["new"]


def test_the_ablations_of_a_store_are_those_that_were_run(run: Run, tmp_path: Path) -> None:
    """A report of a file that was never run under this name leaves a note and no ablation."""
    store = Store(tmp_path / "runs")
    write_yaml(tmp_path / "tiny.yaml")
    keys = [one.trial.id for one in planned(tmp_path / "tiny.yaml", store.data)]
    unsealed.note(store, "tiny", dict.fromkeys(keys, "x"))
    assert store.ablations() == []
