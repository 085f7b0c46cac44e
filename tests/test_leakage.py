"""What decoded images say of a source: examples that are trained and tested on, and one colour for several classes."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments import data
from experiments.data import checks, decoded
from experiments.spec.config import DataConfig
from tests.conftest import base
from tests.reading import SIDE, WHERE, noise, unpacked
from tests.test_report import Bench, done


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def image_folder(folder: Path, **splits: dict[str, Any]) -> Path:
    """Arrays of images by split and class."""
    members = []
    for split, classes in splits.items():
        for name, images in classes.items():
            members += [(f"{split}/{name}/{row}.png", png(pixels)) for row, pixels in enumerate(images)]
    return unpacked(folder, members)


def repeats(config: DataConfig, cache: Path) -> checks.Repeats | None:
    found: checks.Repeats | None = data.repeats(config, data.describe(config, cache, WHERE), cache)
    return found


def leaking(folder: Path, num: int) -> Path:
    """20 training and 10 test examples, of which `num` are training examples."""
    train, test = noise(20, SIDE, SIDE), noise(10, SIDE, SIDE, seed=1)
    test[:num] = train[5 : 5 + num]
    return image_folder(folder, train={"a": train[:10], "b": train[10:]}, test={"a": test[:5], "b": test[5:]})


@pytest.mark.parametrize("num", [0, 3])
def test_test_examples_that_are_trained_on_are_counted(tmp_path: Path, num: int) -> None:
    config = DataConfig(source=str(leaking(tmp_path / "set", num)), validation_fraction=0.0)
    found = repeats(config, tmp_path / "cache")
    assert found == checks.Repeats(num, 0, 10, 0)
    said = "3 of 10 test examples (30.0%) equal a training example pixel by pixel"
    notes = data.notes(config, data.describe(config, tmp_path / "cache", WHERE), tmp_path / "cache")
    assert (said in notes) == bool(num)


def test_only_what_a_trial_trains_on_counts(tmp_path: Path) -> None:
    twins = noise(40, SIDE, SIDE)
    twins[20:] = twins[:20]
    folder = image_folder(tmp_path / "set", train={"a": twins[::2], "b": twins[1::2]})
    cache = tmp_path / "cache"
    for fields in ({}, {"split_seed": 1}, {"fraction": 0.3}, {"validation_fraction": 0.3}):
        config = DataConfig(source=str(folder), **fields)
        info = data.describe(config, cache, WHERE)
        splits = data.load(config, info, cache)
        trained = {splits.images[row].tobytes() for row in splits.train}
        test, validation = (
            sum(splits.images[row].tobytes() in trained for row in part) for part in (splits.test, splits.validation)
        )
        right = checks.Repeats(test, validation, info.num_test, info.num_validation)
        assert data.repeats(config, info, cache) == right == data.repeats(config, info, cache)
        assert test > 0


def test_repeats_are_known_of_entries_that_keep_no_hashes_and_not_of_lost_ones(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    config = DataConfig(source=str(leaking(tmp_path / "set", 3)), validation_fraction=0.0)
    info = data.describe(config, cache, WHERE)
    (cache / info.content / decoded.HASHES).unlink()
    assert repeats(config, cache) == checks.Repeats(3, 0, 10, 0)
    (tmp_path / "set").rename(tmp_path / "gone")
    (cache / info.content).rename(tmp_path / "lost")
    assert repeats(config, cache) == checks.Repeats(3, 0, 10, 0)  # kept since it was counted
    assert data.repeats(DataConfig(source=config.source, fraction=0.5), info, cache) is None


def test_examples_count_as_equal_after_decoding(tmp_path: Path) -> None:
    """Two files that differ in what makes no difference to the model: a colour file of the grey one."""
    grey = noise(8, SIDE, SIDE)
    colour = np.repeat(grey[..., None], 3, axis=-1)
    splits = {name: {"a": one[:4], "b": one[4:]} for name, one in (("train", grey), ("test", colour))}
    folder = image_folder(tmp_path / "set", **splits)
    config = DataConfig(source=str(folder), validation_fraction=0.0)
    assert repeats(config, tmp_path / "cache") == checks.Repeats(8, 0, 8, 0)


@pytest.mark.parametrize(
    ("colours", "said"),
    [
        ([[0, 0], [0, 0]], "4 images of 2 classes (a, b) are nothing but one colour, black"),
        ([[0, 255], [9, 255]], "2 images of 2 classes (a, b) are nothing but one colour, white"),
        ([[7, 7], [7, 8]], "3 images of 2 classes (a, b) are nothing but one colour, grey 7"),
        (
            [[0, 7], [7, 0]],
            "4 images of 2 classes (a, b) are nothing but one colour, black, grey 7, each of several classes",
        ),
        ([[0, 0], [255, 255]], None),  # one colour a class: they can be told apart
    ],
)
def test_one_colour_for_several_classes_is_said(tmp_path: Path, colours: list[list[int]], said: str | None) -> None:
    flat = [[np.full((SIDE, SIDE), value, np.uint8) for value in one] for one in colours]
    others = list(noise(8, SIDE, SIDE))
    folder = image_folder(tmp_path / "set", train={"a": [*flat[0], *others[:4]], "b": [*flat[1], *others[4:]]})
    config = DataConfig(source=str(folder), validation_fraction=0.0)
    notes = data.notes(config, data.describe(config, tmp_path / "cache", WHERE), tmp_path / "cache")
    assert [note.partition(", so nothing")[0] for note in notes if "one colour" in note] == ([said] if said else [])


def test_images_that_begin_with_the_same_pixel_are_not_of_one_colour(tmp_path: Path) -> None:
    images = noise(8, SIDE, SIDE)
    images[:, 0, 0] = 7
    folder = image_folder(tmp_path / "set", train={"a": list(images[:4]), "b": list(images[4:])})
    config = DataConfig(source=str(folder), validation_fraction=0.0)
    notes = data.notes(config, data.describe(config, tmp_path / "cache", WHERE), tmp_path / "cache")
    assert not any("one colour" in note for note in notes)


def test_what_was_seen_stays_known_of_data_that_is_not_decoded_again(tmp_path: Path) -> None:
    black = np.zeros((SIDE, SIDE, 4), np.uint8)
    folder = image_folder(tmp_path / "set", train={"a": [black] * 4, "b": [black] * 4})
    config, cache = DataConfig(source=str(folder), validation_fraction=0.0), tmp_path / "cache"
    first = data.notes(config, data.describe(config, cache, WHERE), cache)
    assert "8 of 8 images have transparent pixels" in " ".join(first) and "8 images of 2 classes" in " ".join(first)
    assert data.notes(config, data.describe(config, cache, WHERE), cache) == first


@pytest.mark.parametrize(("repeated", "marked"), [(3, False), (4, True)])  # of 359 digits: 0.8 % and 1.1 %
def test_a_report_marks_more_than_one_percent_of_repeated_test_examples(
    tmp_path: Path, repeated: int, marked: bool
) -> None:
    digits = base(data={"source": "digits", "image_size": None, "image_channels": None})
    bench = Bench(tmp_path, tmp_path / "cache", base=digits, grid={"seed": [0, 1]}, report=None)
    seen = {"repeats": {"test": repeated, "validation": 0, "num_test": 359, "num_validation": 0}}
    bench.put(*({**done(0.5), "data": seen} for _ in range(2)))
    table = bench.text()
    line = "‡ data digits: 4 of 359 test examples (1.1%) equal a training example pixel by pixel"
    assert table.count(line) == table.count("‡") == int(marked)
