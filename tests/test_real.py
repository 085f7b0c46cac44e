"""Top-5, all right classes of an image, and orders of examples that are not sorted as a whole."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from analysis import right_classes
from backends.contract import Predictions
from backends.errors import MixlabError
from experiments import streams
from experiments.data import Splits, real
from experiments.data.known import About
from experiments.training import plan
from experiments.training.evaluate import among_right, among_top, evaluate
from tests.conftest import Ended, base, planned, records, write_yaml

NAMES = ["val/n01/ILSVRC2012_val_00000002.JPEG", "val/n02/ILSVRC2012_val_00000001.JPEG"]
CLASSES = ("n01", "n02", "n03")


def test_a_label_is_among_the_top_five_by_its_rank_and_of_equal_logits_the_first_classes_count() -> None:
    logits = np.array([[6, 5, 4, 3, 2, 1, 0]] * 7 + [[0.0] * 7] * 7)
    found = [among_top(logits[i : i + 1], np.array([i % 7])) for i in range(14)]
    assert found == [1, 1, 1, 1, 1, 0, 0] * 2
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(500, 20)), rng.integers(0, 20, 500)
    top = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    assert among_top(np.full((1, 9), np.nan), np.array([0])) == 0.0
    assert among_top(logits, labels) == np.mean((top == labels[:, None]).any(1)) > 0.1


class Said:
    """A program that says of an image what stands beside its one pixel here."""

    LOGITS = (
        (0.1, 0.9, 0.3, 0.8, 0.5, 0.7, 0.2),  # from the largest: classes 1, 3, 5, 4, 2 | 6, 0
        (3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0),  # 0, 1, 2, 3, 4 | 5, 6: of equal ones the first
        (-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, 0.0),  # 6, 0, 1, 2, 3 | 4, 5
    )

    def predict(self, images: Any) -> list[Predictions]:
        rows = np.array([self.LOGITS[image[0, 0, 0]] for image in images])
        return [Predictions(rows, np.zeros((len(rows), 1)))]


@pytest.mark.parametrize(
    ("labels", "top5", "accuracy"),
    [((2, 4, 3), 1.0, 0.0), ((6, 5, 4), 0.0, 0.0), ((1, 0, 6), 1.0, 1.0), ((0, 4, 6), 2 / 3, 1 / 3)],
)
def test_top_five_is_what_it_is_by_hand(labels: tuple[int, ...], top5: float, accuracy: float) -> None:
    images, every = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1), np.arange(3, dtype=np.int32)
    splits = Splits(About("", 0, 3, 7, 1, 1), images, np.array(labels, np.int32), every[:0], every[:0], every)
    program: Any = Said()
    scores = evaluate(program, splits, every, "softmax")
    assert (scores["top5"], scores["accuracy"]) == pytest.approx((top5, accuracy))


def test_an_image_is_right_by_any_of_its_classes_and_one_without_any_is_left_out() -> None:
    right = np.array([[True, True, False], [False, False, True], [False, False, False]])
    logits = np.eye(3)[[1, 0, 2]]
    assert among_right(logits, right) == 0.5
    wide = np.hstack([logits[:2], [[9.0], [0.0]]])  # an output that is no class of the data
    assert among_right(wide, right[:2]) == 0.0


@pytest.mark.parametrize(
    "told",
    [
        [[1], [0, 2]],
        {"ILSVRC2012_val_00000002.JPEG": ["n01", "n03"], "ILSVRC2012_val_00000001": [1]},
        {NAMES[0]: [0, 2], NAMES[1]: ["n02"]},
    ],
)
def test_right_classes_are_found_by_the_number_or_the_name_of_an_image(told: Any, tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text(json.dumps(told))
    found = real.right_classes(str(tmp_path / "real.json"), NAMES, CLASSES)
    assert found.tolist() == [[True, False, True], [False, True, False]]
    assert real.note(np.vstack([found, [False] * 3])).startswith("2 of 3 test examples")


@pytest.mark.parametrize(
    ("told", "names", "sentence"),
    [
        ("[", NAMES, "cannot be read as JSON"),
        ("3", NAMES, "expected a list, or a mapping"),
        ("[[1]]", NAMES, "it tells nothing of this image"),
        ("[[1], [7]]", NAMES, "7 is none of the 3 classes"),
        ('{"a": [0]}', ["a", "b"], "'b': it tells nothing"),
        ("[[1], [0]]", ["ILSVRC2012_val_00000000.JPEG"], "it tells nothing of this image"),
        ("[[1], [0]]", None, "mixlab data prepare"),
    ],
)
def test_right_classes_that_are_not_those_of_the_images_are_one_sentence(
    told: str, names: list[str] | None, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "real.json").write_text(told)
    with pytest.raises(MixlabError, match=sentence):
        real.right_classes(str(tmp_path / "real.json"), names, CLASSES)


def test_scores_by_different_right_classes_do_not_compare() -> None:
    import pandas as pd

    frame = pd.DataFrame({"last.test.real": [0.5, 0.6, None], "right_classes": ["a", "b", "c"]})
    (note,) = right_classes.notes(frame)
    assert note == "The trials have a real by 2 different sets of right classes: they do not compare."
    assert not list(right_classes.notes(frame[1:])) and not list(right_classes.notes(frame[["last.test.real"]]))
    right = np.eye(3, dtype=bool)
    assert real.fingerprint(right) == real.fingerprint(right.copy()) != real.fingerprint(right[::-1])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 65, 1000, 4097])
def test_a_part_of_a_large_order_is_that_of_one_permutation(size: int) -> None:
    whole = streams.permuted(3, "order", 5, size, np.arange(size))
    assert sorted(whole) == list(range(size))
    part = np.arange(size // 3, size // 3 + min(5, size))
    np.testing.assert_array_equal(streams.permuted(3, "order", 5, size, part % size), whole[part % size])
    if size > 60:
        assert not np.array_equal(whole, streams.permuted(3, "order", 6, size, np.arange(size)))
        assert not np.array_equal(whole, streams.permuted(4, "order", 5, size, np.arange(size)))


def test_each_place_of_a_large_order_holds_each_example_as_often() -> None:
    """Chi-square of 37 examples over 3,000 orders at some places: 36 degrees of freedom, 99.99 % below 81."""
    orders = np.array([streams.permuted(0, "order", row, 37, np.array([0, 1, 18, 36])) for row in range(3000)])
    for counts in (np.bincount(column, minlength=37) for column in orders.T):
        assert np.sum((counts - 3000 / 37) ** 2) / (3000 / 37) < 81
    pairs = np.bincount(orders[:, 0] * 37 + orders[:, 1], minlength=37**2).reshape(37, 37)[~np.eye(37, dtype=bool)]
    expected = 3000 / (37 * 36)
    assert np.sum((pairs - expected) ** 2) / expected < 1331 + 4 * np.sqrt(2 * 1331)


def test_a_step_of_a_hundred_million_examples_sorts_none_of_them(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = planned(write_yaml(tmp_path / "a.yaml", base=base()), cache)[0].trial
    start = time.process_time()
    found = plan._order(one, 100_000_000, 7, 3)
    assert time.process_time() - start < 1.0
    assert found.shape == (3, one.train.batch_size) and len(np.unique(found)) == found.size
    monkeypatch.setattr(plan, "MAX_SORTED", 10)
    parts = np.concatenate([plan._order(one, 96, step, 1) for step in range(96 // one.train.batch_size)])
    assert len(np.unique(parts)) == parts.size


def test_a_trial_measures_right_classes_on_test_alone_and_keeps_its_id(
    tmp_path: Path, cache: Path, run: Callable[..., Ended]
) -> None:
    for split, num in (("train", 12), ("val", 4)):
        for name in ("a", "b"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i in range(num):
                pixels = np.random.default_rng([i, num, ord(name)]).integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "set" / split / name / f"{name}{i}.png")
    told = {f"{name}{i}.png": [name] if i else [] for name in "ab" for i in range(4)}
    (tmp_path / "real.json").write_text(json.dumps(told))
    assert run("data", "prepare", "set", "whole", "--keep").code == 0
    given = {key: value for key, value in base().items() if key != "data"}
    write_yaml(tmp_path / "a.yaml", base={**given, "data.source": "whole", "data.image_size": 8}, grid={"seed": [0]})
    assert run("run", "a.yaml", "data.labels_real=real.json").code == 0
    (record,) = records(tmp_path / "runs").values()
    point = record["metrics"]["last"]
    assert "real" in point["test"] and "real" not in point["train"]
    assert "6 of 8 test examples have a right class in data.labels_real" in " ".join(record["data"]["notes"])
    assert run("run", "a.yaml").code == 0 and len(records(tmp_path / "runs")) == 1  # the same trial without it
    others = {name: ["b" if classes == ["a"] else "a"] for name, classes in told.items()}
    (tmp_path / "others.json").write_text(json.dumps(others))
    (tmp_path / "same.json").write_text(json.dumps(told, indent=1))
    shown, left_out, without = (
        run("report", "a.yaml", "--metric", "real", *more).out
        for more in (("data.labels_real=same.json",), ("data.labels_real=others.json",), ())
    )
    score = f"{100 * point['test']['real']:.1f}"
    assert score in shown and score in without and "right classes" not in shown + without
    assert score not in left_out
    assert "1 of 1 trials have a real by other right classes than data.labels_real has now" in left_out
    curves = (tmp_path / "runs" / "ablations" / "a" / "report" / "tidy.csv").read_text()
    assert record["data"]["right_classes"] in curves
    (weights,) = (tmp_path / "runs").glob("trials/*/weights.safetensors")
    (tmp_path / "classes.txt").write_text("b\na\n")  # the other order: other outputs stand for the classes
    said = [
        run("evaluate", "--weights", str(weights), "whole", "data.labels_real=real.json", *more).out
        for more in ((), ("--classes", "classes.txt"))
    ]
    shares = [float(next(line for line in one.splitlines() if line.startswith("real")).split()[1]) for one in said]
    assert shares[0] == pytest.approx(100 * point["test"]["real"], abs=0.01)
    assert shares[0] + shares[1] == pytest.approx(100.0, abs=0.02)
