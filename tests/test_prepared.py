"""Prepared data as it is read: one id for one content, in place, and a sentence for what is damaged."""

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backends.arrays import Array
from backends.errors import MixlabError
from experiments import data
from experiments.data import framing, pixels, preparing
from experiments.data.contents import contents
from experiments.data.fingerprints import source_tree
from experiments.data.pixels import DataLost
from experiments.data.room import Request
from tests.conftest import fresh_cache
from tests.prepared_sets import as_png, write
from tests.reading import noise, unpacked
from tests.sources import WHERE, config, describe_and_load

cache = fresh_cache
SIDE = 6
LABELS = [0] * 6 + [1] * 6 + [0, 1, 1]
IMAGES = noise(15, SIDE, SIDE, 3)


def source_folder(folder: Path) -> Path:
    """The images in class folders, 12 of them to train on."""
    names = [f"{'train' if row < 12 else 'test'}/class {label}/{row:02}.png" for row, label in enumerate(LABELS)]
    return unpacked(folder, [(name, as_png(image)) for name, image in zip(names, IMAGES, strict=True)])


def several_sizes() -> list[Array]:
    return [noise(1, 8 + row % 3, 9 + row % 4, 3, seed=row)[0] for row in range(15)]


def fails(*_: Any, **__: Any) -> Any:
    raise AssertionError("pixels were read")


@pytest.mark.parametrize("form", ["array", "encoded"])
def test_the_source_and_sets_that_lose_nothing_are_the_same_data(tmp_path: Path, cache: Path, form: str) -> None:
    first, told = describe_and_load(config(source_folder(tmp_path / "set")), cache)
    given = config(write(tmp_path / form, form, list(IMAGES), LABELS, 3))
    info, splits = describe_and_load(given, tmp_path / "another")
    assert info == first and splits.classes == told.classes
    for name in ("images", "labels", "train", "validation", "test"):
        assert np.array_equal(getattr(splits, name), getattr(told, name)), name
    assert [splits.pixels.read(row).tolist() for row in (0, 14)] == [IMAGES[0].tolist(), IMAGES[14].tolist()]
    assert not list((tmp_path / "another").glob("*/images.npy"))


