"""Two sets of runs side by side: which trials are the same, and tests of settings over seeds."""

import json
import math
import shutil
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from analysis.run_sets import RunSet, matched
from analysis.terminal.compare import compare_lines
from tests.conftest import command
from tests.test_report_files import MIXING, OTHER, Bench, record

METRIC = "last.test.accuracy"
SHIFTS = (0.010, 0.002, 0.015)  # of three seeds
Runs = Mapping[tuple[str, str, int], float]  # token mixing, backend, seed -> accuracy


@pytest.fixture
def bench(tmp_path: Path, cache: Path) -> Any:
    return lambda **keys: Bench(tmp_path, cache, **keys)


def run_set(name: str, runs: Runs) -> RunSet:
    found = {}
    for (mixing, backend, seed), accuracy in runs.items():
        spec = {"model": {"token_mixing": mixing}, "backend": backend, "seed": seed}
        found[f"{mixing}{backend}{seed}"] = {**record(accuracy), "id": f"{mixing}{backend}{seed}", "spec": spec}
    return RunSet(name, Path(name), found)


def lines(first: Runs, second: Runs) -> list[str]:
    return compare_lines(run_set("a", first), run_set("b", second), METRIC)


def setting_lines(first: Runs, second: Runs) -> list[str]:
    return [line for line in lines(first, second) if "minus" in line]


def runs(shifts: Mapping[tuple[str, str], tuple[float, ...]]) -> Runs:
    """Accuracies of each mixing and backend: 0.8, 0.81, 0.82, ... and what they are shifted by."""
    return {
        (*where, seed): 0.8 + 0.01 * seed + shift for where, found in shifts.items() for seed, shift in enumerate(found)
    }


def t_test(d: list[float], level: float) -> tuple[float, float, float]:
    """Half the interval, p, and standard errors to its end, from their definition."""
    n, error = len(d), statistics.stdev(d) / math.sqrt(len(d))
    t = abs(statistics.mean(d)) / error
    factor = float(stats.t.ppf((1 + level) / 2, n - 1))
    return factor * error, float(2 * stats.t.sf(t, n - 1)), factor


def line(words: str, d: list[float], num_tests: int = 1, rank: int = 0) -> str:
    """A setting whose interval has the level of its step in Holm's procedure."""
    level = 1 - 0.05 / (num_tests - rank)
    half, p, factor = t_test(d, level)
    mean, p = statistics.mean(d), min(1, p * (num_tests - rank))
    told = f" ({100 * level:.3g} %)" if num_tests - rank > 1 else ""
    interval = f"[{100 * (mean - half):.3f}, {100 * (mean + half):.3f}]{told}"
    n = f"n = {len(d)} seeds (few seeds: the interval is ±{factor:.1f} standard errors)"
    return f"{words}b minus a: {100 * mean:+.3f} points {interval}, {n}, p = {p:.3f}"


def test_a_copy_of_a_framework_or_of_a_part_of_it_changes_no_number() -> None:
    nothing, own = (0.0,) * 3, {("tied", "torch"): SHIFTS}
    single = setting_lines(runs({("tied", "torch"): nothing}), runs(own))
    assert single == [line("", list(SHIFTS))]
    for part in (3, 2, 1):
        copies = dict.fromkeys(("jax", "third"), SHIFTS[:part])
        first = runs({("tied", "torch"): nothing, **{("tied", name): nothing[:part] for name in copies}})
        second = runs({**own, **{("tied", name): found for name, found in copies.items()}})
        assert setting_lines(first, second) == single
        assert any("over seeds on the mean of torch and jax and third" in said for said in lines(first, second))


def test_frameworks_that_differ_are_averaged_seed_by_seed() -> None:
    other = (0.02, 0.0, 0.005)
    first = runs({("tied", "torch"): (0.0,) * 3, ("tied", "jax"): (0.0,) * 3})
    second = runs({("tied", "torch"): SHIFTS, ("tied", "jax"): other})
    assert setting_lines(first, second) == [line("", [(a + b) / 2 for a, b in zip(SHIFTS, other, strict=True)])]


def test_a_seed_that_one_framework_lacks_counts_by_the_other() -> None:
    first = runs({("tied", "torch"): (0.0,) * 3, ("tied", "jax"): (0.0,) * 2})
    second = runs({("tied", "torch"): SHIFTS, ("tied", "jax"): (0.02, 0.0)})
    assert setting_lines(first, second) == [line("", [0.015, 0.001, 0.015])]


def test_settings_are_tested_one_by_one_with_holms_correction() -> None:
    untied, rest = (0.03, 0.031, 0.033), {("grouped", "torch"): (0.0,) * 3}
    first = runs({("tied", "torch"): (0.0,) * 3, ("untied", "torch"): (0.0,) * 3, **rest})
    second = runs({("tied", "torch"): SHIFTS, ("untied", "torch"): untied, **rest})
    found = lines(first, second)
    assert [said for said in found if "minus" in said] == [
        line("token_mixing=tied: ", list(SHIFTS), num_tests=2, rank=1),
        line("token_mixing=untied: ", list(untied), num_tests=2),
    ]
    assert "each setting is tested by a paired t-test over seeds, Holm's correction for 2 settings:" in found
    assert "1 setting without a difference" in found  # grouped, which is no test


