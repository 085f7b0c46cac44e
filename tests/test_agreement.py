"""Two runs example by example: McNemar's test of a pair of runs, and how far two frameworks say the same."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis.examples import Examples, mcnemar
from analysis.inference import crossed
from analysis.run_sets import RunSet
from analysis.terminal.compare import compare_lines, set_lines
from backends.arrays import Array
from experiments.results.store import Store
from tests.test_class_lines import keep
from tests.test_report_files import record

METRIC = "last.test.accuracy"
NUM = 20
Said = Mapping[tuple[str, str, int], Array | None]  # mixing, framework, seed -> classes said of examples of class 0


def wrong(*places: int, as_class: int = 1) -> Array:
    """Right of all examples but these."""
    said = np.zeros(NUM, np.int64)
    said[list(places)] = as_class
    return said


def run_set(root: Path, said: Said, content: str = "content") -> RunSet:
    found: dict[str, Any] = {}
    for (mixing, backend, seed), classes in said.items():
        key, spec = f"{mixing}{backend}{seed}", {"model": {"mixing": mixing}, "backend": backend, "seed": seed}
        accuracy = 0.5 if classes is None else float(np.mean(classes == 0))
        found[key] = {**record(accuracy), "id": key, "spec": spec}
        if classes is not None:
            keep(Store(root).folder(key), np.zeros(NUM, np.int64), classes, content=content)
    return RunSet(root.name, root, found)


@pytest.mark.parametrize("alone", [*product((0, 1, 3, 12), (0, 2, 7))])
def test_the_test_of_two_runs_is_that_of_a_fair_coin(alone: tuple[int, int]) -> None:
    n10, n01 = alone
    p = stats.binomtest(n10, n10 + n01).pvalue if n10 + n01 else 1.0
    assert mcnemar(Examples(30, 30 - n10 - n01, n10, n01)) == pytest.approx(p, rel=1e-12)


def test_a_pair_of_runs_is_tested_on_the_examples_that_one_of_both_has_right(tmp_path: Path) -> None:
    first = run_set(
        tmp_path / "a", {("tied", "torch", 0): wrong(1, 2, 3, 4, 5, 6, 7, 8), ("tied", "torch", 1): wrong()}
    )
    second = run_set(tmp_path / "b", {("tied", "torch", 0): wrong(8, 9), ("tied", "torch", 1): wrong()})
    lines = compare_lines(first, second, METRIC)
    assert "last.test: 1 of 2 pairs say the same class of each example" in lines
    (row,) = [line.split() for line in lines if line.startswith("tiedtorch0")]
    p = stats.binomtest(1, 8).pvalue
    assert row[-3:] == ["1", "7", f"{p:.3f}"], "a alone has example 9 right, b alone examples 1 to 7; 8 both have wrong"
    assert any("n10, a alone; n01, b alone" in line and "uncorrected" in line for line in lines)
    assert not any(line.startswith("tiedtorch1") for line in lines)


def test_runs_of_equal_accuracy_that_err_on_other_examples_are_listed(tmp_path: Path) -> None:
    first = run_set(tmp_path / "a", {("tied", "torch", 0): wrong(1, 2)})
    lines = compare_lines(first, run_set(tmp_path / "b", {("tied", "torch", 0): wrong(2, 3)}), METRIC)
    assert f"{METRIC}: 1 of 1 pairs are equal to the last bit" in lines and not any("minus" in line for line in lines)
    assert [line.split()[-4:] for line in lines if line.startswith("tiedtorch0")] == [["+0.000", "1", "1", "1.000"]]
    other = compare_lines(first, run_set(tmp_path / "c", {("tied", "torch", 0): wrong(1, 2, as_class=3)}), METRIC)
    assert "last.test: 0 of 1 pair say the same class of each example" in other
    assert [line.split()[-3:] for line in other if line.startswith("tiedtorch0")] == [["0", "0", "1.000"]]


def test_a_setting_of_two_sets_is_tested_as_one_of_a_table_is(tmp_path: Path) -> None:
    """Over seeds and examples; a pair without predictions leaves the test over seeds alone."""
    said = [(wrong(1, 2, 3, 4, 5, 6), wrong(1)), (wrong(2, 3, 4, 5), wrong(5)), (wrong(3, 4, 5), wrong())]
    sides = [{("tied", "torch", seed): both[place] for seed, both in enumerate(said)} for place in (0, 1)]
    first, second = (run_set(tmp_path / name, side) for name, side in zip("ab", sides, strict=True))
    found = crossed(np.array([(b == 0).astype(int) - (a == 0) for a, b in said]))
    lines = compare_lines(first, second, METRIC)
    assert "each setting is tested by a test over seeds and test examples:" in lines
    (line,) = [line for line in lines if "minus" in line]
    ends = f"[{100 * found.low:.3f}, {100 * found.high:.3f}]"
    assert ends in line and "n = 3 seeds and 20 test examples" in line and line.endswith(f"p = {found.p:.3f}")
    without = run_set(tmp_path / "c", {**sides[1], ("tied", "torch", 2): None})
    assert "each setting is tested by a paired t-test over seeds:" in compare_lines(first, without, METRIC)


@pytest.mark.parametrize("lack", ["predictions", "the same examples"])
def test_a_pair_that_cannot_be_tested_by_example_is_counted(tmp_path: Path, lack: str) -> None:
    said = {("tied", "torch", 0): wrong(1), ("tied", "torch", 1): wrong(2)}
    first = run_set(tmp_path / "a", said)
    if lack == "predictions":
        second = run_set(tmp_path / "b", {**said, ("tied", "torch", 0): None})
    else:
        second = run_set(tmp_path / "b", said, content="other images")
    lines, missing = compare_lines(first, second, METRIC), 1 if lack == "predictions" else 2
    word = "pair" if missing == 1 else "pairs"
    assert f"last.test: {missing} {word} without predictions of the same examples on both sides" in lines
    if lack == "predictions":
        (row,) = [line for line in lines if line.startswith("tiedtorch0")]
        assert "n10" not in "".join(lines) and "—" not in row, "where no listed pair has them, there are no columns"


def test_a_loss_has_no_test_of_right_and_wrong(tmp_path: Path) -> None:
    first, second = (
        run_set(tmp_path / name, {("tied", "torch", 0): wrong(place)}) for name, place in (("a", 1), ("b", 2))
    )
    lines = compare_lines(first, second, "last.test.loss")
    assert not any("example" in line or "n10" in line for line in lines)
    assert not any("example" in line for line in compare_lines(first, second, "last.train.accuracy"))


def test_frameworks_are_held_together_setting_by_setting(tmp_path: Path) -> None:
    """Tied: seed 0 differs in one class of 20, seed 1 in two of which one is right in torch; untied: in none."""
    said = {
        ("tied", "torch", 0): wrong(1),
        ("tied", "jax", 0): wrong(1, as_class=2),
        ("tied", "torch", 1): wrong(4, 5),
        ("tied", "jax", 1): wrong(5, 6),
        ("tied", "torch", 2): wrong(7),
        ("untied", "torch", 0): wrong(3),
        ("untied", "jax", 0): wrong(3),
    }
    side = run_set(tmp_path / "a", said)
    lines = set_lines(side, METRIC)
    assert compare_lines(side, side, METRIC)[-len(lines) + 1 :] == lines[1:]
    place = lines.index("a: jax and torch, last.test example by example:")
    heads, _, *rows = lines[place + 1 :]
    assert [row.split() for row in rows] == [
        ["mixing=tied", "2", "92.50", "95.00", "1", "1"],
        ["mixing=untied", "1", "100.00", "100.00", "0", "0"],
    ]
    assert (
        heads.split("  ")[-1].strip() == "torch alone right" and sum("example by example" in one for one in lines) == 1
    )


def test_a_seed_that_lacks_predictions_of_one_framework_is_counted(tmp_path: Path) -> None:
    said = {(*where, seed): wrong(seed) for where in (("tied", "torch"), ("tied", "jax")) for seed in (0, 1)}
    side = run_set(tmp_path / "a", {**said, ("tied", "jax", 1): None})
    lines = set_lines(side, METRIC)
    what = "a: jax and torch, last.test example by example"
    assert f"{what}: 1 seed of a setting without predictions of both on the same examples" in lines
    assert lines[-1].split() == ["all", "1", "100.00", "100.00", "0", "0"]
    none = run_set(tmp_path / "b", dict.fromkeys(said))
    assert set_lines(none, METRIC)[-1].startswith("b: jax and torch, last.test example by example: 2 seeds")
    (_, nothing) = set_lines(run_set(tmp_path / "c", {("tied", "torch", 0): wrong(1)}), METRIC)
    assert nothing == "c: no setting and seed of which two frameworks say something of each example"
