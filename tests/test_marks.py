"""Which cells are marked, and with what sentence: fewer pairs, other commits, other environments, other threads."""

import math
from pathlib import Path
from typing import Any

import pytest

from analysis.frame import trials_frame
from tests.test_report_files import COMMIT, MIXING, OTHER, Bench, record

GRID = {MIXING: ["tied", "untied"], "seed": [0, 1, 2]}
REPORT = {"rows": [MIXING], "baseline": {MIXING: "tied"}}
TIED, UNTIED = (0.5, 0.6, 0.7), (0.7, 0.9, 0.8)


@pytest.fixture
def bench(tmp_path: Path, cache: Path) -> Any:
    return lambda **keys: Bench(tmp_path, cache, **{"grid": GRID, "report": REPORT, **keys})


def on(*places: tuple[str, Any]) -> dict[str, Any]:
    """Parts of a record whose sessions ran so, one after another: device and threads."""
    backends = [{"name": "torch", "device": device, "threads": threads} for device, threads in places]
    environment = {"commit": COMMIT, "dirty": False, "processor": "x", "packages": {}, "backend": backends[-1]}
    sessions = [{"first_step": i, "commit": COMMIT, "dirty": False, "backend": one} for i, one in enumerate(backends)]
    return {"environment": environment, "sessions": sessions}


def one_by_one(made: Bench, accuracies: tuple[float, ...], *parts: dict[str, Any]) -> Bench:
    return made.put(*(record(value, **part) for value, part in zip(accuracies, parts, strict=True)))


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_a_cell_that_lacks_one_pair_is_marked(bench: Any) -> None:
    made = bench().put(*map(record, TIED[:2]), None, *map(record, UNTIED))
    assert "80.0 ± 10.0 (3) +25.0†" in made.text()
    assert "token_mixing=untied: its difference is over the 2 seeds that the baseline has too" in made.text()
    whole = bench().put(*map(record, TIED), *map(record, UNTIED))
    assert "†" not in whole.text()


def test_without_any_pair_the_difference_is_that_of_the_means_and_is_marked(bench: Any) -> None:
    made = bench().put(record(0.5), record(0.6), None, None, None, record(0.8))
    (cell,) = (row for _, row in made.report().table.iterrows() if row[MIXING] == "untied")
    assert cell["difference"] == pytest.approx(0.25) and cell["pairs"] == 0 and math.isnan(cell["p"])
    assert (
        "token_mixing=untied: no seed has a pair in the baseline, so its difference is that of the means" in made.text()
    )


# --- commits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(OTHER, COMMIT), (COMMIT, OTHER)])
def test_a_trial_that_went_on_under_another_commit_is_of_both(bench: Any, order: tuple[str, str]) -> None:
    sessions = [{"commit": commit, "dirty": False, "backend": {}} for commit in order]
    made = bench(grid={"seed": [0]}, report={}).put(record(0.5, sessions=sessions))
    frame = trials_frame(made.ablation, made.trials, made.store)
    assert frame["commit"][0] == " ".join(commit[:12] for commit in order)
    (cell,) = (row for _, row in made.report().table.iterrows())
    assert cell["commits"] == (COMMIT[:12], OTHER[:12]) and math.isnan(cell["mean"])


# --- environments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["device", "processor", "packages", "threads"])
def test_a_baseline_of_the_same_commit_in_another_environment_is_marked(bench: Any, what: str) -> None:
    there = on(("cpu", "2"))
    about = there["environment"]
    changed = {"device": {"backend": {"device": "cuda"}}, "threads": {"backend": {"device": "cpu", "threads": "1"}},
               "processor": {"processor": "y"}, "packages": {"packages": {"numpy": "1"}}}[what]  # fmt: skip
    here = {"environment": {**about, **changed}, "sessions": [{"commit": COMMIT, "backend": {}}]}
    made = one_by_one(bench(), TIED + UNTIED, *[there] * 3, *[here] * 3)
    assert [cell["unlike"] for _, cell in made.report().table.iterrows()] == [False, True]
    assert (
        "+20.0†" in made.text() and "token_mixing=untied: its baseline ran under another commit, or in" in made.text()
    )
    word = {"device": "device and threads (cpu with 2 threads; cuda)",
            "threads": "device and threads (cpu with 1 thread; cpu with 2 threads)"}.get(what, what)  # fmt: skip
    assert f"bits depend on {word}\n" in made.text()


def test_trials_on_other_numbers_of_threads_mark_their_cell(bench: Any) -> None:
    two, one = on(("cpu", "2")), on(("cpu", "1"))
    made = one_by_one(bench(), TIED + UNTIED, two, two, two, two, one, two)
    line = "token_mixing=untied: its trials ran in 2 environments; bits depend on device and threads "
    assert f"{line}(cpu with 1 thread; cpu with 2 threads)" in made.text()
    assert "+20.0†" in made.text() and "token_mixing=tied: its trials" not in made.text()
    html = (made.write() / "report.html").read_text()
    assert "5 trials: commit aaaaaaaaaaaa; cpu with 2 threads" in html and "cpu with 1 thread, x" in html
    alone = one_by_one(bench(report={"rows": [MIXING]}), TIED + UNTIED, two, two, two, two, one, two)
    assert "80.0 ± 10.0 (3)†" in alone.text() and "60.0 ± 10.0 (3)†" not in alone.text()
    alike = one_by_one(bench(), TIED + UNTIED, *[two] * 6)
    assert "†" not in alike.text()


def test_a_trial_that_went_on_with_other_threads_or_elsewhere_marks_its_cell(bench: Any) -> None:
    two = on(("cpu", "2"))
    moved = on(("cpu", "2"), ("cpu", "1"), ("cpu", "1"), ("cpu", "2"))
    made = one_by_one(bench(), TIED + UNTIED, *[two] * 4, moved, two)
    frame = made.report().frame
    assert frame["ran_on"][4] == "cpu with 2 threads, then cpu with 1 thread, then cpu with 2 threads"
    assert frame["threads"][4] == 2
    assert "token_mixing=untied: its trials ran in 2 environments" in made.text()
    elsewhere = one_by_one(bench(), TIED + UNTIED, *[two] * 4, on(("cuda", "2"), ("cpu", "2")), two)
    assert "bits depend on device and threads (cpu with 2 threads; cuda)" in elsewhere.text()


def test_threads_of_the_host_of_a_gpu_mark_nothing(bench: Any) -> None:
    made = one_by_one(bench(), TIED + UNTIED, *[on(("NVIDIA H100", str(i + 1))) for i in range(6)])
    assert "†" not in made.text() and "threads" not in made.text()


def test_trials_that_trained_as_one_program_and_trials_alone_mark_their_cell(bench: Any) -> None:
    """A record of before says nothing of it, and is of a trial alone."""
    two, many = on(("cpu", "2")), {**on(("cpu", "2")), "replicas": 8}
    unfinished = bench().put(*(record(0.5, **part) for part in (many, many, two)), record(0.6, **many))
    assert "bits depend on trials in a program (1; 8)\n" in unfinished.text() and "missing" in unfinished.text()
    made = one_by_one(bench(), TIED + UNTIED, two, {**two, "replicas": 1}, two, many, many, two)
    assert list(made.report().frame["replicas"]) == [1, 1, 1, 8, 8, 1]
    line = "token_mixing=untied: its trials ran in 2 environments; bits depend on trials in a program (1; 8)\n"
    assert line in made.text() and "+20.0†" in made.text() and "token_mixing=tied: its trials" not in made.text()
    alike = one_by_one(bench(), TIED + UNTIED, *[many] * 6)
    assert "†" not in alike.text()
