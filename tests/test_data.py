"""What is promised of sources: pixels, labels and sentences on mistakes."""

import dataclasses
import errno
import io
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from backends.errors import MixlabError
from experiments import data
from experiments.data import opening
from experiments.data.raw import Raw
from tests.conftest import fresh_cache
from tests.sources import (
    SIDE,
    WHERE,
    assert_fails,
    config,
    describe_and_load,
    image_folder,
    parquet_folder,
    png,
    write_parquet,
)

cache = fresh_cache

# Of the generator "synthetic-1": four images of 5 x 5. Other numbers need another version of the generator.
SYNTHETIC_SUM, SYNTHETIC_PIXEL = 37873, [23, 147, 233]


# Sources


def test_digits_fill_the_range_of_bytes(digits_cache: Path) -> None:
    info, splits = describe_and_load(config(), digits_cache)
    assert (info.image_size, info.image_channels, info.num_classes) == (8, 1, 10)
    assert splits.images.shape == (1797, 8, 8, 1) and splits.images.dtype == np.uint8
    assert splits.images.max() == 255 and set(np.unique(splits.images)) == {round(v * 255 / 16) for v in range(17)}
    assert splits.labels.dtype == np.int32 and isinstance(splits.images, np.memmap)


def test_synthetic_classes_are_balanced_and_learnable_but_not_trivial(cache: Path) -> None:
    given = config("synthetic", num_examples=1000, image_size=16)
    info, splits = describe_and_load(given, cache)
    assert info.num_test == 200 and np.bincount(splits.labels).tolist() == [100] * 10
    x = splits.images.reshape(1000, -1).astype(float)
    means = np.stack([x[splits.train][splits.labels[splits.train] == k].mean(0) for k in range(10)])
    nearest = np.argmin(((x[splits.test][:, None] - means) ** 2).sum(2), axis=1)
    accuracy = np.mean(nearest == splits.labels[splits.test])
    assert 0.4 < accuracy < 0.95  # chance: 0.1; seen: 0.79


def test_synthetic_pixels_are_those_of_its_version(cache: Path) -> None:
    _, splits = describe_and_load(config("synthetic", num_examples=4, image_size=5, num_classes=2), cache)
    assert int(splits.images.astype(np.int64).sum()) == SYNTHETIC_SUM
    assert splits.images[3, 4, 4].tolist() == SYNTHETIC_PIXEL


def test_synthetic_follows_the_split_seed(cache: Path) -> None:
    given = config("synthetic", num_examples=8, image_size=4)
    first, second = (describe_and_load(dataclasses.replace(given, split_seed=s), cache)[1].images for s in (0, 1))
    assert not np.array_equal(first, second)


def test_parquet_keeps_rows_pixels_and_labels(tmp_path: Path, cache: Path) -> None:
    info, splits = describe_and_load(config(parquet_folder(tmp_path / "set")), cache)
    assert dataclasses.astuple(info)[1:] == (SIDE, 1, 2, 18, 2, 4)
    assert splits.images[:, 0, 0, 0].tolist() == list(range(24))
    assert splits.labels.tolist() == [v % 2 for v in range(24)]
    assert splits.test.tolist() == [20, 21, 22, 23]


def test_image_folders_and_saved_data_sets_are_read(tmp_path: Path, cache: Path) -> None:
    import datasets

    folder = image_folder(tmp_path / "set")
    info, splits = describe_and_load(config(folder), cache)
    assert (info.num_classes, len(splits.labels)) == (2, 16)
    assert {int(v) % 10 for v in splits.images[splits.labels == 0, 0, 0, 0]} == {3}
    saved = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "arrow"))
    saved.save_to_disk(str(tmp_path / "saved"))
    saved["train"].save_to_disk(str(tmp_path / "saved_split"))
    for name in ("saved", "saved_split"):
        assert np.array_equal(describe_and_load(config(tmp_path / name), cache)[1].images, splits.images)


def test_words_become_classes_in_sorted_order(tmp_path: Path, cache: Path) -> None:
    write_parquet(tmp_path / "set" / "train.parquet", [png(v) for v in range(10)], ["dog", "cat"] * 5)
    _, splits = describe_and_load(config(tmp_path / "set"), cache)
    assert splits.labels.tolist() == [1, 0] * 5


