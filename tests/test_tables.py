"""Tables of images: which files are of which split, which columns count, and what stands for a class."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backends.errors import MixlabError
from experiments import data
from experiments.data import table_files
from tests.conftest import fresh_cache
from tests.reading import WHERE, given, png, read, refusal, said

cache = fresh_cache

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def table(path: Path, num: int = 8, first: int = 0, **columns: Any) -> Path:
    """A Parquet file of images, image i all of the value first + i; returns its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = pa.array([{"bytes": png(first + row), "path": None} for row in range(num)], STRUCT)
    pq.write_table(pa.table({"image": images, **columns}), path)
    return path.parent


def pictures(folder: Path, *names: str) -> Path:
    for row, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(row + 1))
    return folder


def labels(source: Path, cache: Path, **fields: Any) -> list[int]:
    return read(source, cache, **{"test_fraction": 0.5, **fields})[1]


def classes(source: Path, cache: Path, **fields: Any) -> tuple[str, ...]:
    config = given(source, test_fraction=0.5, **fields)
    found: tuple[str, ...] = data.facts(config, data.describe(config, cache, WHERE), cache).classes
    return found


# Columns


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("id", [0, 0, 1, 1, 2, 2, 3, 3]),
        ("Index", [0, 0, 1, 1, 2, 2, 3, 3]),
        ("image_id", [0, 0, 1, 1, 2, 2, 3, 3]),
        ("__index_level_0__", [0, 0, 1, 1, 2, 2, 3, 3]),
        ("number", list(range(8))),
        ("title", [f"picture {row}" for row in range(8)]),
        ("checked", [True, False] * 4),
        ("is_train", ["True", "False", "True", None] * 2),
        ("used", ["true"] * 5 + ["false"] * 3),
        ("source", ["camera"] * 8),
    ],
)
def test_a_column_that_counts_rows_is_no_class_beside_a_better_one(
    source: Path, cache: Path, name: str, values: list[Any]
) -> None:
    table(source / "train.parquet", **{name: values}, breed=["cat", "dog"] * 4)
    assert labels(source, cache) == [0, 1] * 4
    assert f"column 'breed' is the class; not taken: {name}" in said(source, cache)


def test_the_column_that_is_named_is_taken(source: Path, cache: Path) -> None:
    table(source / "train.parquet", id=[2, 1] * 4, breed=["cat", "dog"] * 4)
    assert labels(source, cache, label_column="id") == [1, 0] * 4


def test_such_a_column_is_the_class_where_it_is_the_only_one(source: Path, cache: Path) -> None:
    assert labels(table(source / "train.parquet", id=[0, 1] * 4), cache) == [0, 1] * 4
    note = "column 'id' is the class for want of another; its name or values are not those of classes"
    assert said(source, cache, test_fraction=0.5) == (note,)


@pytest.mark.parametrize("name", ["class_id", "label_id", "category"])
def test_names_of_classes_are_no_names_of_rows(source: Path, cache: Path, name: str) -> None:
    table(source / "train.parquet", **{name: [3, 4] * 4}, id=[5, 6] * 4)
    assert classes(source, cache) == ("3", "4")


def test_two_candidates_are_a_question_with_three_values_of_each(source: Path, cache: Path) -> None:
    table(source / "train.parquet", breed=["cat", "dog", "cow", "ant"] * 2, size=[10, 20] * 4)
    message = refusal(source, cache)
    assert "data.label_column: several columns can hold the classes" in message
    assert "breed (cat, dog, cow, ...)" in message and "size (10, 20)" in message
    assert classes(source, cache, label_column="breed") == ("ant", "cat", "cow", "dog")


