"""Folders of images: what the first level decides, what is ignored and said, and in which order classes stand."""

import itertools
import os
import tempfile
from pathlib import Path

import pytest

from backends.errors import MixlabError
from experiments import data
from experiments.data import layout, tree, words
from tests.conftest import fresh_cache
from tests.reading import WHERE, given, png, read, refusal, said

cache = fresh_cache

VALUES = itertools.cycle(range(1, 256))


def images(folder: Path, *classes: str, num: int = 2) -> Path:
    for name in classes:
        for row in range(num):
            path = folder / name / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(next(VALUES)))
    return folder


def splits(folder: Path, *names: str, classes: tuple[str, ...] = ("a", "b")) -> Path:
    for name in names:
        images(folder / name, *classes)
    return folder


def counts(source: Path, cache: Path, **fields: object) -> tuple[int, int, tuple[str, ...]]:
    """Training and test examples of the source's splits, and the classes in order."""
    config = given(source, test_fraction=0.5, **fields)
    info = data.describe(config, cache, WHERE)
    about = data.load(config, info, cache).about
    return about.num_train, about.num_test, data.facts(config, info, cache).classes


# Classes or splits


@pytest.mark.parametrize("train", ["train", "training", "trainset", "Train", "TRAINING"])
@pytest.mark.parametrize("test", ["test", "testing", "testset", "eval", "Test"])
def test_split_words_in_any_case_are_splits(source: Path, cache: Path, train: str, test: str) -> None:
    images(source / train, "a", "b", num=3)
    images(source / test, "a", "b", num=2)
    assert counts(source, cache) == (6, 4, ("a", "b"))


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev", "Val"])
def test_a_validation_split_is_asked_for_by_any_of_its_names(source: Path, cache: Path, name: str) -> None:
    splits(source, "train", name, "test")
    images(source / name, "a", num=5)
    assert counts(source, cache, test_split="validation")[:2] == (4, 7)
    assert counts(source, cache, test_split=name)[:2] == (4, 7)


def test_the_test_split_is_tested_on_before_the_validation_split(source: Path, cache: Path) -> None:
    splits(source, "train", "validation", "test")
    images(source / "validation", "a", num=5)
    assert counts(source, cache)[:2] == (4, 4)


def test_folders_that_no_split_word_names_are_classes(source: Path, cache: Path) -> None:
    assert counts(images(source, "cat", "dog", "trainer"), cache) == (6, 0, ("cat", "dog", "trainer"))


def test_a_class_may_be_called_train(source: Path, cache: Path) -> None:
    splits(source, "train", "test", classes=("bus", "plane", "train"))
    assert counts(source, cache) == (6, 6, ("bus", "plane", "train"))
    assert counts(images(source.with_name("flat"), "bus", "plane", "train"), cache) == (6, 0, ("bus", "plane", "train"))


def test_words_in_file_names_say_nothing(source: Path, cache: Path) -> None:
    images(source, "a", "b")
    (source / "a" / "my train 1.png").write_bytes(png(1))
    (source / "b" / "test.png").write_bytes(png(2))
    assert counts(source, cache)[:2] == (6, 0)


def test_folders_of_folders_beside_two_split_words_are_splits(source: Path, cache: Path) -> None:
    splits(source, "train", "val", "extra")
    assert counts(source, cache)[:2] == (4, 4)
    assert counts(source, cache, train_split="extra", test_split="train")[:2] == (4, 4)
    assert "split 'extra' is not used; data.train_split and data.test_split choose others" in said(source, cache)


@pytest.mark.parametrize("kind", ["one word, deep", "two words, flat", "mixed depth"])
def test_what_depth_does_not_decide_is_a_question_that_the_layout_answers(source: Path, cache: Path, kind: str) -> None:
    if kind == "one word, deep":
        splits(source, "bus", "plane", "train")
    elif kind == "two words, flat":
        images(source, "train", "test", "bus")
    else:
        splits(source, "train", "val")
        images(source, "bus")
    message = refusal(source, cache)
    assert "can be classes (" in message and "or splits (" in message and "data.layout: classes or splits" in message
    assert len(counts(source, cache, layout="classes")[2]) == 3
    if kind != "two words, flat":
        assert counts(source, cache, layout="splits")[2] == ("a", "b")


def test_two_names_that_hold_split_words_are_a_question(source: Path, cache: Path) -> None:
    splits(source, "train_images", "test-images")
    assert "splits (test-images, train_images, with classes inside)" in refusal(source, cache)
    asked = {"layout": "splits", "train_split": "train_images", "test_split": "test-images"}
    assert counts(source, cache, **asked) == (4, 4, ("a", "b"))
    assert counts(images(source.with_name("toys"), "train set", "car", "doll"), cache)[0] == 6


