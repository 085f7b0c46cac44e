"""Accuracy by class and confusions of a trial: each number is that of its examples; many classes stay readable."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.terminal.class_lines import FEW, MAX_LINES, class_lines
from backends.arrays import Array
from experiments.data import Splits
from experiments.results import predictions
from tests.conftest import base, records, write_yaml


def keep(folder: Path, true: Array, said: Array, split: str = "test", content: str = "content") -> None:
    """The predictions of a trial whose last evaluation said this of one split; the best one was right of all."""
    indices = {name: np.arange(len(true) if name == split else 0, dtype=np.int32) for name in ("validation", "test")}
    splits = Splits(None, true, true, indices["test"], **indices)  # type: ignore[arg-type]
    predictions.keep(folder, splits, content, {"last": {split: said}, "best": {split: true}})


def cells(line: str) -> list[str]:
    return line.split()


def test_few_classes_are_one_matrix_of_true_and_predicted_classes(tmp_path: Path) -> None:
    true, said = np.array([0, 0, 0, 0, 1, 1, 2]), np.array([0, 0, 0, 2, 1, 0, 2])
    keep(tmp_path, true, said)
    head, heads, _, *rows = class_lines(tmp_path, ["cat", "dog \n house", "2"], "last", "test")
    assert head == "last.test: 5 of 7 examples right, 71.4 %"
    assert cells(heads) == ["class", "examples", "accuracy", "%", "as", "0", "as", "1", "as", "2"]
    assert list(map(cells, rows)) == [
        ["0", "cat", "4", "75.0", "3", "·", "1"],
        ["1", "dog", "house", "2", "50.0", "1", "1", "·"],
        ["2", "1", "100.0", "·", "·", "1"],
    ]
    assert class_lines(tmp_path, [], "best", "test")[0] == "best.test: 7 of 7 examples right, 100.0 %"


def test_a_class_that_is_predicted_alone_has_no_accuracy(tmp_path: Path) -> None:
    keep(tmp_path, np.array([0, 0]), np.array([0, 3]), "validation")
    rows = class_lines(tmp_path, ["a"], "last", "validation")[3:]
    assert list(map(cells, rows))[-1] == ["3", "0", "—", "·", "·", "·", "·"] and cells(rows[0])[-1] == "1"


def test_of_many_classes_the_worst_and_the_most_frequent_confusions_are_shown(tmp_path: Path) -> None:
    """Classes have 10 examples, class 8 20; 6 of class 7 are taken for 8, 2 of 9 for 3, 1 of each from 20 on for 0."""
    true = np.append(np.repeat(np.arange(40), 10), [8] * 10)
    said = true.copy()
    said[70:76], said[90:92], said[200:400:10] = 8, 3, 0
    keep(tmp_path, true, said)
    found = class_lines(tmp_path, [f"name {number} {'x' * 30}" for number in range(40)], "last", "test")
    assert found[0] == "last.test: 382 of 410 examples right, 93.2 %"
    assert found[1] == "the worst of 40 classes, whose accuracies are 40.0 to 100.0 %, median 90.0:"
    worst = found[4 : 4 + MAX_LINES]
    assert [line.split()[0] for line in worst] == ["7", "9", *map(str, range(20, 30))]
    assert cells(worst[0])[-2:] == ["10", "40.0"] and max(map(len, found)) < 100
    place = found.index("the most frequent of 22 confusions that occur:")
    pairs = found[place + 3 :]
    assert len(pairs) == MAX_LINES
    assert pairs[0].startswith("7 name 7") and "8 name 8" in pairs[0] and cells(pairs[0])[-2:] == ["6", "60.0"]
    assert pairs[1].startswith("9 name 9") and "3 name 3" in pairs[1] and cells(pairs[1])[-2:] == ["2", "20.0"]
    assert pairs[2].startswith("20 name 20") and "0 name 0" in pairs[2]


def test_many_classes_that_are_all_right_have_no_confusion(tmp_path: Path) -> None:
    keep(tmp_path, np.arange(FEW + 1), np.arange(FEW + 1))
    assert any("0 confusions" in line for line in class_lines(tmp_path, [], "last", "test"))


def test_show_has_the_accuracy_that_the_record_has(run: Any, tmp_path: Path, quick: Path) -> None:
    write_yaml(tmp_path / "a.yaml", base=base(backend="quick"), grid={"seed": [0]})
    assert run("run", "a.yaml").code == 0
    ((key, record),) = records(tmp_path / "runs").items()
    record["data"]["classes"] = ["round", "square"]
    path = tmp_path / "runs" / "trials" / key / "record.json"
    path.write_text(json.dumps(record))
    for name in ("last.test", "best.validation"):
        when, split = name.split(".")
        out = run("show", key, "--predictions", name).out
        share = record["metrics"][when][split]["accuracy"]
        assert f"  {name}: " in out and f"examples right, {100 * share:.1f} %" in out and "  1 square" in out
    assert "last.validation: " in run("show", key).out and "last.test: " in run("show", key, "--test").out
    wrong = run("show", key, "--predictions", "last.train")
    assert wrong.code == 2 and "got 'last.train'; allowed: last.test, last.validation," in wrong.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("removed", "an earlier version of Mixlab kept none, or they were removed"),
        ("damaged", "predictions.safetensors.gz is damaged: Not a gzipped file"),
        ("no best", "the split has no examples, or the evaluation's could not be kept"),
    ],
)
def test_show_says_why_there_are_no_predictions(run: Any, tmp_path: Path, quick: Path, change: str, words: str) -> None:
    write_yaml(tmp_path / "a.yaml", base=base(backend="quick"), grid={"seed": [0]})
    assert run("run", "a.yaml").code == 0
    (key,) = records(tmp_path / "runs")
    path = tmp_path / "runs" / "trials" / key / predictions.FILE
    if change == "damaged":
        path.write_bytes(b"not a file of gzip")
    elif change == "removed":
        path.unlink()
    else:
        keep(path.parent, np.zeros(3, np.int32), np.zeros(3, np.int32), "validation")
    shown = run("show", key, "--test")
    assert shown.code == 0 and any(line.startswith("  last.test: no pred") and words in line for line in
                                   shown.out.splitlines())  # fmt: skip