def test_two_columns_that_a_file_notes_as_classes_are_a_question(source: Path, cache: Path) -> None:
    table(source / "train.parquet", fine=[0, 1, 2, 1] * 2, coarse=[0, 1, 1, 1] * 2, size=[10, 20] * 4)
    one = pq.read_table(source / "train.parquet")
    kinds = {"fine": ["cat", "dog", "cow"], "coarse": ["pet", "farm"]}
    features = {name: {"names": names, "_type": "ClassLabel"} for name, names in kinds.items()}
    noted = one.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(noted, source / "train.parquet")
    assert "can hold the classes: fine (cat, dog, cow, ...), coarse (pet, farm); name one" in refusal(source, cache)
    assert classes(source, cache, label_column="coarse") == ("pet", "farm")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("is_train", [True, False] * 4),
        ("isTest", [0, 1] * 4),
        ("fold", [0, 1, 2, 3] * 2),
        ("kfold", [0, 1, 2, 3] * 2),
        ("split", [0, 1] * 4),
        ("in_val", ["yes", "no"] * 4),
    ],
)
def test_a_column_that_may_say_the_split_is_never_left_aside_in_silence(
    source: Path, cache: Path, name: str, values: list[Any]
) -> None:
    table(source / "train.parquet", breed=["cat", "dog"] * 4, age=[0.5] * 8, **{name: values})
    (note,) = said(source, cache, label_column="breed", test_fraction=0.5)
    assert note.startswith(f"not read, though the name may say the split of each row: {name};")


def test_a_column_of_splits_that_is_read_has_no_such_note(source: Path, cache: Path) -> None:
    table(source / "all.parquet", breed=["cat", "dog"] * 4, split=["train"] * 4 + ["test"] * 4, manifold=[0.5] * 8)
    assert said(source, cache, label_column="breed") == ("column 'split' says the split of each row",)


def test_a_fraction_that_is_no_whole_number_is_no_class(source: Path, cache: Path) -> None:
    table(source / "train.parquet", label=[0, 1] * 4, weight=[0.5, 1.0] * 4)
    assert labels(source, cache) == [0, 1] * 4
    assert "got 'weight'" in refusal(source, cache, label_column="weight")


def test_a_column_of_encoded_images_needs_no_note_of_a_library(source: Path, cache: Path) -> None:
    source.mkdir()
    images = pa.array([png(row) for row in range(8)], pa.binary())
    pq.write_table(pa.table({"png": images, "raw": [b"\1\2"] * 8, "y": [0, 1] * 4}), source / "train.parquet")
    assert read(source, cache)[0][:, 0, 0, 0].tolist() == list(range(8))


# Classes


@pytest.mark.parametrize("values", [[1, 2] * 4, [3, 7] * 4, [0, 2] * 4, [1.0, 2.0] * 4])
def test_class_numbers_from_1_or_with_gaps_are_numbered_anew(source: Path, cache: Path, values: list[Any]) -> None:
    table(source / "train.parquet", label=values)
    assert labels(source, cache) == [0, 1] * 4
    first, second = (str(int(value)) for value in values[:2])
    assert classes(source, cache) == (first, second)
    assert f"class numbers {first}, {second} are numbered anew from 0 to 1" in said(source, cache)


def test_class_numbers_are_ordered_by_value_whichever_comes_first(source: Path, cache: Path) -> None:
    table(source / "train.parquet", num=9, label=[30, 1, 200] * 3)
    assert classes(source, cache) == ("1", "30", "200") and labels(source, cache)[:3] == [1, 0, 2]


def test_of_several_folders_the_one_called_data_has_the_tables(source: Path, cache: Path) -> None:
    table(source / "data" / "train.parquet", label=[0, 1] * 4)
    table(source / "other" / "train.parquet", label=[1, 0] * 4)
    assert labels(source, cache) == [0, 1] * 4


@pytest.mark.parametrize("values", [[0, 1] * 4, [0.0, 1.0] * 4, [False, True] * 4])
def test_class_numbers_from_0_are_taken_as_they_are(source: Path, cache: Path, values: list[Any]) -> None:
    table(source / "train.parquet", label=values)
    assert labels(source, cache) == [0, 1] * 4 and said(source, cache) == ()