def test_the_layout_that_is_given_is_held_to(source: Path, cache: Path) -> None:
    images(source, "train", "test")
    assert counts(source, cache, layout="classes") == (4, 0, ("test", "train"))
    assert "expected class folders in a split, but none of test, train has any" in refusal(
        source, cache, layout="splits"
    )
    images(source.with_name("one") / "train", "a")
    assert "has 1 class folder; expected two" in refusal(source.with_name("one"), cache, layout="classes")


def test_deeper_folders_belong_to_the_class_above(source: Path, cache: Path) -> None:
    for name in ("cat", "dog", "cow"):
        images(source / "train" / name, "adult", "young")
    assert counts(source, cache) == (12, 0, ("cat", "cow", "dog"))
    (note,) = said(source, cache, test_fraction=0.5)
    assert note.startswith(
        "images in folders below the class folders of train (cat/adult, cat/young, cow/adult and 3 more)"
    )
    assert note.endswith("belong to the class above: 12 of them")


def test_a_split_with_one_folder_is_refused_and_no_split_is_taken_for_a_data_set(source: Path, cache: Path) -> None:
    for split in ("train", "test"):
        images(source / split / split, "a", "b")
    message = refusal(source, cache)
    assert "the splits hold one folder each (test/test, train/train): move what is in it" in message
    assert "did you mean" not in message


def test_classes_that_are_all_called_as_splits_are_read_by_the_layout(source: Path, cache: Path) -> None:
    images(source, "train", "test")
    assert "to take these folders for classes, set data.layout: classes" in refusal(source, cache)
    assert counts(source, cache, layout="classes") == (4, 0, ("test", "train"))


def test_splits_below_classes_are_a_question(source: Path, cache: Path) -> None:
    for name in ("cat", "dog"):
        images(source / name, "train", "test")
    assert "cat holds the splits test, train; put splits above classes" in refusal(source, cache)
    assert counts(source, cache, layout="classes") == (8, 0, ("cat", "dog"))


def test_two_folders_of_one_split_are_refused(source: Path, cache: Path) -> None:
    splits(source, "train", "val", "valid")
    assert "val and valid are both the split 'validation'" in refusal(source, cache)


def test_one_class_is_refused_and_the_folder_that_holds_two_is_named(source: Path, cache: Path) -> None:
    images(source / "pictures", "a", "b")
    message = refusal(source, cache)
    assert (
        "neither two class folders nor a table" in message
        and f"did you mean data.source={source / 'pictures'}?" in message
    )


def test_names_that_differ_in_case_or_spaces_alone_are_said(source: Path, cache: Path) -> None:
    images(source, "cat", "Cat", "nan")
    notes = said(source, cache, test_fraction=0.5)
    assert "names of classes that differ in case or spaces alone are different classes: 'Cat' and 'cat'" in notes
    assert "names of classes that may stand for a missing value are taken as names: nan" in notes


def test_a_name_in_two_codings_of_unicode_is_refused(source: Path, cache: Path) -> None:
    images(source / "train", "caf\u00e9", "b")
    images(source / "test", "cafe\u0301", "b")
    assert r"in two codings of Unicode, 'cafe\u0301' and 'caf\xe9'" in refusal(source, cache)


# What has no class


def test_a_split_without_class_folders_is_left_out_and_an_error_where_it_is_asked_for(
    source: Path, cache: Path
) -> None:
    splits(source, "train", "val")
    images(source, "test", num=3)
    assert counts(source, cache)[:2] == (4, 4)
    assert "split 'test' has no classes and is left out" in said(source, cache)
    assert "data.test_split: split 'test' of" in refusal(source, cache, test_split="test")
    assert "allowed: train, validation" in refusal(source, cache, test_split="test")


def tiny_imagenet(source: Path, lines: dict[str, str]) -> Path:
    for name in ("n01", "n02"):
        images(source / "train" / name, "images")
        (source / "train" / name / f"{name}_boxes.txt").write_text("x")
    images(source / "val", "images", num=3)
    images(source / "test", "images", num=4)
    text = "".join(f"{file}\t{name}\t0\t0\t9\t9\n" for file, name in lines.items())
    (source / "val" / "val_annotations.txt").write_text(text)
    (source / "wnids.txt").write_text("n01\nn02\n")
    return source