@pytest.mark.parametrize("form", ["array", "encoded"])
def test_planning_reads_no_pixels(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    folder = write(tmp_path / "out", form, list(IMAGES), LABELS, 3)
    images = next(folder.glob("images.*"))
    images.write_bytes(bytes(images.stat().st_size))
    for name in ("read_at", "decode"):
        monkeypatch.setattr(pixels, name, fails)
    info = data.describe(config(folder), cache, WHERE, data.Purpose.PLANNING)
    assert (info.num_train, info.num_validation, info.num_test, info.image_size) == (11, 1, 3, SIDE)
    assert data.repeats(config(folder), info, cache) is not None


def test_images_of_several_sizes_are_framed_when_they_are_read(tmp_path: Path, cache: Path) -> None:
    images = several_sizes()
    folder = write(tmp_path / "out", "encoded", images, LABELS, 3)
    given = config(folder, image_size=7, shorter_side=8, interpolation="bicubic")
    info, splits = describe_and_load(given, cache)
    right = np.stack([framing.frame_array(image, 7, given) for image in images])
    assert splits.images.shape == right.shape and splits.images.dtype == np.uint8 and len(splits.images) == 15
    assert np.array_equal(np.asarray(splits.images), right)
    assert np.array_equal(splits.images[np.array([3, 1])], right[[3, 1]])
    assert np.array_equal(splits.images[2:4], right[2:4]) and np.array_equal(splits.images[-1], right[-1])
    mask = np.arange(15) % 4 == 1
    assert np.array_equal(splits.images[mask], right[mask]) and np.array_equal(splits.images[np.int64(2)], right[2])
    with pytest.raises(IndexError):
        splits.images[np.array([15])]
    assert splits.pixels.shape is None and np.array_equal(splits.pixels.read(4), images[4])
    others = [{"image_size": 6}, {"shorter_side": 7}, {"interpolation": "box"}]
    fields = {"image_size": 7, "shorter_side": 8, "interpolation": "bicubic"}
    contents = [data.describe(config(folder, **fields | other), cache, WHERE).content for other in others]
    assert len({info.content, *contents}) == 4


def test_images_of_several_sizes_without_a_size_are_a_question(tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "out", "encoded", several_sizes(), LABELS, 3)
    with pytest.raises(MixlabError, match=r"trial.yaml: data.image_size: .* several sizes; give .*, such as 8$"):
        data.describe(config(folder), cache, WHERE)


@pytest.mark.parametrize(
    ("fields", "is_framed"),
    [
        ({}, False),
        ({"image_size": SIDE}, False),
        ({"image_size": SIDE, "shorter_side": 9}, False),  # as the set was made
        ({"image_size": 4}, True),
        ({"image_size": 4, "shorter_side": 5}, True),
    ],
)
@pytest.mark.parametrize("form", ["array", "encoded"])
def test_a_set_is_framed_where_a_trial_asks_for_another_frame(
    tmp_path: Path, cache: Path, form: str, fields: dict[str, Any], is_framed: bool
) -> None:
    recipe = {"image_size": SIDE, "shorter_side": 9, "interpolation": "bilinear"}
    folder = write(tmp_path / "out", form, list(IMAGES), LABELS, 3, recipe=recipe)
    content = json.loads((folder / "about.json").read_text())["content"]
    given = config(folder, **fields)
    info, splits = describe_and_load(given, cache)
    assert (info.content != content) == is_framed
    size = fields.get("image_size", SIDE)
    right = (
        [np.asarray(framing.frame(Image.fromarray(image), size, given)) for image in IMAGES] if is_framed else IMAGES
    )
    assert np.array_equal(np.asarray(splits.images), np.stack(right))


@pytest.mark.parametrize(
    "fields",
    [
        {"interpolation": "box"},
        {"image_size": SIDE, "interpolation": "box"},
        {"image_size": SIDE, "shorter_side": SIDE},
        {"image_size": SIDE, "shorter_side": 8},
    ],
)
def test_a_set_that_was_resized_is_not_what_another_resizing_would_give(
    tmp_path: Path, cache: Path, fields: dict[str, Any]
) -> None:
    recipe = {"image_size": SIDE, "shorter_side": 9, "interpolation": "bilinear"}
    folder = write(tmp_path / "resized", "array", list(IMAGES), LABELS, 3, recipe=recipe)
    with pytest.raises(MixlabError, match=r"data\.(shorter_side|interpolation): .* was prepared with .*; leave it out"):
        data.describe(config(folder, **fields), cache, WHERE)
    if "shorter_side" not in fields:  # of images that were never resized it says nothing
        recipe = dict.fromkeys(("image_size", "shorter_side")) | {"interpolation": "bilinear"}
        same = write(tmp_path / "same", "array", list(IMAGES), LABELS, 3, recipe=recipe)
        assert data.describe(config(same, **fields), cache, WHERE) == data.describe(config(folder), cache, WHERE)


def test_a_folder_that_was_moved_and_is_read_only_is_read_in_place(tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "out", "encoded", list(IMAGES), LABELS, 3)
    first = data.describe(config(folder), cache, WHERE)
    moved = tmp_path / "elsewhere" / "moved"
    moved.parent.mkdir()
    folder.rename(moved)
    for path in (*moved.iterdir(), moved):
        path.chmod(stat.S_IRUSR | (stat.S_IXUSR if path.is_dir() else 0))
    before = {path.name: path.stat().st_mtime_ns for path in (*moved.iterdir(), moved)}
    info, splits = describe_and_load(config(moved), cache)
    assert info == first and np.array_equal(np.asarray(splits.images), IMAGES)
    assert {path.name: path.stat().st_mtime_ns for path in (*moved.iterdir(), moved)} == before


def test_a_set_that_is_gone_still_says_what_it_held(tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "out", "array", list(IMAGES), LABELS, 3)
    given = config(folder)
    info = data.describe(given, cache, WHERE)
    shutil.rmtree(folder)
    assert data.describe(given, cache, WHERE) == info
    assert data.facts(given, info, cache).classes == ("class 0", "class 1")


def test_a_set_of_other_content_than_was_planned_is_refused(tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "out", "array", list(IMAGES), LABELS, 3)
    info = data.describe(config(folder), cache, WHERE)
    shutil.rmtree(folder)
    write(folder, "array", list(IMAGES[::-1]), LABELS, 3)
    with pytest.raises(MixlabError, match="is not what it was when the trial was planned"):
        data.load(config(folder), info, cache)


def edited(**fields: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "about.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return edit


def damage(name: str, how: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(how((folder / name).read_bytes())) and None


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "about is missing": (lambda folder: (folder / "about.json").unlink(), "about.json: it is missing"),
    "about is no JSON": (damage("about.json", lambda content: content[:50]), "about.json"),
    "about lacks a field": (edited(num_train=None), "about.json"),
    "about has a strange field": (edited(colour=1), "about.json"),
    "about has a strange form": (edited(form="tensor"), "expected the form array or encoded, got 'tensor'"),
    "format is no number": (edited(format="1"), "expected a format number"),
    "format is newer": (edited(format=2), "newer Mixlab (format 2, this one reads up to 1)"),
    "images are missing": (lambda folder: (folder / "images.bin").unlink(), "images.bin: No such file"),
    "images are cut off": (lambda folder: os.truncate(folder / "images.bin", 100), "got 100"),
    "labels are cut off": (damage("labels.npy", lambda content: content[:-4]), "labels.npy: expected 188 bytes"),
    "offsets are longer": (damage("offsets.npy", lambda content: content + b"x"), "offsets.npy"),
}


def test_labels_that_are_no_classes_are_damage(tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "out", "array", list(IMAGES), LABELS, 3)
    info = data.describe(config(folder), cache, WHERE)
    labels = np.load(folder / "labels.npy")
    labels[0] = max(LABELS) + 1
    np.save(folder / "labels.npy", labels)
    with pytest.raises(MixlabError, match=r"is damaged: labels.npy: expected classes 0 to \d+, got 0 to \d+; copy it"):
        data.load(config(folder), info, cache)


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_is_one_sentence(tmp_path: Path, cache: Path, name: str) -> None:
    folder = write(tmp_path / "out", "encoded", list(IMAGES), LABELS, 3)
    harm, said = DAMAGES[name]
    harm(folder)
    with pytest.raises(MixlabError) as caught:
        data.describe(config(folder), cache, WHERE)
    message = str(caught.value)
    assert message.startswith(f"{WHERE}: data.source: ") and said in message and "\n" not in message
    assert str(folder) in message and ("anew" in message) and len(message) < 400


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"layout": "classes"}, "data.layout: .* was prepared with 'splits', got 'classes'; leave it out"),
        ({"image_channels": 1}, "data.image_channels: .* was prepared with 3, got 1"),
        ({"train_split": "all"}, "data.train_split: .* was prepared with 'train', got 'all'"),
    ],
)
def test_fields_that_made_a_set_cannot_be_others(
    tmp_path: Path, cache: Path, fields: dict[str, Any], said: str
) -> None:
    recipe = {"layout": "splits", "train_split": "train"}
    folder = write(tmp_path / "out", "array", list(IMAGES), LABELS, 3, recipe=recipe)
    data.describe(config(folder, layout="splits", image_channels=3), cache, WHERE)
    with pytest.raises(MixlabError, match=said):
        data.describe(config(folder, **fields), cache, WHERE)