def test_texts_of_numbers_sort_by_value(source: Path, cache: Path) -> None:
    table(source / "train.parquet", num=12, label=[str(row) for row in (10, 9, 2)] * 4)
    assert classes(source, cache) == ("2", "9", "10") and labels(source, cache)[:3] == [2, 1, 0]
    table(source / "train.parquet", num=12, label=["10.0", "9.0", "2.0"] * 4)
    assert classes(source, cache) == ("2", "9", "10") and labels(source, cache)[:3] == [2, 1, 0]
    table(source / "train.parquet", num=12, label=["010", "009", "02"] * 4)
    assert classes(source, cache) == ("02", "009", "010")


@pytest.mark.parametrize("missing", [None, -1, float("nan")])
def test_training_examples_without_a_class_are_counted(source: Path, cache: Path, missing: Any) -> None:
    kind = pa.float64() if missing != missing else pa.int64()
    table(source / "train.parquet", label=pa.array([0, 1, missing, 1, missing, 0, 1, 0], kind))
    message = refusal(source, cache)
    assert "data.label_column: 'label': 2 of 8 examples of split 'train' have no class" in message
    assert "the first in row 2" in message


@pytest.mark.parametrize("missing", [None, -1])
def test_a_test_split_without_classes_is_left_out_unless_it_is_asked_for(
    source: Path, cache: Path, missing: Any
) -> None:
    table(source / "train.parquet", label=[0, 1] * 4)
    table(source / "validation.parquet", num=4, first=20, label=[1, 1, 0, 0])
    table(source / "test.parquet", num=3, first=40, label=pa.array([missing] * 3, pa.int64()))
    assert labels(source, cache) == [0, 1] * 4 + [1, 1, 0, 0]
    assert "split 'test' has no classes (3 examples) and is left out" in said(source, cache)
    assert "3 of 3 examples of split 'test' have no class" in refusal(source, cache, test_split="test")


def test_a_test_split_of_which_some_examples_have_no_class_is_an_error(source: Path, cache: Path) -> None:
    table(source / "train.parquet", label=[0, 1] * 4)
    table(source / "test.parquet", num=3, label=[0, -1, 1])
    assert "1 of 3 examples of split 'test' have no class" in refusal(source, cache)


def test_a_table_without_the_column_of_classes_is_a_split_without_classes(source: Path, cache: Path) -> None:
    table(source / "train.parquet", label=[0, 1] * 4)
    table(source / "test.parquet", num=3, note=["x"] * 3)
    assert labels(source, cache) == [0, 1] * 4
    assert "split 'test' has no classes (3 examples) and is left out" in said(source, cache)


# Files and splits


def test_the_split_is_the_word_in_a_file_s_name(source: Path, cache: Path) -> None:
    table(source / "data" / "train-00000-of-00002.parquet", num=4, label=[0, 1] * 2)
    table(source / "data" / "train-00001-of-00002.parquet", num=4, first=4, label=[1, 0] * 2)
    table(source / "data" / "birds_TEST.parquet", num=2, first=8, label=[1, 1])
    images, found, splits = read(source, cache)
    assert found == [0, 1, 0, 1, 1, 0, 1, 0, 1, 1] and images[:, 0, 0, 0].tolist() == list(range(10))
    assert splits.test.tolist() == [8, 9]


def test_folders_named_by_splits_hold_the_tables_of_the_splits(source: Path, cache: Path) -> None:
    table(source / "Training" / "0.parquet", num=4, label=[0, 1] * 2)
    table(source / "val" / "0.parquet", num=2, first=4, label=[1, 1])
    assert labels(source, cache) == [0, 1, 0, 1, 1, 1]


def test_a_name_without_a_split_beside_names_with_one_is_a_question(source: Path, cache: Path) -> None:
    table(source / "train.parquet", label=[0, 1] * 4)
    table(source / "more.parquet", label=[0, 1] * 4)
    assert "the split of more.parquet is not clear" in refusal(source, cache)
    (source / "more.parquet").rename(source / "train_test.parquet")
    assert "the split of train_test.parquet is not clear" in refusal(source, cache)