def test_tiny_imagenet_is_read_as_it_unpacks(source: Path, cache: Path) -> None:
    tiny_imagenet(source, {"0.png": "n02", "1.png": "n01", "2.png": "n02"})
    _, labels, _ = read(source, cache)
    assert labels == [0, 0, 1, 1, 1, 0, 1]
    notes = said(source, cache)
    assert "split 'test' has no classes and is left out" in notes
    assert "1 name beside the splits of set ignored: wnids.txt" in notes
    assert "2 files of other types in the class folders of train ignored: .txt (2)" in notes


def test_annotations_that_leave_an_image_out_are_an_error(source: Path, cache: Path) -> None:
    tiny_imagenet(source, {"0.png": "n02", "1.png": "n01"})
    assert "1 images of split 'validation' have no line in val_annotations.txt" in refusal(source, cache)


def test_a_flat_split_is_read_by_the_table_in_it(source: Path, cache: Path) -> None:
    images(source / "train", "a", "b")
    images(source, "test", num=3)
    (source / "test" / "labels.csv").write_text("file,class\n0.png,b\n1.png,a\n2.png,b\n")
    assert read(source, cache)[1] == [0, 0, 1, 1, 1, 0, 1]


# What is ignored, counted and named


def test_what_holds_no_example_is_counted_and_named(source: Path, cache: Path) -> None:
    images(source, "a", "b")
    (source / "stray.png").write_bytes(png(1))
    (source / "a" / "0.txt").write_text("a caption")
    (source / "a" / "notes").write_text("x")
    (source / ".DS_Store").write_text("x")
    (source / "b" / ".hidden.png").write_bytes(png(2))
    (source / "__MACOSX").mkdir()
    (source / "empty").mkdir()
    (source / "texts").mkdir()
    (source / "texts" / "x.md").write_text("x")
    (source / "b" / "gone.png").symlink_to(source / "nowhere")
    assert counts(source, cache) == (4, 0, ("a", "b"))
    assert said(source, cache) == (
        "3 hidden names ignored: .DS_Store, __MACOSX, b/.hidden.png",
        "1 dead link ignored: b/gone.png",
        "1 empty folder ignored: empty/",
        "2 names beside the class folders of set ignored: stray.png, texts/ with .md (1)",
        "2 files of other types in the class folders of set ignored: .txt (1), no suffix (1)",
    )


def test_a_class_of_files_that_cannot_be_read_is_left_out_with_their_number(source: Path, cache: Path) -> None:
    images(source, "train/a", "train/b")
    (source / "train" / "c" / "deeper").mkdir(parents=True)
    for row, name in enumerate(("c/0.heic", "c/1.heic", "c/deeper/2.heic", "c/3.psd")):
        (source / "train" / name).write_bytes(bytes([row]))
    note = "1 name beside the class folders of train ignored: c/ with .heic (3), .psd (1)"
    assert said(source, cache, test_fraction=0.5) == (note,)


def test_names_with_underscores_in_front_are_read(source: Path, cache: Path) -> None:
    images(source, "__a", "_b", "c")
    assert counts(source, cache) == (6, 0, ("__a", "_b", "c"))


def test_suffixes_count_in_any_case(source: Path, cache: Path) -> None:
    images(source, "a", "b")
    for path in sorted((source / "a").iterdir()):
        path.rename(path.with_suffix(".PNG"))
    assert counts(source, cache)[0] == 4


def test_a_table_of_images_beside_class_folders_is_a_question(source: Path, cache: Path) -> None:
    images(source, "a", "b")
    (source / "labels.csv").write_text("file,class\na/0.png,x\na/1.png,y\nb/0.png,x\nb/1.png,y\n")
    assert "a table of images (labels.csv)" in refusal(source, cache)
    assert counts(source, cache, layout="classes")[2] == ("a", "b")
    (source / "labels.csv").write_text("class,words\na,apple\nb,ball\n")
    assert "1 name beside the class folders of set ignored: labels.csv" in said(source, cache)
    (source / "labels.csv").rename(source / "about.json")
    assert "1 name beside the class folders of set ignored: about.json" in said(source, cache)


# Links


def test_links_to_folders_and_files_are_followed(source: Path, tmp_path: Path, cache: Path) -> None:
    images(source, "a", "b")
    images(tmp_path / "store", "c", num=3)
    (source / "c").symlink_to(tmp_path / "store" / "c")
    (source / "a" / "9.png").symlink_to(tmp_path / "store" / "c" / "0.png")
    assert counts(source, cache) == (8, 0, ("a", "b", "c"))