def test_colour_is_kept_if_any_image_has_it_and_made_grey_on_request(tmp_path: Path, cache: Path) -> None:
    images = [png(v) for v in range(9)] + [png(200, "RGB")]
    write_parquet(tmp_path / "set" / "train.parquet", images, [0, 1] * 5)
    info, splits = describe_and_load(config(tmp_path / "set"), cache)
    assert info.image_channels == 3
    assert splits.images[4, 0, 0].tolist() == [4, 4, 4] and splits.images[9, 0, 0].tolist() == [200, 0, 55]
    grey, splits = describe_and_load(config(tmp_path / "set", image_channels=1), cache)
    assert grey.image_channels == 1 and splits.images[9, 0, 0, 0] == round(0.299 * 200 + 0.114 * 55)


def test_sixteen_bit_greys_are_scaled_and_not_cut_off(tmp_path: Path, cache: Path) -> None:
    files = []
    for value in (257 * 100, 2**16 - 1):
        files.append(io.BytesIO())
        Image.fromarray(np.full((SIDE, SIDE), value, np.uint16)).save(files[-1], "PNG")
    write_parquet(tmp_path / "set" / "train.parquet", [file.getvalue() for file in files] * 5, [0, 1] * 5)
    info, splits = describe_and_load(config(tmp_path / "set"), cache)
    assert info.image_channels == 1 and splits.images[:, 0, 0, 0].tolist() == [100, 255] * 5


def test_a_photograph_is_turned_as_its_camera_noted(tmp_path: Path, cache: Path) -> None:
    pixels = np.arange(SIDE**2, dtype=np.uint8).reshape(SIDE, SIDE)
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    write_parquet(tmp_path / "set" / "train.parquet", [file.getvalue()] * 10, [0, 1] * 5)
    _, splits = describe_and_load(config(tmp_path / "set"), cache)
    assert np.array_equal(splits.images[0, :, :, 0], pixels[::-1, ::-1])