def test_several_formats_or_folders_are_a_question(source: Path, cache: Path) -> None:
    for name in ("small", "large"):
        table(source / name / "train.parquet", label=[0, 1] * 4)
    assert "tables in several folders: large, small; name one of them with data.subset" in refusal(source, cache)
    assert labels(source, cache, subset="small") == [0, 1] * 4
    assert "no folder 'smal'; allowed: large, small; did you mean 'small'" in refusal(source, cache, subset="smal")
    (source / "small" / "train.csv").write_text("image,label\nx.png,1\n")
    assert "tables of several formats (CSV, Parquet)" in refusal(source, cache, subset="small")


def test_a_table_alone_may_be_the_source(source: Path, cache: Path) -> None:
    table(source / "train.parquet", label=[0, 1] * 4)
    table(source / "odd.parquet", label=[1, 0] * 4)
    assert labels(source / "odd.parquet", cache) == [1, 0] * 4


def test_a_column_of_split_words_cuts_a_table(source: Path, cache: Path) -> None:
    table(source / "all.parquet", label=[0, 1] * 4, split=["train"] * 4 + ["valid"] * 2 + ["test"] * 2)
    images, found, splits = read(source, cache)
    assert found == [0, 1] * 3 and images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 6, 7]
    assert splits.test.tolist() == [4, 5]
    assert "column 'split' says the split of each row" in said(source, cache)


def test_paths_that_all_begin_with_folders_of_splits_cut_a_table(source: Path, cache: Path) -> None:
    names = ["train/0.png", "./train/1.png", "Test/0.png", "train/2.png"]
    pictures(source, *names)
    csv(source / "metadata.csv", {name: "ab"[row % 2] for row, name in enumerate(names)})
    images, found, splits = read(source, cache)
    assert found == [0, 1, 1, 0] and images[:, 0, 0, 0].tolist() == [1, 2, 4, 3] and splits.test.tolist() == [3]
    assert "column 'file_name' says the split of each row" in said(source, cache)


