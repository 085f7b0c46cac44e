"""The cache of decoded images: what is known is not read again, what is damaged is made anew."""

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from backends.errors import MixlabError
from experiments import data
from experiments.data import decoded, fingerprints, known, memo
from experiments.spec.config import DataConfig
from tests.conftest import TIMEOUT_S, fresh_cache
from tests.sources import (
    WHERE,
    assert_fails,
    config,
    describe_and_load,
    image_folder,
    parquet_folder,
    png,
)

cache = fresh_cache


def fail(*_: Any, **__: Any) -> Any:
    raise AssertionError("called again")


def test_a_known_source_is_neither_read_nor_hashed_again(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = config(parquet_folder(tmp_path / "set"))
    info = data.describe(given, cache, WHERE)
    monkeypatch.setattr(decoded, "read_source", fail)
    monkeypatch.setattr(fingerprints, "_hash_files", fail)
    assert data.describe(given, cache, WHERE) == info
    resolved = dataclasses.replace(given, image_size=info.image_size, image_channels=info.image_channels)
    shutil.rmtree(tmp_path / "set")
    assert len(data.load(resolved, info, cache).labels) == 24


def test_a_cache_that_was_removed_is_made_again_with_what_was_said_of_the_source(tmp_path: Path, cache: Path) -> None:
    given = config(parquet_folder(tmp_path / "set"))
    info = data.describe(given, cache, WHERE)
    said = data.in_record(given, info, cache)
    assert said["classes"] and said["kind"]
    shutil.rmtree(cache)
    resolved = dataclasses.replace(given, image_size=info.image_size, image_channels=info.image_channels)
    data.load(resolved, info, cache)
    assert data.in_record(resolved, info, cache) == said


def test_describing_a_known_source_imports_nothing_heavy(digits_cache: Path) -> None:
    data.describe(config(), digits_cache, WHERE)
    code = (
        "import sys; from pathlib import Path; from experiments import data; "
        "from experiments.spec.config import DataConfig;"
        f"data.describe(DataConfig(), Path({str(digits_cache)!r}), 'x');"
        "print([name for name in ('datasets', 'sklearn', 'PIL', 'pyarrow') if name in sys.modules])"
    )
    root = Path(data.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_same_content_in_another_folder_is_the_same_data(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = data.describe(config(parquet_folder(tmp_path / "set")), cache, WHERE)
    shutil.copytree(tmp_path / "set", tmp_path / "other")
    (tmp_path / "other" / ".hidden").write_text("x")
    monkeypatch.setattr(decoded, "read_source", fail)
    assert data.describe(config(tmp_path / "other"), cache, WHERE) == first


def test_changed_content_is_other_data_and_the_planned_trial_says_so(tmp_path: Path, cache: Path) -> None:
    given = config(parquet_folder(tmp_path / "set"))
    first = data.describe(given, cache, WHERE)
    parquet_folder(tmp_path / "set", num_train=22)
    second = data.describe(given, cache, WHERE)
    assert first.content != second.content and second.num_train == 20
    assert len(data.load(given, first, cache).labels) == 24  # from the cache
    shutil.rmtree(cache)
    with pytest.raises(MixlabError, match=r"data\.source: .*not what it was"):
        data.load(given, first, cache)


def test_other_content_of_the_same_size_is_seen_by_the_time_of_its_file(tmp_path: Path, cache: Path) -> None:
    """A second later: the clocks of some file systems go no finer."""
    given, path = config(image_folder(tmp_path / "set")), tmp_path / "set" / "train" / "cat" / "0.png"
    first, before = data.describe(given, cache, WHERE), path.stat()
    path.write_bytes(next(made for value in range(100, 256) if len(made := png(value)) == before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    assert path.stat().st_size == before.st_size
    assert data.describe(given, cache, WHERE).content != first.content


def test_a_file_that_moves_to_another_class_is_other_data(tmp_path: Path, cache: Path) -> None:
    """The contents of all files, in the order of their names, stay what they were."""
    given = config(image_folder(tmp_path / "set"))
    first, folder = data.describe(given, cache, WHERE), tmp_path / "set" / "train"
    (folder / "cat" / "7.png").rename(folder / "dog" / "+.png")
    assert data.describe(given, cache, WHERE).content != first.content


# A value for each field of which the decoded arrays are made; the others act on them afterwards.
DECODING = {
    "subset": "x", "train_split": "all", "test_split": "x", "image_column": "x", "label_column": "x",
    "layout": "classes", "background": "white", "bits": 12, "image_size": 4, "shorter_side": 8,
    "interpolation": "nearest", "image_channels": 3,
}  # fmt: skip
SYNTHETIC = {"num_classes": 3, "num_examples": 9, "split_seed": 1}
AFTERWARDS = {"fraction", "validation_fraction", "test_fraction", "permutation", "storage", "labels_real", "augment"}


def test_each_field_that_makes_other_arrays_is_a_question_of_its_own() -> None:
    """Else the arrays of one would be taken for those of the other."""
    assert {field.name for field in dataclasses.fields(DataConfig)} == {
        "source", *DECODING, *SYNTHETIC, *AFTERWARDS
    }  # fmt: skip
    for source, fields in (("x", DECODING), ("synthetic", {**DECODING, **SYNTHETIC})):
        given = [config(source), *(config(source, **{name: value}) for name, value in fields.items())]
        questions = [known.question(one, "fingerprint") for one in given]
        assert all(questions.count(one) == 1 for one in questions)
    assert known.question(config("x", split_seed=1, fraction=0.5), "a") == known.question(config("x"), "a")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "about.json"])
@pytest.mark.parametrize(
    "damage",
    [truncate, extend, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"[1]"), Path.unlink],
    ids=["truncated", "extended", "emptied", "overwritten", "removed"],
)
def test_a_damaged_entry_is_built_anew(cache: Path, name: str, damage: Callable[[Path], object]) -> None:
    given = config("synthetic", num_examples=8, image_size=4)
    info, splits = describe_and_load(given, cache)
    kept = np.array(splits.images)
    path = next(cache.glob(f"*/{name}"))
    whole = path.read_bytes()
    damage(path)
    again, splits = describe_and_load(given, cache)
    assert again == info and np.array_equal(splits.images, kept) and path.read_bytes() == whole
    assert [path.name for path in cache.iterdir() if path.name.startswith(".")] == []


def test_two_that_build_at_once_leave_one_whole_entry(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = config("synthetic", num_examples=8, image_size=4)
    both, publish, infos = threading.Barrier(2, timeout=TIMEOUT_S), decoded._publish, []

    def publish_together(made: Path, folder: Path) -> None:
        both.wait()
        publish(made, folder)

    monkeypatch.setattr(decoded, "_publish", publish_together)
    threads = [threading.Thread(target=lambda: infos.append(data.describe(given, cache, WHERE))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(infos) == 2 and infos[0] == infos[1]
    assert len(list(cache.glob("*/about.json"))) == 1
    assert {path.name for path in cache.iterdir()} == {"seen", next(cache.glob("*/about.json")).parent.name}
    assert len(data.load(given, infos[0], cache).labels) == 8


def test_no_working_files_of_the_library_stay(tmp_path: Path, cache: Path) -> None:
    data.describe(config(parquet_folder(tmp_path / "set")), cache, WHERE)
    assert {path.suffix for path in cache.rglob("*") if path.is_file()} == {".npy", ".json"}
    assert len(list(cache.iterdir())) == 2


def test_a_source_that_is_gone_is_what_it_was(tmp_path: Path, cache: Path) -> None:
    given = config(parquet_folder(tmp_path / "set"))
    info = data.describe(given, cache, WHERE)
    shutil.rmtree(tmp_path / "set")
    assert data.describe(given, cache, WHERE) == info
    for entry in cache.glob("*/about.json"):
        shutil.rmtree(entry.parent)
    assert data.describe(given, cache, WHERE) == info  # a report needs no images
    with pytest.raises(MixlabError, match=r"data\.source: .* is neither an existing folder"):
        data.load(given, info, cache)


def test_a_source_that_is_gone_is_what_it_was_last(tmp_path: Path, cache: Path) -> None:
    given = config(parquet_folder(tmp_path / "set"))
    data.describe(given, cache, WHERE)
    parquet_folder(tmp_path / "set", num_train=22)
    last = data.describe(given, cache, WHERE)
    shutil.rmtree(tmp_path / "set")
    assert data.describe(given, cache, WHERE) == last and last.num_train == 20


def test_what_an_earlier_version_noted_of_a_place_that_is_gone_is_still_known(tmp_path: Path, cache: Path) -> None:
    place = str(tmp_path / "gone")
    names = ("subset", "image_size", "image_channels", "test_split", "image_column", "label_column")
    question = {"layout": 2, "source": place, "train_split": "train", **dict.fromkeys(names)}
    noted = {"num_train": 10, "num_test": 5, "num_classes": 2, "image_size": 6, "image_channels": 1}
    memo.remember(cache, question, {"content": "c" * 24, **noted})
    assert data.describe(config(place), cache, WHERE).content == "c" * 24
    assert_fails(config(place, layout="classes"), cache, "data.source", "neither an existing folder")


def test_the_content_counts_and_not_the_files_that_it_came_in(tmp_path: Path, cache: Path) -> None:
    import datasets

    folder = parquet_folder(tmp_path / "set")
    datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "arrow")).save_to_disk(str(tmp_path / "saved"))
    first = data.describe(config(folder), cache, WHERE)
    assert data.describe(config(tmp_path / "saved"), cache, WHERE) == first
    assert data.describe(config(folder, image_column="img", test_split="test"), cache, WHERE) == first
    assert len(list(cache.glob("*/images.npy"))) == 1
    table = pq.read_table(folder / "test-00000-of-00001.parquet")
    pq.write_table(table.set_column(1, "label", [[1, 1, 1, 1]]), folder / "test-00000-of-00001.parquet")
    assert data.describe(config(folder), cache, WHERE).content != first.content


def test_a_folder_of_a_data_set_is_named_by_subset(tmp_path: Path, cache: Path) -> None:
    for name, num in (("small", 10), ("large", 20)):
        parquet_folder(tmp_path / "set" / name, num_train=num, num_test=0)
    (tmp_path / "set" / "README.md").write_text("x")
    for name, num in (("small", 10), ("large", 20)):
        info = data.describe(config(tmp_path / "set", subset=name), cache, WHERE)
        assert info.num_train + info.num_validation + info.num_test == num
    assert_fails(config(tmp_path / "set", subset="medium"), cache, "data.subset", "medium", "large, small")


def test_what_a_killed_process_left_half_made_goes_with_the_next_build(cache: Path) -> None:
    old, young = cache / ".new-old", cache / ".new-young"
    for folder in (old, young):
        (folder / "entry").mkdir(parents=True)
        (folder / "entry" / "images.npy").write_bytes(b"x")
    for path in (old, old / "entry", old / "entry" / "images.npy"):
        os.utime(path, (0, 0))
    data.describe(config("synthetic", image_size=4), cache, WHERE)
    assert not old.exists() and young.exists()


def test_reading_a_folder_is_announced_once(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = config(parquet_folder(tmp_path / "set"))
    data.describe(given, cache, WHERE)
    assert f"reading {tmp_path / 'set'}" in capsys.readouterr().err
    data.describe(given, cache, WHERE)
    assert capsys.readouterr().err == ""