def save_to_disk(folder: Path, **parts: dict[str, list[Any]]) -> Path:
    """Splits with a column `img`, a column `kind` of classes and whole numbers in all other columns."""
    import datasets

    kinds = {"img": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b", "c"])}
    made = {}
    for name, columns in parts.items():
        features = datasets.Features({key: kinds.get(key, datasets.Value("int64")) for key in columns})
        images = [{"bytes": png(1), "path": None}] * len(next(iter(columns.values())))
        made[name] = datasets.Dataset.from_dict({**columns, "img": images}, features)
    datasets.DatasetDict(made).save_to_disk(str(folder))
    return folder


def test_a_column_of_classes_comes_before_whole_numbers(tmp_path: Path, cache: Path) -> None:
    columns = {"row": [5, 6, 7, 8], "kind": [0, 1, 0, 1], "img": []}
    info, splits = describe_and_load(config(save_to_disk(tmp_path / "set", train=columns), test_fraction=0.5), cache)
    assert info.num_classes == 3 and splits.labels.tolist() == [0, 1, 0, 1]


def test_images_are_resized_with_averaging(tmp_path: Path, cache: Path) -> None:
    stripes = np.zeros((16, 16), np.uint8)
    stripes[:, ::2] = 200
    file = io.BytesIO()
    Image.fromarray(stripes).save(file, "PNG")
    write_parquet(tmp_path / "set" / "train.parquet", [file.getvalue(), png(7, size=(9, 4))] * 5, [0, 1] * 5)
    info, splits = describe_and_load(config(tmp_path / "set", image_size=4), cache)
    assert info.image_size == 4
    assert np.abs(splits.images[0, :, 1:3, 0].astype(int) - 100).max() <= 12  # without averaging: 0 or 200
    assert (splits.images[1] == 7).all()


# Mistakes


def test_a_source_that_is_nowhere_names_the_nearest(cache: Path) -> None:
    assert_fails(config("digit"), cache, "data.source", "'digit' is neither", "did you mean 'digits'")
    assert_fails(config("./no/such"), cache, "data.source", "neither an existing folder nor", "synthetic")


def test_an_unreachable_hub_id_is_an_error(cache: Path) -> None:
    assert_fails(config("someone/something"), cache, "data.source", "neither an existing folder nor", "hub")


@pytest.mark.parametrize("source", ["[a, b", "no such", "1:00:00", "a#b", "x" * 1000, "a/b/c", "./" + "x" * 1000])
def test_what_can_be_no_id_is_not_asked_for_at_the_hub(
    source: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MixlabError) as caught:
        data.describe(config(source), cache, "a.yaml")
    assert "asking the hub" not in capsys.readouterr().err and len(str(caught.value)) <= 300


def test_an_empty_folder_or_a_file_is_an_error(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / ".hidden").write_text("x")
    assert_fails(config(tmp_path / "set"), cache, "data.source", "is an empty folder")
    assert_fails(config(tmp_path / "set" / ".hidden"), cache, "data.source", "no data of a known kind", "no suffix (1)")


def test_a_folder_without_data_is_an_error(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.parquet").write_text("no parquet")
    assert_fails(config(tmp_path / "set"), cache, "data.source", "cannot be read as Parquet")


def test_a_split_without_rows_is_an_error(tmp_path: Path, cache: Path) -> None:
    folder = parquet_folder(tmp_path / "set")
    path = folder / "test-00000-of-00001.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    assert_fails(config(folder), cache, "data.source", "split 'test'", "no examples")


@pytest.mark.parametrize("field", ["train_split", "test_split"])
def test_a_split_that_does_not_exist_is_an_error(tmp_path: Path, cache: Path, field: str) -> None:
    folder = parquet_folder(tmp_path / "set")
    hint = ("allowed: train, test", "did you mean 'train'")
    assert_fails(config(folder, **{field: "trian"}), cache, f"data.{field}", "no split 'trian'", *hint)
    assert_fails(config(**{field: "trian"}), cache, f"data.{field}", "no split 'trian'", "allowed: train;")


def test_testing_on_the_training_split_is_an_error(tmp_path: Path, cache: Path) -> None:
    given = config(parquet_folder(tmp_path / "set"), test_split="train")
    assert_fails(given, cache, "data.test_split", "is the training split", "allowed: test")


def test_one_class_only_is_an_error(tmp_path: Path, cache: Path) -> None:
    write_parquet(tmp_path / "set" / "train.parquet", [png(v) for v in range(10)], [0] * 10)
    assert_fails(config(tmp_path / "set"), cache, "data.source", "of one class", "at least 2")


def test_columns_that_cannot_be_found_are_listed(tmp_path: Path, cache: Path) -> None:
    folder = parquet_folder(tmp_path / "set")
    assert_fails(config(folder, image_column="imgs"), cache, "data.image_column", "img, label", "did you mean 'img'")
    assert_fails(config(folder, label_column="lable"), cache, "data.label_column", "img, label", "mean 'label'")
    assert_fails(config(folder, label_column="img"), cache, "data.label_column", "got 'img'")
    assert_fails(config(folder, image_column="label"), cache, "data.image_column", "expected a column of images")
    (tmp_path / "text").mkdir()
    pq.write_table(pa.table({"label": [0, 1], "note": ["a", "b"]}), tmp_path / "text" / "train.parquet")
    assert_fails(config(tmp_path / "text"), cache, "data.image_column", "expected a column of images", "label, note")


def test_several_columns_that_fit_are_listed(tmp_path: Path, cache: Path) -> None:
    path = parquet_folder(tmp_path / "set", num_test=0) / "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("coarse", table["label"]), path)
    assert_fails(config(tmp_path / "set"), cache, "data.label_column", "several columns", "label (0, 1), coarse")
    assert data.describe(config(tmp_path / "set", label_column="coarse"), cache, WHERE).num_classes == 2


def test_a_test_label_that_was_never_trained_on_is_an_error(tmp_path: Path, cache: Path) -> None:
    folder = parquet_folder(tmp_path / "set", num_test=0)
    write_parquet(folder / "test.parquet", [png(1), png(2)], [1, 2])
    assert_fails(config(folder), cache, "data.label_column", "split 'test'", "2 in row 1", "allowed: 0, 1")


def test_a_test_split_without_the_column_of_classes_is_an_error_where_it_is_asked_for(
    tmp_path: Path, cache: Path
) -> None:
    train, test = {"kind": [0, 1], "img": []}, {"other": [0, 1], "img": []}
    folder = save_to_disk(tmp_path / "set", train=train, test=test)
    assert_fails(config(folder, test_split="test"), cache, "data.label_column", "2 of 2 examples of split 'test'")


def test_a_missing_label_is_an_error(tmp_path: Path, cache: Path) -> None:
    write_parquet(tmp_path / "set" / "train.parquet", [png(v) for v in range(10)], [0, 1, None] + [1] * 7)
    assert_fails(config(tmp_path / "set"), cache, "data.label_column", "1 of 10 examples of split 'train'", "row 2")


def test_images_of_unequal_size_or_not_square_name_the_size_found(tmp_path: Path, cache: Path) -> None:
    write_parquet(tmp_path / "a" / "train.parquet", [png(1)] * 9 + [png(1, size=(7, 7))], [0, 1] * 5)
    assert_fails(config(tmp_path / "a"), cache, "data.image_size", "image 9 of split 'train' is 7 x 7", "6 x 6")
    write_parquet(tmp_path / "b" / "train.parquet", [png(1, size=(7, 5))] * 10, [0, 1] * 5)
    assert_fails(config(tmp_path / "b"), cache, "data.image_size", "is 7 x 5", "such as 5")


@pytest.mark.parametrize("bad", [b"no image", png(3)[:-30], None], ids=["foreign", "truncated", "missing"])
def test_an_unreadable_image_names_its_split_and_row(tmp_path: Path, cache: Path, bad: bytes | None) -> None:
    folder = parquet_folder(tmp_path / "set", num_test=0)
    write_parquet(folder / "test.parquet", [png(1), png(1), bad], [0, 1, 0])
    assert_fails(config(folder), cache, "data.source", "image 2 of split 'test' cannot be read")


def test_an_unreadable_file_is_named(tmp_path: Path, cache: Path) -> None:
    path = image_folder(tmp_path / "set") / "train" / "cat" / "3.png"
    path.write_bytes(path.read_bytes()[:-30])
    assert_fails(config(tmp_path / "set"), cache, "data.source", f", {path}, cannot be read")


def test_two_channels_are_an_error(cache: Path) -> None:
    assert_fails(config(image_channels=2), cache, "data.image_channels", "expected 1 (grey) or 3 (colour)", "got 2")


def test_data_larger_than_memory_is_an_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = type("Memory", (), {"available": 3 * 2**20})
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    given = config("synthetic", num_examples=1000, image_size=64)
    assert_fails(given, cache, "data.source", "0.01 GiB", "0.00 GiB of memory", "data.image_size")
    assert data.describe(dataclasses.replace(given, image_size=8), cache, WHERE).image_size == 8


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("validation_fraction", {"num_examples": 5, "validation_fraction": 0.9}),
        ("test_fraction", {"num_examples": 4, "test_fraction": 0.01}),
        ("test_fraction", {"num_examples": 4, "test_fraction": 0.9}),
    ],
)
def test_a_fraction_that_leaves_nothing_is_an_error(cache: Path, field: str, fields: dict[str, Any]) -> None:
    assert_fails(config("synthetic", image_size=4, **fields), cache, f"data.{field}", str(fields[field]))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_cache_that_cannot_be_written_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    assert_fails(config("synthetic", image_size=4), cache, f"data cache {cache}", os.strerror(number))
    assert not [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize("successes", [0, 1, 2, 3])
def test_nothing_half_written_stays_wherever_the_disk_fills_up(
    cache: Path, monkeypatch: pytest.MonkeyPatch, successes: int
) -> None:
    calls: list[int] = []

    def refuse(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > successes:
            raise OSError(errno.ENOSPC, "No space left on device")

    given = config("synthetic", image_size=4)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        assert_fails(given, cache, f"data cache {cache}", "No space left on device")
    assert not list(cache.rglob(".*"))
    assert data.describe(given, cache, WHERE).image_size == 4


def test_a_disk_that_fills_up_while_the_library_converts_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def fill(*_: Any, **__: Any) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise datasets.exceptions.DatasetGenerationError("generation failed") from error

    monkeypatch.setattr(datasets, "load_dataset", fill)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: SimpleNamespace(hash="1"))
    assert_fails(config("someone/something"), cache, f"data cache {cache}", "No space left")


def test_a_cache_below_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    given = config("synthetic", image_size=4)
    assert_fails(given, tmp_path / "file" / "cache", f"data cache {tmp_path / 'file' / 'cache'}")


def test_images_of_colour_are_opened_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Raw] = []
    really_open = opening.opened

    def count(raw: Raw) -> Image.Image:
        opened.append(raw)
        return really_open(raw)

    monkeypatch.setattr(opening, "opened", count)
    data.describe(config(parquet_folder(tmp_path / "set", mode="RGB")), cache, WHERE)
    assert len(opened) == 25  # the first also tells size and channels