def test_a_saved_data_set_that_is_not_whole_is_a_sentence(source: Path, cache: Path) -> None:
    source.mkdir()
    (source / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert "is a saved data set that is not whole" in refusal(source, cache)


@pytest.mark.parametrize("name", ["[x] t", "a*b", "t #2", "c: d", "größe"])
def test_the_path_of_a_table_is_no_pattern(tmp_path: Path, cache: Path, name: str) -> None:
    table(tmp_path / "axb" / "train.parquet", label=[1, 0] * 4)
    assert labels(table(tmp_path / name / "train.parquet", label=[0, 1] * 4), cache) == [0, 1] * 4


def test_a_data_set_of_the_hub_is_read_as_any_table(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    features = datasets.Features({"img": datasets.Image(), "kind": datasets.ClassLabel(names=["b", "a", "c"])})

    def part(first: int, kinds: list[int]) -> Any:
        images = [{"bytes": png(first + row), "path": None} for row in range(len(kinds))]
        return datasets.Dataset.from_dict({"img": images, "kind": kinds}, features)

    asked = []
    opened = {"train": part(0, [0, 1, 0, 1]), "valid": part(9, [1, 0]), "test": part(20, [-1, -1])}
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: SimpleNamespace(hash="1"))
    monkeypatch.setattr(datasets, "load_dataset", lambda *names, **_: asked.append(names) or opened)
    hub = Path("someone/something")
    assert classes(hub, cache, subset="small") == ("b", "a", "c")
    assert read(hub, cache, subset="small")[1] == [0, 1, 0, 1, 1, 0] and asked == [("someone/something", "small")]
    assert "split 'test' has no classes (2 examples) and is left out" in said(hub, cache, subset="small")


# Tables of file names


def csv(path: Path, rows: dict[str, str], header: str = "file_name,label") -> Path:
    path.write_text("\n".join([header, *(f"{file},{label}" for file, label in rows.items())]) + "\n")
    return path.parent


@pytest.mark.parametrize("name", ["metadata.csv", "labels.csv", "train.csv"])
def test_images_beside_a_table_have_the_classes_of_its_rows(source: Path, cache: Path, name: str) -> None:
    pictures(source, "b.png", "a.png", "deep/c.png")
    csv(source / name, {"deep/c.png": "dog", "./a.png": "cat", "b.png": "dog"})
    images, found, _ = read(source, cache, test_fraction=0.5)
    assert found == [1, 0, 1] and images[:, 0, 0, 0].tolist() == [3, 2, 1]


def test_a_table_lies_in_the_folder_of_its_split(source: Path, cache: Path) -> None:
    for split, label in (("train", "cat"), ("test", "dog")):
        pictures(source / split, "0.png", "1.png")
        csv(source / split / "metadata.csv", {"0.png": "dog", "1.png": label})
    assert labels(source, cache) == [1, 0, 1, 1]


def test_images_without_a_row_and_rows_without_an_image_are_counted(source: Path, cache: Path) -> None:
    pictures(source, *(f"{row}.png" for row in range(6)))
    csv(source / "metadata.csv", {f"{row}.png": "cd"[row % 2] for row in range(4)})
    assert "2 of 6 images have no row in the table: 4.png, 5.png" in refusal(source, cache)
    csv(source / "metadata.csv", {f"{row}.png": "cd"[row % 2] for row in range(9)})
    assert "3 of 9 rows of the table name images that are not there, the first '6.png'" in refusal(source, cache)


def test_names_without_a_suffix_are_rows_without_an_image(source: Path, cache: Path) -> None:
    pictures(source, "0.png", "1.png")
    csv(source / "labels.csv", {"0": "a", "1": "b"})
    assert "with suffixes such as .png, among the columns file_name, label" in refusal(source, cache)
    assert "2 of 2 rows of the table name images that are not there" in refusal(source, cache, image_column="file_name")


def test_an_image_of_several_rows_is_said(source: Path, cache: Path) -> None:
    pictures(source, "0.png", "1.png")
    (source / "labels.csv").write_text("file_name,label\n0.png,a\n1.png,b\n./1.png,b\n1.png,b\n")
    assert labels(source, cache) == [0, 1, 1, 1]
    assert "2 rows of the table name an image that an earlier row names" in said(source, cache, test_fraction=0.5)


def test_an_image_of_two_classes_is_refused(source: Path, cache: Path) -> None:
    pictures(source, "0.png", "1.png")
    (source / "labels.csv").write_text("file_name,label\n0.png,a\n1.png,b\n./0.png,b\n")
    assert "image './0.png' of split 'train' has rows of two classes, 'a' and 'b'" in refusal(source, cache)


def test_images_and_tables_in_folders_that_are_not_read_are_counted(source: Path, cache: Path) -> None:
    pictures(source / "train", "0.png", "1.png")
    csv(source / "train" / "metadata.csv", {"0.png": "a", "1.png": "b"})
    pictures(source / "test", "2.png", "3.png", "4.png")
    assert labels(source, cache) == [0, 1]
    assert "3 images and tables in other folders ignored: test/" in said(source, cache, test_fraction=0.5)


@pytest.mark.parametrize("path", ["1.png", "set/imgs/1.png", r"imgs\\1.png", "imgs/1.PNG"])
def test_a_path_that_leads_nowhere_names_the_image_that_it_may_mean(source: Path, cache: Path, path: str) -> None:
    pictures(source, "imgs/0.png", "imgs/1.png")
    csv(source / "labels.csv", {"imgs/0.png": "a", path: "b"})
    assert f"paths are relative to {source}; did you mean 'imgs/1.png'?" in refusal(source, cache)


def test_what_a_csv_lacks_is_said(source: Path, cache: Path) -> None:
    pictures(source, "0.png", "1.png")
    (source / "labels.csv").write_text("0.png,a\n1.png,b\n")
    assert "the table begins without a header, with 0.png, a; add one" in refusal(source, cache)
    (source / "labels.csv").write_text("file,label\n")
    assert "the table has the columns file, label and no rows" in refusal(source, cache)
    (source / "labels.csv").write_bytes("file,label\n0.png,th\u00e9\n1.png,b\n".encode("latin-1"))
    assert "save it as UTF-8" in refusal(source, cache)


def test_a_file_of_zeros_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no room, and fits into no memory
    with pytest.raises(MixlabError, match=r"labels\.csv begins with zeros"):
        table_files.open_table([path], WHERE)


@pytest.mark.parametrize("other", ["unlabeled", "", "PrivateTest"])
def test_a_column_of_splits_with_other_words_is_never_left_aside(source: Path, cache: Path, other: str) -> None:
    table(source / "all.parquet", label=[0, 1] * 4, split=["train"] * 4 + [other] * 2 + ["test"] * 2)
    for fields in ({}, {"label_column": "label"}):
        assert f"column 'split' holds split words and others: {other!r}" in refusal(source, cache, **fields)


def test_other_tables_beside_metadata_are_ignored_and_named(source: Path, cache: Path) -> None:
    pictures(source, "0.png", "1.png")
    csv(source / "metadata.csv", {"0.png": "a", "1.png": "b"})
    csv(source / "other.csv", {"0.png": "b", "1.png": "a"})
    assert labels(source, cache) == [0, 1]
    assert "1 table beside metadata.csv ignored: other.csv" in said(source, cache, test_fraction=0.5)


def test_paths_in_parquet_and_json_are_relative_to_the_table(
    source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cache.parent)
    pictures(source, "imgs/0.png", "imgs/1.png")
    pictures(cache.parent / "imgs", "0.png")  # of the working folder, and not to be read
    rows = {"image": ["imgs/1.png", "imgs/0.png"], "label": [0, 1]}
    pq.write_table(pa.table(rows), source / "train.parquet")
    assert read(source, cache, test_fraction=0.5)[0][:, 0, 0, 0].tolist() == [2, 1]
    (source / "train.parquet").unlink()
    (source / "train.jsonl").write_text('{"label": 0, "image": "imgs/1.png"}\n{"image": "imgs/0.png", "label": 1}\n')
    assert read(source, cache, test_fraction=0.5)[0][:, 0, 0, 0].tolist() == [2, 1]


def test_paths_out_of_the_folder_are_said(source: Path, cache: Path) -> None:
    pictures(source.parent / "far", "0.png", "1.png")
    source.mkdir()
    csv(source / "train.csv", {"../far/0.png": "a", str(source.parent / "far" / "1.png"): "b"})
    assert labels(source, cache) == [0, 1]
    assert f"2 images outside {source}: a change there is not noticed" in said(source, cache, test_fraction=0.5)


def test_values_of_csv_stay_as_they_are_written(source: Path, cache: Path) -> None:
    names = ["NA", "null", "007", "1e3", "True"]
    pictures(source, *(f"{row}.png" for row in range(5)))
    csv(source / "labels.csv", {f"{row}.png": name for row, name in enumerate(names)})
    assert classes(source, cache, label_column="label") == tuple(sorted(names))


@pytest.mark.parametrize("mark", [";", "\t"])
def test_csv_may_be_separated_by_semicolons_or_tabs(source: Path, cache: Path, mark: str) -> None:
    pictures(source, "0.png", "1.png", "2.png", "3.png")
    rows = ["file_name,label", *(f"{row}.png,{row % 2 + 1}" for row in range(4))]
    (source / "labels.csv").write_text("\n".join(rows).replace(",", mark) + "\n")
    assert labels(source, cache) == [0, 1, 0, 1] and classes(source, cache) == ("1", "2")