def test_a_change_behind_a_link_is_other_data(source: Path, tmp_path: Path, cache: Path) -> None:
    images(source, "a")
    images(tmp_path / "store", "b")
    (source / "b").symlink_to(tmp_path / "store" / "b")
    first = data.describe(given(source, test_fraction=0.5), cache, WHERE).content
    (tmp_path / "store" / "b" / "0.png").write_bytes(png(0))
    assert data.describe(given(source, test_fraction=0.5), cache, WHERE).content != first


def test_a_link_to_a_folder_above_is_an_error(source: Path, cache: Path) -> None:
    images(source, "a", "b")
    (source / "a" / "again").symlink_to(source)
    assert f"{source / 'a' / 'again'} is a link to a folder that holds it" in refusal(source, cache)


# Order


def test_numbers_sort_by_value_and_other_names_as_text(source: Path, cache: Path) -> None:
    images(source, *map(str, range(12)))
    assert counts(source, cache)[2] == tuple(map(str, range(12)))
    assert words.in_order(["10", "9", "b"]) == ["10", "9", "b"] and words.in_order(["010", "9"]) == ["9", "010"]


def test_class_folders_of_all_splits_count_and_those_without_training_examples_are_named(
    source: Path, cache: Path
) -> None:
    images(source / "train", "a", "c")
    images(source / "test", "a", "b", "c")
    assert counts(source, cache) == (4, 6, ("a", "b", "c"))
    assert "1 of 3 classes have no training examples: b" in said(source, cache)
    assert "2 of 6 examples of split 'test' are of classes never trained on" in said(source, cache)


def test_a_test_split_of_other_classes_altogether_is_an_error(source: Path, cache: Path) -> None:
    images(source / "train", "a", "b")
    images(source / "test", "unknown", "more")
    assert "no example of split 'test'" in refusal(source, cache)


def test_a_pipe_is_no_file(source: Path, cache: Path) -> None:
    images(source, "a", "b")
    os.mkfifo(source / "a" / "9.png")
    assert counts(source, cache)[0] == 4
    assert "1 hidden name ignored: a/9.png" in said(source, cache)


def test_examples_stand_in_the_order_of_their_paths(source: Path, cache: Path) -> None:
    images(source, "a", "a-b")
    images(source / "a", "x")
    (source / "a" / "10.png").write_bytes(png(255))
    # a-b/0 a-b/1 a/0 a/1 a/10 a/x/0 a/x/1: content, and with it a trial's id, depends on the order
    assert read(source, cache)[1] == [1, 1, 0, 0, 0, 0, 0]
    assert read(source, cache)[0][4, 0, 0, 0] == 255


# Paths and lists


@pytest.mark.parametrize("name", ["[x] set", "data[1]", "a*b", "what?", "my set #2", "scans: v2", "größe 数", "%20"])
def test_a_path_is_a_path(tmp_path: Path, cache: Path, name: str) -> None:
    for other in ("data1", "axb", "whatx", "my set ", "scans"):
        images(tmp_path / other, "a", "b", num=5)
    images(tmp_path / name, "a [1]", "b*")
    assert counts(tmp_path / name, cache) == (4, 0, ("a [1]", "b*"))


def test_each_folder_is_listed_once(source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits(source, "train", "test")
    listed, scandir = [], os.scandir

    def count(path: Path) -> object:
        listed.append(str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", count)
    data.describe(given(source), cache, WHERE)
    inside = [path for path in listed if path.startswith(str(source))]
    assert len(inside) == len(set(inside)) == 7


def test_a_home_that_is_not_known_is_a_sentence(cache: Path) -> None:
    with pytest.raises(MixlabError, match=r"data\.source: .*the home of ~nobody_here is not known"):
        data.describe(given(Path("~nobody_here/set")), cache, WHERE)


def test_of_a_folder_that_is_nowhere_the_names_beside_it_are_compared(cache: Path) -> None:
    with tempfile.TemporaryDirectory() as short:  # so that no name is cut off the end of the message
        for name in ("images", "unlike", ".images"):
            (Path(short) / name).mkdir()
        message = refusal(Path(short) / "imagse", cache)
    assert "/images'?" in message and "unlike" not in message and "/.images" not in message


def test_a_tree_of_one_file_holds_that_file_alone(source: Path) -> None:
    images(source, "a", "b")
    assert list(tree.read_tree(source / "a" / "0.png", WHERE).files) == ["0.png"]
    assert layout.finds(tree.read_tree(source, WHERE)) and not layout.finds(tree.read_tree(source / "a", WHERE))
