"""Zip and tar files: they are read as the folders that they hold, and nothing is unpacked outside."""

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import fresh_cache
from tests.reading import png, read, refusal, said, unpacked, write_cifar10, write_tar

cache = fresh_cache


def class_files(before: str = "", num: int = 6) -> list[tuple[str, bytes]]:
    return [(f"{before}{'ab'[row % 2]}/{row}.png", png(10 * row)) for row in range(num)]


def write_zip(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members:
            made.writestr(name, content)
    return path


ARCHIVES = {
    "zip": write_zip,
    "tar": write_tar,
    "tar.gz": lambda path, members: write_tar(path, members, "w:gz"),
    "tgz": lambda path, members: write_tar(path, members, "w:gz"),
    "tar.bz2": lambda path, members: write_tar(path, members, "w:bz2"),
    "tar.xz": lambda path, members: write_tar(path, members, "w:xz"),
}
LAYOUTS = {
    "classes": class_files(),
    "splits": [*class_files("train/"), *class_files("test/", 4)],
    "wrapped": [*class_files("my set/train/"), *class_files("my set/val/", 4), ("__MACOSX/train/a/._0.png", b"x")],
    "beside a document": [("README.md", b"x"), *class_files("my set/train/"), *class_files("my set/val/", 4)],
    "table": [
        *((f"images/{row}.png", png(row)) for row in range(6)),
        (
            "labels.csv",
            b"file,kind\n" + b"".join(f"images/{row}.png,{'xy'[row % 2]}\n".encode() for row in range(6)),
        ),
    ],
}


@pytest.mark.parametrize("kind", ARCHIVES)
@pytest.mark.parametrize("inside", [False, True])
def test_an_archive_is_read_as_the_folder_that_it_holds(tmp_path: Path, cache: Path, kind: str, inside: bool) -> None:
    right, labels, _ = read(unpacked(tmp_path / "folder", LAYOUTS["splits"]), cache)
    path = ARCHIVES[kind](tmp_path / "set" / f"my.images.{kind}", LAYOUTS["splits"])
    images, packed_labels, splits = read(path.parent if inside else path, tmp_path / "other")
    assert np.array_equal(images, right) and packed_labels == labels == [0, 0, 0, 1, 1, 1, 0, 0, 1, 1]
    assert len(splits.test) == 4


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_the_rules_of_folders_hold_in_archives(tmp_path: Path, cache: Path, layout: str, kind: str) -> None:
    right, labels, _ = read(unpacked(tmp_path / "folder", LAYOUTS[layout]), cache, **where_it_begins(layout, tmp_path))
    images, packed_labels, _ = read(ARCHIVES[kind](tmp_path / f"set.{kind}", LAYOUTS[layout]), tmp_path / "other")
    assert np.array_equal(images, right) and packed_labels == labels and len(labels) >= 6


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_the_question_of_a_folder_s_layout_has_its_answers_in_archives(tmp_path: Path, cache: Path, kind: str) -> None:
    path = ARCHIVES[kind](tmp_path / f"set.{kind}", [*class_files("bus/"), *class_files("train/", 8)])
    assert "can be classes (bus, train) or splits (train" in refusal(path, cache)
    assert read(path, cache, layout="classes", test_fraction=0.5)[1] == [0] * 6 + [1] * 8
    assert read(path, cache, layout="splits", test_fraction=0.5)[1] == [0] * 4 + [1] * 4


def where_it_begins(layout: str, tmp_path: Path) -> dict[str, Any]:
    return {"subset": "my set"} if layout in ("wrapped", "beside a document") else {}


def test_several_archives_stand_for_folders_of_their_names(tmp_path: Path, cache: Path) -> None:
    write_zip(tmp_path / "set" / "train.zip", class_files("train/"))
    write_tar(tmp_path / "set" / "test.tar", class_files(num=4))
    images, _, splits = read(tmp_path / "set", cache)
    assert images[:, 0, 0, 0].tolist() == [0, 20, 40, 10, 30, 50, 0, 20, 10, 30] and len(splits.test) == 4
    for name in ("a", "b"):
        write_tar(tmp_path / "each" / f"{name}.tar", [(f"{row}.png", png(row)) for row in range(4)])
    assert read(tmp_path / "each", cache)[1] == [0] * 4 + [1] * 4


def test_images_in_an_archive_beside_their_table_are_read(tmp_path: Path, cache: Path) -> None:
    write_zip(tmp_path / "set" / "images.zip", [(f"{row}.png", png(row)) for row in range(6)])
    rows = "".join(f"images/{row}.png,{'xy'[row % 2]}\n" for row in range(6))
    (tmp_path / "set" / "labels.csv").write_text(f"file,kind\n{rows}")
    images, labels, _ = read(tmp_path / "set", cache)
    assert images[:, 0, 0, 0].tolist() == list(range(6)) and labels == [0, 1] * 3


def test_an_archive_of_another_data_sets_files_is_read(tmp_path: Path, cache: Path) -> None:
    folder = write_cifar10(tmp_path / "cifar-10-batches-py")
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as made:
        made.add(folder, folder.name)
    images, _, _ = read(tmp_path / "cifar-10-python.tar.gz", cache)
    assert np.array_equal(images, read(folder, tmp_path / "other")[0])


def test_links_and_hidden_names_in_archives_are_counted(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as made:
        for name, content in [*class_files(), ("a/.hidden", b"x")]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("a/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "0.png"
        made.addfile(link)
    assert len(read(path, cache)[1]) == 6
    notes = " ".join(said(path, cache))
    assert "1 link in archives ignored: a/link.png" in notes and "1 hidden name ignored: a/.hidden" in notes


@pytest.mark.parametrize("name", ["../outside.csv", "/outside.csv", "a/../../outside.csv", "..\\outside.csv"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_nothing_is_unpacked_outside(tmp_path: Path, cache: Path, name: str, kind: str) -> None:
    path = ARCHIVES[kind](tmp_path / "set" / f"set.{kind}", [*class_files(), (name, b"x")])
    assert "would lie outside" in refusal(path, cache)
    assert not list(tmp_path.rglob("outside.csv"))


def test_archives_that_cannot_be_read_are_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "set.rar").write_bytes(b"Rar!")
    assert "unpack it" in refusal(tmp_path / "set.rar", cache)
    (tmp_path / "set.zip").write_bytes(b"PK\3\4 damaged")
    assert "cannot be read" in refusal(tmp_path / "set.zip", cache)
    tar = write_tar(tmp_path / "set.tgz", class_files(), "w:gz")
    tar.write_bytes(tar.read_bytes()[:-20])
    assert "damaged" in refusal(tar, cache)
    locked = bytearray(write_zip(tmp_path / "locked.zip", class_files()).read_bytes())
    for mark, at in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        place = -1
        while (place := locked.find(mark, place + 1)) >= 0:
            locked[place + at] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    assert "password" in refusal(tmp_path / "locked.zip", cache)


def test_what_lies_beside_the_wrapper_is_named_and_no_message_names_a_working_folder(
    tmp_path: Path, cache: Path
) -> None:
    write_zip(tmp_path / "set.zip", LAYOUTS["beside a document"])
    assert "1 name beside my set ignored: README.md" in said(tmp_path / "set.zip", cache)
    write_zip(tmp_path / "rows.zip", [("a.csv", b"file,label\n0.png,a\n1.png,b\n"), ("1.png", png(1))])
    assert f"paths are relative to {tmp_path / 'rows.zip'}" in refusal(tmp_path / "rows.zip", cache)
