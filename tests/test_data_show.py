"""What is said of data: `mixlab data show`, the notes of plan and run, the record, and the classes of evaluate."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backends.errors import MixlabError
from experiments import data
from experiments.data.known import About
from experiments.weights import class_order, weight_files
from tests.conftest import Ended, base, records, write_yaml
from tests.reading import png
from tests.test_weights import FIXTURES

Run = Callable[..., Ended]


def folder(path: Path, num_train: int = 10, classes: tuple[str, ...] = ("2", "10", "1")) -> Path:
    """Class folders of two splits; image i of the training split is all of the value i."""
    values = iter(range(256))
    for split, num in (("train", num_train), ("test", 2)):
        for name in classes:
            for row in range(num):
                file = path / split / name / f"{row}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(png(next(values)))
    return path


def after(ended: Ended, name: str) -> list[str]:
    """What stands after a name at the beginning of lines."""
    return [line[len(name) :].strip() for line in ended.out.splitlines() if line.startswith(f"{name} ")]


# data show


def test_splits_classes_images_and_notes_are_shown(run: Run, tmp_path: Path) -> None:
    folder(tmp_path / "set")
    (tmp_path / "set" / "train" / "1" / "x.txt").write_text("x")
    (tmp_path / "set" / "train" / "10" / "0.png").write_bytes(png(200, 5))
    ended = run("data", "show", "set")
    assert ended.code == 0, ended.err
    assert after(ended, "source") == ["set"] and after(ended, "kind") == ["image files in one folder for each class"]
    assert after(ended, "splits") == ["train 30, test 6; trained on train, tested on test"]
    assert after(ended, "images") == ["36 of 5 x 5 L"]
    assert after(ended, "classes") == ["3, in this order"]
    rows = [line.split() for line in ended.out.splitlines() if line[:1].isdigit()]
    assert rows == [["0", "1", "10", "2"], ["1", "2", "10", "2"], ["2", "10", "10", "2"]]
    assert after(ended, "note") == ["1 file of other types in the class folders of train ignored: .txt (1)"]


def test_a_table_and_a_built_in_source_are_shown(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    for row in range(10):
        (tmp_path / "t" / f"{row}.png").write_bytes(png(row))
    lines = ["id,file,breed", *(f"{row},{row}.png,{'cat' if row % 2 else 'dog'}" for row in range(10))]
    (tmp_path / "t" / "labels.csv").write_text("\n".join(lines) + "\n")
    ended = run("data", "show", "t")
    assert after(ended, "splits") == ["train 10; trained on train, test examples are cut from it"]
    assert after(ended, "note") == ["column 'breed' is the class; not taken: id"]
    digits = run("data", "show", "digits")
    assert digits.code == 0 and after(digits, "images") == ["1,797 of 8 x 8 L"] and after(digits, "kind") == ["digits"]


def test_of_many_classes_the_first_and_last_ten_are_shown(run: Run, tmp_path: Path) -> None:
    folder(tmp_path / "set", 1, tuple(map(str, range(25))))
    ended = run("data", "show", "set")
    names = [line.split()[1] for line in ended.out.splitlines() if line[:1].isdigit()]
    assert names == [*map(str, range(10)), *map(str, range(15, 25))] and "... 5 more; --all lists them" in ended.out
    ended = run("data", "show", "set", "--all")
    assert [line.split()[1] for line in ended.out.splitlines() if line[:1].isdigit()] == [*map(str, range(25))]


def test_images_that_a_trial_could_not_take_are_shown_all_the_same(run: Run, tmp_path: Path) -> None:
    folder(tmp_path / "set")
    (tmp_path / "set" / "train" / "1" / "0.png").write_bytes(png(1, size=7))
    (tmp_path / "set" / "test" / "1" / "0.png").write_bytes(b"no image")
    ended = run("data", "show", "set")
    assert ended.code == 0 and after(ended, "images") == ["34 of 5 x 5 L, 1 of 7 x 7 L, 1 of unreadable"]
    assert any(note.startswith("a trial cannot use it yet: command line: data.") for note in after(ended, "note"))
    ended = run("data", "show", "set", "--sheet", "sheet.png")
    assert ended.code == 2 and "Traceback" not in ended.err and not (tmp_path / "sheet.png").exists()


def test_examples_of_classes_that_training_lacks_are_counted_in_a_row_of_their_own(run: Run, tmp_path: Path) -> None:
    for split, labels in (("train", "ab"), ("test", "ab"), ("extra", "abc")):
        (tmp_path / "t").mkdir(exist_ok=True)
        lines = ["image,label,split"] if split == "train" else []
        for row in range(6):
            (tmp_path / "t" / f"{split}{row}.png").write_bytes(png(row))
            lines.append(f"{split}{row}.png,{labels[row % len(labels)]},{split.replace('extra', 'val')}")
        with (tmp_path / "t" / "all.csv").open("a") as file:
            file.write("\n".join(lines) + "\n")
    ended = run("data", "show", "t")
    rows = [
        line.split() for line in ended.out.splitlines() if line[:1].isdigit() or line.strip().startswith("(no class")
    ]
    assert rows == [
        ["0", "a", "3", "2", "3"],
        ["1", "b", "3", "2", "3"],
        ["(no", "class", "of", "the", "training", "split)", "0", "2", "0"],
    ]


def test_the_sheet_holds_eight_images_of_each_class_as_a_trial_sees_them(run: Run, tmp_path: Path) -> None:
    folder(tmp_path / "set", 10, ("a", "b"))
    assert run("data", "show", "set", "--sheet", "sheet.png").code == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    side, step, left = 64, 68, 160
    for row, first in ((0, 0), (1, 10)):
        for column in range(8):
            cell = pixels[4 + row * step :, left + column * step :][:side, :side]
            assert (cell == first + column).all(), (row, column)
    assert pixels.shape[:2] == (2 * step + 4, left + 8 * step)


def test_what_is_a_question_ends_the_command(run: Run, tmp_path: Path) -> None:
    for name in ("train", "val"):
        folder(tmp_path / "set" / name)
    shutil.copytree(tmp_path / "set" / "val" / "train" / "1", tmp_path / "set" / "bus")
    ended = run("data", "show", "set")
    assert ended.code == 2 and "data.layout: classes or splits" in ended.err and ended.out == ""
    assert run("data", "show", "set", "data.layout=classes").code == 0
    assert run("data", "show", "nowhere").code == 2


# plan, run and the record


def test_plan_run_and_submit_say_the_notes_once_and_the_record_keeps_the_order(
    run: Run, tmp_path: Path, quick: Path, fake: Any
) -> None:
    folder(tmp_path / "set", 12)
    (tmp_path / "set" / "train" / "stray.txt").write_text("x")
    tree = {**base(backend="quick"), "data": {"source": "set", "image_size": 16}}
    write_yaml(tmp_path / "tiny.yaml", base=tree, grid={"seed": [0, 1]})
    note = "1 name beside the class folders of train ignored: stray.txt"
    planned = run("plan", "tiny.yaml")
    assert planned.code == 0, planned.err
    assert planned.out.count(f"data set: {note}") == 1
    limits = "echo 'MaxArraySize = 100'; echo 'MaxJobCount = 100'"
    fake(squeue="true", sacct="true", sacctmgr="true", sbatch="echo 'sbatch: fits' >&2", scontrol=limits)
    (tmp_path / "cluster.yaml").write_text("cpus: 1\n")
    sent = run("submit", "tiny.yaml", "--cluster", "cluster.yaml", "--dry-run")
    assert sent.err.count(f"data set: {note}") == 1, sent.err
    ended = run("run", "tiny.yaml")
    assert ended.code == 0 and ended.err.count(f"data set: {note}") == 1
    for record in records(tmp_path / "runs").values():
        assert record["data"]["source"] == "set" and record["data"]["classes"] == ["1", "2", "10"]
        assert note in record["data"]["notes"] and record["data"]["kind"] == "image files in one folder for each class"


# evaluate


def splits(labels: list[int], classes: tuple[str, ...] = ("cat", "cow", "dog")) -> data.Splits:
    empty = np.zeros(0, np.int32)
    about = About("", len(labels), 0, 3, 1, 1)
    return data.Splits(
        about, np.zeros((len(labels), 1, 1, 1), np.uint8), np.array(labels, np.int32), empty, empty, empty, classes
    )


def test_labels_follow_the_order_of_the_weights() -> None:
    found = class_order.renumbered(splits([0, 1, 2, 0]), ("dog", "ant", "cat", "cow"), 4)
    assert found.labels.tolist() == [2, 3, 0, 2] and found.labels.dtype == np.int32


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (("cat", "cow"), "expected 3 classes, as the weights have outputs, got 2"),
        (("cat", "cow", "pig"), "1 of 3 classes"),
    ],
)
def test_an_order_that_lacks_a_class_is_an_error(names: tuple[str, ...], part: str) -> None:
    with pytest.raises(MixlabError, match=part):
        class_order.renumbered(splits([0]), names, 3)


def test_an_order_says_nothing_of_data_whose_classes_have_no_names() -> None:
    with pytest.raises(MixlabError, match=r"name their classes \(a, b, c\), .* not known"):
        class_order.renumbered(splits([0], ()), ("a", "b", "c"), 3)


def test_evaluate_says_which_order_it_took_and_takes_another(run: Run, tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "official_mixer_small.npz", tmp_path / "w.npz")
    rng = np.random.default_rng(0)
    for number in range(7):
        for split in ("train", "test"):
            path = tmp_path / "set" / split / str(number + 5) / "0.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    (tmp_path / "set" / ".x").touch()
    names = [str(number) for number in range(5, 12)]
    found = {}
    for order in (None, names, names[::-1]):
        words = []
        if order:
            (tmp_path / "classes.txt").write_text(os.linesep.join(order) + os.linesep)
            words = ["--classes", "classes.txt"]
        ended = run("evaluate", "--weights", "w.npz", "set", "data.validation_fraction=0", *words)
        assert ended.code == 0, ended.err
        found[order and tuple(order)] = after(ended, "loss")
        said = after(ended, "classes")[0]
        assert "7, in the order" in said and (": 11, 10, 9" in said if order == names[::-1] else ": 5, 6, 7" in said)
        assert ("assumed" in said) == (order is None)
        assert after(ended, "note") == ["1 hidden name ignored: .x"]
    assert found[None] == found[tuple(names)] != found[tuple(names[::-1])]
    (tmp_path / "classes.txt").write_text("5\n5\n")
    ended = run("evaluate", "--weights", "w.npz", "set", "--classes", "classes.txt")
    assert ended.code == 2 and "names classes twice: 5" in ended.err
    for split in ("train", "test"):
        shutil.rmtree(tmp_path / "set" / split / "5")
    ended = run("evaluate", "--weights", "w.npz", "set", "data.validation_fraction=0")
    assert ended.code == 2 and "name the classes of the weights with --classes" in ended.err
    (tmp_path / "classes.txt").write_text("\n".join(names))
    ended = run("evaluate", "--weights", "w.npz", "set", "data.validation_fraction=0", "--classes", "classes.txt")
    assert ended.code == 0 and "6 examples" in ended.out, ended.err


def test_kept_weights_name_their_classes_and_evaluate_goes_by_the_names(run: Run, tmp_path: Path) -> None:
    folder(tmp_path / "set", 12)
    write_yaml(tmp_path / "tiny.yaml", base={**base(), "data": {"source": "set", "image_size": 16}}, grid={"seed": [0]})
    assert run("run", "tiny.yaml").code == 0
    ((key, record),) = records(tmp_path / "runs").items()
    weights = f"runs/trials/{key}/weights.safetensors"
    assert weight_files.read(tmp_path / weights).classes == ("1", "2", "10") == tuple(record["data"]["classes"])
    ended = run("evaluate", "--weights", weights, "set")
    assert ended.code == 0, ended.err
    assert "3, in the order that the weights or --classes name" in after(ended, "classes")[0]
    assert after(ended, "accuracy") == [f"{100 * record['metrics']['last']['test']['accuracy']:.2f} %"]
    shutil.copytree(tmp_path / "set", tmp_path / "without_2", ignore=shutil.ignore_patterns("2"))
    ended = run("evaluate", "--weights", weights, "without_2")
    assert ended.code == 0 and "3, in the order that the weights or --classes name" in after(ended, "classes")[0]
    shutil.copytree(tmp_path / "set", tmp_path / "other")
    for split in ("train", "test"):
        (tmp_path / "other" / split / "2").rename(tmp_path / "other" / split / "two")
    ended = run("evaluate", "--weights", weights, "other")
    assert ended.code == 2 and "1 of 3 classes of the data are not among those of the weights: two" in ended.err