@pytest.mark.parametrize("asked", [{}, {"test_split": "validation"}], ids=["found", "asked"])
def test_the_splits_that_a_set_was_made_of_may_be_named(tmp_path: Path, cache: Path, asked: dict[str, Any]) -> None:
    names = [f"{split}/{row % 2}/{row}.png" for split in ("train", "val") for row in range(4)]
    source = unpacked(tmp_path / "set", [(name, as_png(image)) for name, image in zip(names, IMAGES, strict=False)])
    request = Request(config(source, **asked), tmp_path / "out", "array", 1, cache, WHERE)
    preparing.prepare(request, source_tree(str(source), WHERE))
    for given in ({}, {"test_split": "validation"}, {"test_split": "val", "train_split": "train"}):
        info = data.describe(config(tmp_path / "out", **given), cache, WHERE)
        assert info == data.describe(config(source, **given), cache, WHERE)
    assert contents(config(tmp_path / "out"), cache, WHERE).test == "validation"
    for field in ("test_split", "train_split"):
        with pytest.raises(MixlabError, match=rf"data.{field}: .* was prepared with .*, got 'test'; leave it out"):
            data.describe(config(tmp_path / "out", **{field: "test"}), cache, WHERE)


def test_an_image_that_cannot_be_decoded_is_lost_data(tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "out", "encoded", list(IMAGES), LABELS, 3)
    info = data.describe(config(folder), cache, WHERE)
    content = bytearray((folder / "images.bin").read_bytes())
    content[:4] = b"none"
    (folder / "images.bin").write_bytes(content)
    splits = data.load(config(folder), info, cache)
    with pytest.raises(DataLost, match=r"data: image 0 of .*images.bin cannot be decoded \(cannot identify image"):
        splits.pixels.read(0)
    assert np.array_equal(splits.pixels.read(1), IMAGES[1])


def test_a_file_that_is_cut_off_after_it_was_opened_is_lost_data(tmp_path: Path, cache: Path) -> None:
    """A memory map would end the process."""
    for form in ("array", "encoded"):
        folder = write(tmp_path / form, form, list(IMAGES), LABELS, 3)
        _, splits = describe_and_load(config(folder), cache)
        os.truncate(next(folder.glob("images.*")), 300)
        with pytest.raises(DataLost, match=r"images\.\w+ ends at byte 300"):
            splits.pixels.read(14)


def test_a_folder_of_images_with_an_about_of_its_own_is_none(tmp_path: Path, cache: Path) -> None:
    folder = source_folder(tmp_path / "set")
    (folder / "about.json").write_text('{"made": "by hand"}')
    assert data.describe(config(folder), cache, WHERE).num_test == 3