def test_a_pair_without_a_number_is_left_out_and_said() -> None:
    first, second = runs({("tied", "torch"): (0.0,) * 4}), runs({("tied", "torch"): (*SHIFTS, math.nan)})
    assert f"1 pair left out below, for lack of {METRIC} on a side" in lines(first, second)
    assert setting_lines(first, second) == [line("", list(SHIFTS))]


def test_two_seeds_say_how_little_their_interval_means() -> None:
    first, second = ({("tied", "torch", seed): value for seed, value in enumerate(found)} for found in
                     ((0.5, 0.6, 0.7), (0.51, 0.62, 0.75)))  # fmt: skip
    two = {key: value for key, value in second.items() if key[2] < 2}
    assert any("±12.7 standard errors" in said for said in lines(first, two))
    one = {key: value for key, value in second.items() if key[2] == 0}
    assert setting_lines(first, one) == ["b minus a: +1.000 points, n = 1 seed"]


def test_compare_says_what_two_stores_and_two_commits_have_in_common(bench: Any, tmp_path: Path) -> None:
    made = bench(grid={MIXING: ["tied", "untied"], "seed": [0, 1]}, report={"rows": [MIXING]})
    made.put(record(0.5), record(0.6), record(0.7, commit=OTHER), record(0.8, commit=OTHER))
    for one in made.trials:
        path = made.store.folder(one.trial.id) / "record.json"
        archive_spec(path, one)
    shutil.copytree(tmp_path / "runs", tmp_path / "theirs")
    same = command(tmp_path, "compare", "runs", "theirs").out
    assert "4 of the same settings, backend and seed" in same and "4 of 4 pairs are equal to the last bit" in same
    path = tmp_path / "theirs" / "trials" / made.trials[1].trial.id / "record.json"
    path.write_text(path.read_text().replace("0.6", "0.61"))
    other = command(tmp_path, "compare", "runs", "theirs").out
    assert "3 of 4 pairs are equal" in other and "seed=1" in other and "+1.000" in other
    apart = command(tmp_path, "compare", "aaaa", "bbbb").out
    assert "0 of the same settings" in apart and "give the runs of each commit a store of their own" in apart
    assert "2 done trials" in command(tmp_path, "compare", "theirs@aaa", "runs@bbb").out
    wrong = command(tmp_path, "compare", "runs", "cccc")
    assert wrong.code == 2 and "no done trial of runs ran under such a commit" in wrong.err
    wrong = command(tmp_path, "compare", "runs", "nowhere")
    assert wrong.code == 2 and "got 'nowhere', which is neither a folder nor a commit" in wrong.err
    assert command(tmp_path, "compare", "runs", "theirs", "--metric", "last.test.acuracy").code == 2


def test_a_record_that_cannot_be_read_is_never_left_out_in_silence(bench: Any, tmp_path: Path) -> None:
    made = bench(grid={MIXING: ["tied"], "seed": [0, 1]}, report={"rows": [MIXING]}).put(record(0.5), record(0.6))
    for one in made.trials:
        archive_spec(made.store.folder(one.trial.id) / "record.json", one)
    shutil.copytree(tmp_path / "runs", tmp_path / "theirs")
    path = tmp_path / "theirs" / "trials" / made.trials[1].trial.id / "record.json"
    path.write_text(path.read_text()[:40])
    said = command(tmp_path, "compare", "runs", "theirs").out.splitlines()
    assert said[0].startswith("runs: 2 done trials; theirs: 1; 1 of the same")
    assert said[1].startswith(f"theirs: 1 record left out, the first: store: {path.relative_to(tmp_path)} is corrupt")


def test_runs_are_compared_with_one_claim_alone() -> None:
    """A field that one side does not know must not pair a trial with whichever comes first."""

    def run(trial: str, accuracy: float, **model: Any) -> dict[str, Any]:
        return {**record(accuracy), "id": trial, "spec": {"model": {"hidden_dim": 8, **model}, "seed": 0}}

    ours = RunSet("a", Path("a"), {"x": run("x", 0.5)})
    theirs = {"y": run("y", 0.9, new="on"), "z": run("z", 0.5, new="off")}
    assert matched(ours, RunSet("b", Path("b"), theirs)) == []
    ((_, other),) = matched(ours, RunSet("b", Path("b"), {"z": theirs["z"]}))
    assert other["id"] == "z"
    assert matched(ours, ours) == []


def archive_spec(path: Path, one: Any) -> None:
    from experiments.spec.trial import as_tree

    written = json.loads(path.read_text())
    path.write_text(json.dumps({**written, "spec": as_tree(one.trial)}, indent=1) + "\n")
