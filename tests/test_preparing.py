"""What `mixlab data prepare SOURCE OUT` writes: every form, whole or not at all, gone on with after a kill."""

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from backends.arrays import Array
from backends.errors import MixlabError
from experiments import data
from experiments.data import beside, fingerprints, memo, pixels, prepared, preparing, progress, room, staging, treating
from experiments.data.fingerprints import source_tree
from experiments.data.prepared import Prepared
from experiments.data.room import Request
from experiments.machine.environment import ROOT
from tests.conftest import Ended, base, environment, fresh_cache, records, write_yaml
from tests.prepared_sets import as_png, write
from tests.reading import noise, unpacked, write_tar
from tests.sources import WHERE, config, describe_and_load, parquet_folder

cache = fresh_cache
SIDE = 6
NUM = 3 * treating.CHUNK + 5
LABELS = [0] * 60 + [1] * (NUM - 60)
IMAGES = noise(NUM, SIDE, SIDE, 3)


def jpeg(pixels: Array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def class_folders(folder: Path, contents: list[bytes], kind: str = "png") -> Path:
    names = [f"{'ab'[label]}/{row:03}.{kind}" for row, label in enumerate(LABELS)]
    return unpacked(folder, list(zip(names, contents, strict=False)))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "set", [as_png(image) for image in IMAGES])


@pytest.fixture
def jpegs(tmp_path: Path) -> Path:
    """JPEGs of several sizes."""
    shapes = [(8 + row % 3, 9 + row % 4) for row in range(NUM)]
    return class_folders(tmp_path / "jpegs", [jpeg(noise(1, *shape, 3, seed=1)[0]) for shape in shapes], "jpeg")


def prepare(source: Path | str, out: Path, form: str = "array", jobs: int = 1, **fields: Any) -> Prepared:
    request = Request(config(source, **fields), out, form, jobs, out.parent / "cache", WHERE)
    return preparing.prepare(request, source_tree(str(source), WHERE))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("form", "jobs"), [("array", 1), ("array", 2), ("keep", 1), ("png", 2)])
def test_what_loses_nothing_has_the_id_of_its_source(
    tmp_path: Path, cache: Path, source: Path, form: str, jobs: int
) -> None:
    first, told = describe_and_load(config(source), cache)
    out = tmp_path / "out"
    prepare(source, out, form, jobs)
    info, splits = describe_and_load(config(out), tmp_path / "another")
    assert info == first and splits.classes == told.classes == ("a", "b")
    assert np.array_equal(np.asarray(splits.images), told.images) and np.array_equal(splits.labels, told.labels)
    assert names(tmp_path / "out") == sorted(
        ["about.json", "hashes.npy", "labels.npy", "names.txt"]
        + (["images.npy"] if form == "array" else ["images.bin", "offsets.npy", "sizes.npy"])
    )


def test_what_is_written_is_what_the_page_says(tmp_path: Path, source: Path) -> None:
    """But for hashes, of which only equality counts, and for the recipe."""
    held = prepare(source, tmp_path / "out", "png")
    by_hand = write(tmp_path / "hand", "encoded", list(IMAGES), LABELS)
    for name in ("labels.npy", "offsets.npy", "sizes.npy", "images.bin"):
        assert (tmp_path / "out" / name).read_bytes() == (by_hand / name).read_bytes(), name
    assert json.loads((by_hand / "about.json").read_text())["content"] == held.description.content
    assert held.names == [f"{'ab'[label]}/{row:03}.png" for row, label in enumerate(LABELS)]


@pytest.mark.parametrize("name", ["labels.npy", "hashes.npy", "names.txt"])
def test_a_byte_of_a_small_file_that_has_changed_is_damage(tmp_path: Path, source: Path, name: str) -> None:
    held = prepare(source, tmp_path / "out", "keep")
    content = bytearray((tmp_path / "out" / name).read_bytes())
    content[-4] ^= 1  # of a label: the other of two classes
    (tmp_path / "out" / name).write_bytes(content)
    anew = prepared.find(str(held.folder), WHERE)
    with pytest.raises(MixlabError, match=f"{name}: its bytes have changed since it was prepared; copy it anew"):
        getattr(anew, name.split(".")[0])


@pytest.mark.parametrize("form", ["array", "keep"])
def test_a_check_reads_all_images_and_names_those_that_have_changed(
    run: Callable[..., Ended], tmp_path: Path, source: Path, form: str
) -> None:
    held = prepare(source, tmp_path / "out", form)
    ended = run("data", "show", "out", "--check")
    assert ended.code == 0 and "note        all 101 images, and the files beside them, are as they" in ended.out
    path = next(held.folder.glob("images.*"))
    content = bytearray(path.read_bytes())
    content[-20] ^= 255
    path.write_bytes(content)
    ended = run("data", "show", "out", "--check")
    assert ended.code == 2 and "is damaged: 1 of 101 images are not what they were (100); copy it" in ended.err
    assert "no prepared data, which alone has hashes" in run("data", "show", str(source), "--check").err


@pytest.mark.parametrize(("form", "jobs"), [("keep", 1), ("array", 2), ("png", 1)])
def test_all_images_that_cannot_be_read_are_named_at_once(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, form: str, jobs: int
) -> None:
    files = sorted(source.rglob("*.png"))
    files[40].write_bytes(b"no image")
    with pytest.raises(MixlabError, match=r"image 40 of split 'train', \S+040.png, cannot .*; replace or remove it$"):
        prepare(source, tmp_path / "out", form, jobs)
    for number in (70, 100):
        files[number].write_bytes(files[number].read_bytes()[:60])
    named = r"3 images cannot be read: \S+040.png \(.*\), \S+070.png \(.*\), \S+100.png \(.*\); replace or remove them$"
    with pytest.raises(MixlabError, match=named):
        prepare(source, tmp_path / "out", form, jobs)
    monkeypatch.setattr(preparing, "MOST_BROKEN", 2)
    with pytest.raises(MixlabError, match=r"2 images or more cannot be read: \S+040.png \(.*\), \S+070.png \(.*\); "):
        prepare(source, tmp_path / "out", form, jobs)
    for number in (40, 70, 100):
        files[number].write_bytes(as_png(IMAGES[number]))
    assert prepare(source, tmp_path / "out", form, jobs).description.num == NUM


def test_kept_files_keep_their_bytes_and_sizes(tmp_path: Path, cache: Path, jpegs: Path) -> None:
    held = prepare(jpegs, tmp_path / "out", "keep", jobs=2)
    files = sorted(jpegs.rglob("*.jpeg"))
    assert (tmp_path / "out" / "images.bin").read_bytes() == b"".join(path.read_bytes() for path in files)
    assert held.description.image_size is None and held.sizes[:4].tolist() == [[8, 9], [9, 10], [10, 11], [8, 12]]
    given = config(tmp_path / "out", image_size=8, shorter_side=9)
    _, splits = describe_and_load(given, cache)
    _, right = describe_and_load(config(jpegs, image_size=8, shorter_side=9), cache)
    assert np.array_equal(np.asarray(splits.images), right.images)


def test_the_content_of_kept_files_is_their_pixels(tmp_path: Path, jpegs: Path) -> None:
    first = prepare(jpegs, tmp_path / "first", "keep").description.content
    path = sorted(jpegs.rglob("*.jpeg"))[-1]
    decoded = Image.open(path).convert("RGB")
    path.unlink()
    decoded.save(path.with_suffix(".png"))
    same = prepare(jpegs, tmp_path / "second", "keep").description.content
    decoded.putpixel((0, 0), (1, 2, 3))
    decoded.save(path.with_suffix(".png"))
    assert first == same != prepare(jpegs, tmp_path / "third", "keep").description.content


def test_resized_is_framed_as_a_trial_frames(tmp_path: Path, cache: Path, jpegs: Path) -> None:
    info, right = describe_and_load(config(jpegs, image_size=5, shorter_side=7, interpolation="box"), cache)
    for form in ("array", "png"):
        out = tmp_path / form
        prepare(jpegs, out, form, image_size=5, shorter_side=7, interpolation="box")
        for fields in ({}, {"image_size": 5, "shorter_side": 7, "interpolation": "box"}):
            found, splits = describe_and_load(config(out, **fields), tmp_path / "another")
            assert found == info and np.array_equal(np.asarray(splits.images), right.images)


def test_jpegs_made_anew_have_the_content_of_their_pixels(tmp_path: Path, cache: Path, jpegs: Path) -> None:
    held = prepare(jpegs, tmp_path / "out", "jpeg", image_size=8)
    _, splits = describe_and_load(config(tmp_path / "out"), cache)
    decoded = write(tmp_path / "hand", "array", list(np.asarray(splits.images)), LABELS)
    assert json.loads((decoded / "about.json").read_text())["content"] == held.description.content
    assert held.description.image_size == 8 and held.description.recipe["jpeg"] == treating.JPEG


def test_files_that_cannot_be_kept_are_kept_as_png_and_counted(tmp_path: Path, cache: Path) -> None:
    """Transparency, 16 bits, several frames, other kinds of files; and a picture that its camera turned is kept."""
    clear = Image.fromarray(IMAGES[0]).convert("RGBA")
    clear.putalpha(51)
    exif = Image.Exif()
    exif[0x0112] = 6
    made = [
        (clear, "PNG", {}), (Image.fromarray(np.full((8, 8), 300, np.uint16)), "PNG", {}),
        (Image.fromarray(IMAGES[1]), "PNG", {"save_all": True, "append_images": [Image.fromarray(IMAGES[2])]}),
        (Image.fromarray(IMAGES[3]), "BMP", {}), (Image.fromarray(noise(1, 6, 9, 3)[0]), "JPEG", {"exif": exif}),
        (Image.fromarray(IMAGES[4]).convert("CMYK"), "JPEG", {}), (Image.fromarray(IMAGES[5]).convert("P"), "PNG", {}),
    ]  # fmt: skip
    contents = []
    for image, kind, more in made:
        file = io.BytesIO()
        image.save(file, kind, **more)
        contents.append(file.getvalue())
    folder = class_folders(tmp_path / "set", contents)
    (folder / "b").mkdir()
    (folder / "a" / "000.png").rename(folder / "b" / "000.png")
    held = prepare(folder, tmp_path / "out", "keep", background="white", jobs=2)
    said = "\n".join(held.description.notes)
    assert "4 of 7 images are kept as PNG" in said and "1 of 7 images have 16 bits a channel" in said
    assert "1 of 7 images have transparent pixels" in said and "1 of 7 images have several frames" in said
    given = {"background": "white", "image_size": 6}
    _, splits = describe_and_load(config(tmp_path / "out", **given), cache)
    _, right = describe_and_load(config(folder, **given), cache)
    assert np.array_equal(np.asarray(splits.images), right.images)


def test_images_of_several_sizes_need_a_size_or_to_be_kept(tmp_path: Path, jpegs: Path) -> None:
    with pytest.raises(MixlabError, match=r"data.image_size: image 0 .* is 9 x 8 pixels; expected .*; give a size"):
        prepare(jpegs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_set_of_square_images_that_ends_with_another_is_one_of_several_sizes(tmp_path: Path, source: Path) -> None:
    """The first tell nothing else; the hash of their pixels is given up."""
    (source / "b" / "999.png").write_bytes(as_png(noise(1, 7, 9, 3)[0]))
    whole = prepare(source, tmp_path / "out", "keep", jobs=2).description
    assert whole.image_size is None
    (source / "a" / "000.png").rename(source / "a" / "0.png")
    assert prepare(source, tmp_path / "again", "keep").description.content == whole.content


STOPPED = "import sys; from tests import test_preparing; test_preparing.prepare_and_die(*sys.argv[1:])"


@pytest.mark.parametrize("form", ["array", "keep", "png"])
def test_two_channels_are_refused_before_an_image_is_read(tmp_path: Path, source: Path, form: str) -> None:
    with pytest.raises(MixlabError) as error:
        prepare(source, tmp_path / "out", form, image_channels=2)
    assert str(error.value) == f"{WHERE}: data.image_channels: expected 1 (grey) or 3 (colour), got 2"


@pytest.mark.parametrize("form", ["array", "keep"])
@pytest.mark.parametrize("size", [None, 4], ids=["as stored", "framed"])
def test_the_first_images_of_a_prepared_set_are_those_that_a_trial_has(
    tmp_path: Path, source: Path, cache: Path, form: str, size: int | None
) -> None:
    """An export compares a few of them; nothing is decoded into the cache for it."""
    prepare(source, tmp_path / "out", form)
    given = config(tmp_path / "out", image_size=size)
    info, splits = describe_and_load(given, cache)
    found = data.first_images(given, info, cache, 5)
    assert found is not None and found.shape == (5, size or SIDE, size or SIDE, 3)
    assert np.array_equal(found, splits.images[:5])
    shutil.rmtree(tmp_path / "out")
    assert data.first_images(given, info, cache, 5) is None


def stopped(at: int, form: str, source: Path, out: Path, **fields: Any) -> int:
    """The exit code of a process that prepares, and is killed after so many images; all it wrote is synced.

    Args: at: 0: it is killed as soon as its files are open.
    """
    command = [sys.executable, "-c", STOPPED, str(at), form, str(source), str(out), json.dumps(fields)]
    return subprocess.run(command, env=environment(), check=False).returncode


def prepare_and_die(at: str, form: str, source: str, out: str, fields: str) -> None:
    staging.SYNC_S = -1.0
    advance = progress.Bar.advance

    def and_die(self: progress.Bar, number: int) -> None:
        advance(self, number)
        if self.done >= int(at):
            os.kill(os.getpid(), signal.SIGKILL)

    def open_and_die(self: staging.Staging, *given: Any) -> None:
        opens(self, *given)
        os.kill(os.getpid(), signal.SIGKILL)

    opens = staging.Staging.open
    if at == "0":
        staging.Staging.open = open_and_die  # type: ignore[method-assign]
    preparing.Bar.advance = and_die  # type: ignore[method-assign]
    prepare(source, Path(out), form, **json.loads(fields))


def treated_by(do: Callable[[], object]) -> int:
    """How many images were treated."""
    treated: list[int] = []
    chunk = treating.Treatment.chunk

    def count(self: treating.Treatment, items: list[treating.Item]) -> Any:
        treated.append(len(items))
        return chunk(self, items)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(treating.Treatment, "chunk", count)
        do()
    return sum(treated)


@pytest.mark.parametrize(
    ("form", "fields"), [("array", {}), ("array", {"image_size": 4}), ("png", {}), ("keep", {}), ("several", {})]
)
def test_after_a_kill_it_goes_on_where_it_was(
    tmp_path: Path, source: Path, jpegs: Path, monkeypatch: pytest.MonkeyPatch, form: str, fields: dict[str, Any]
) -> None:
    folder, form = (jpegs, "keep") if form == "several" else (source, form)
    whole = prepare(folder, tmp_path / "whole", form, **fields)
    assert stopped(2 * treating.CHUNK, form, folder, tmp_path / "out", **fields) == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    for path in (tmp_path / ".out.preparing").glob("[ir][mo]*.*"):  # images and rows that were not safe yet
        path.write_bytes(path.read_bytes() + b"a part of another image")
    monkeypatch.setattr(room, "SAMPLE", 1)
    made = treated_by(lambda: prepare(folder, tmp_path / "out", form, **fields))
    assert made - (0 if form == "array" or form == "keep" else 1) == NUM - 2 * treating.CHUNK
    held = prepare(folder, tmp_path / "out", form, **fields)
    assert held.description == whole.description and names(tmp_path / "out") == names(tmp_path / "whole")
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes(), path.name


def test_what_was_begun_with_other_options_is_not_lost(tmp_path: Path, source: Path) -> None:
    stopped(treating.CHUNK, "array", source, tmp_path / "out")
    folder = tmp_path / ".out.preparing"
    there = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(
        MixlabError, match=rf"out\.preparing holds {treating.CHUNK} images of .* other options; give those"
    ):
        prepare(source, tmp_path / "out", "png")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == there


CHANGES: dict[str, tuple[int, Callable[[list[Path]], Any]]] = {
    "the first is another": (0, lambda files: files[0].write_bytes(as_png(255 - IMAGES[0]))),
    "one is another": (20, lambda files: files[20].write_bytes(as_png(255 - IMAGES[20]))),
    "one of the same size and content has another time": (20, lambda files: os.utime(files[20], (1, 1))),
    "one is gone": (20, lambda files: files[20].unlink()),
    "one came": (20, lambda files: shutil.copy(files[0], files[20].with_suffix(".a.png"))),
    "one behind is another": (treating.CHUNK, lambda files: files[-1].write_bytes(as_png(255 - IMAGES[-1]))),
    "a class came": (treating.CHUNK, lambda files: unpacked(files[0].parents[1], [("c/0.png", as_png(IMAGES[0]))])),
}


@pytest.mark.parametrize("form", ["array", "keep"])
@pytest.mark.parametrize("how", CHANGES)
def test_of_files_that_changed_what_comes_before_stays(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str], how: str, form: str
) -> None:
    stopped(treating.CHUNK, form, source, tmp_path / "out")
    kept, change = CHANGES[how]
    change(sorted(source.rglob("*.png")))
    made = treated_by(lambda: prepare(source, tmp_path / "out", form))
    what = f"{kept} images before the first of them stay" if kept else "it is begun anew"
    assert f"out.preparing was begun before files of the source changed: {what}" in capsys.readouterr().err
    whole = prepare(source, tmp_path / "whole", form)
    assert made == whole.description.num - kept
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("at", [0, 2 * treating.CHUNK])
def test_what_a_kill_leaves_of_files_that_changed_goes_on(tmp_path: Path, source: Path, at: int) -> None:
    """Also where the files are the first ones again."""
    stopped(2 * treating.CHUNK, "array", source, tmp_path / "out")
    image = source / "a" / "020.png"
    content, stat = image.read_bytes(), image.stat()
    image.write_bytes(as_png(255 - IMAGES[20]))
    assert stopped(at, "array", source, tmp_path / "out") == -signal.SIGKILL
    image.write_bytes(content)
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    held = prepare(source, tmp_path / "out")
    assert held.description == prepare(source, tmp_path / "whole").description


@pytest.mark.parametrize("form", ["array", "keep"])
def test_where_fewer_images_are_left_than_were_done_those_stay(tmp_path: Path, source: Path, form: str) -> None:
    stopped(3 * treating.CHUNK, form, source, tmp_path / "out")
    for path in sorted(source.rglob("*.png"))[-10:]:
        path.unlink()
    assert treated_by(lambda: prepare(source, tmp_path / "out", form)) == 0
    held = prepare(source, tmp_path / "out", form)
    assert held.description == prepare(source, tmp_path / "whole", form).description
    assert len(held.hashes) == NUM - 10 and held.pixels().read(0).shape == (SIDE, SIDE, 3)


def test_files_that_have_changed_their_names_are_others(tmp_path: Path) -> None:
    """Also where all are of one size and time."""

    def bmp(pixels: Array) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "BMP")
        return file.getvalue()

    source = class_folders(tmp_path / "set", [bmp(image) for image in IMAGES], "bmp")
    files = sorted(source.rglob("*.bmp"))
    for path in files:
        os.utime(path, (1, 1))
    stopped(treating.CHUNK, "array", source, tmp_path / "out")
    files[3].rename(tmp_path / "other")
    files[4].rename(files[3])
    (tmp_path / "other").rename(files[4])
    files[-1].unlink()
    prepare(source, tmp_path / "out")
    images = np.load(tmp_path / "out" / "images.npy")
    assert np.array_equal(images[3], IMAGES[4]) and np.array_equal(images[4], IMAGES[3])


def test_what_is_made_anew_leaves_its_room_first(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(2 * treating.CHUNK, "array", source, tmp_path / "out")
    (source / "a" / "020.png").write_bytes(as_png(255 - IMAGES[20]))
    seen: list[int] = []

    def usage(folder: Path) -> Any:
        seen.append((folder / "images.npy").stat().st_size)
        return SimpleNamespace(free=10**9)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    prepare(source, tmp_path / "out")
    assert seen == [128 + 20 * SIDE * SIDE * 3]


def test_a_lock_that_was_removed_is_none(tmp_path: Path) -> None:
    """Who had it has ended without an image between two looks of another process."""
    one = staging.Staging(tmp_path / "out", "a", "b", WHERE)
    opens, removed = os.open, list[bool]()

    def late(path: Any, *given: Any) -> int:
        lock = opens(path, *given)
        if not removed:
            removed.append(True)
            Path(path).unlink()
        return lock

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", late)
        one.__enter__()
    with (
        pytest.raises(MixlabError, match="is being prepared by another process"),
        staging.Staging(tmp_path / "out", "a", "b", WHERE),
    ):
        pass
    one.__exit__()
    assert not list(tmp_path.iterdir())


def test_grey_images_are_made_anew_where_one_of_colour_came(tmp_path: Path) -> None:
    """All images are of colour then."""
    source = class_folders(tmp_path / "set", [as_png(image[..., :1]) for image in IMAGES])
    stopped(treating.CHUNK, "array", source, tmp_path / "out")
    (source / "b" / f"{NUM - 1:03}.png").write_bytes(as_png(IMAGES[-1]))
    held = prepare(source, tmp_path / "out")
    assert held.description == prepare(source, tmp_path / "whole").description
    assert np.load(tmp_path / "out" / "images.npy").shape == (NUM, SIDE, SIDE, 3)


@pytest.mark.parametrize("name", ["rows.bin", "images.npy"])
def test_a_preparation_of_which_a_file_is_cut_off_is_damaged(tmp_path: Path, source: Path, name: str) -> None:
    stopped(treating.CHUNK, "array", source, tmp_path / "out")
    os.truncate(tmp_path / ".out.preparing" / name, 10 * staging.ROW.itemsize)
    with pytest.raises(MixlabError, match=r"out.preparing is damaged; remove it, and give the same command again"):
        prepare(source, tmp_path / "out")


def test_a_preparation_that_does_not_say_how_far_it_is_is_begun_anew(
    tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped(treating.CHUNK, "array", source, tmp_path / "out")
    (tmp_path / ".out.preparing" / "progress.json").write_text("{")
    assert treated_by(lambda: prepare(source, tmp_path / "out")) == NUM
    assert "progress.json cannot be read: " in (said := capsys.readouterr().err) and "changed" not in said


def test_images_of_16_bits_are_made_anew_where_a_file_changed(tmp_path: Path) -> None:
    """Their range is that of all files."""
    images = noise(NUM, SIDE, SIDE, 1)[..., 0].astype(np.uint16) << 4
    contents = [as_png(image) for image in images]
    source = class_folders(tmp_path / "set", contents)
    stopped(treating.CHUNK, "array", source, tmp_path / "out")
    (source / "b" / f"{NUM - 1:03}.png").write_bytes(as_png(images[-1] << 4))
    held = prepare(source, tmp_path / "out")
    assert held.description == prepare(source, tmp_path / "whole").description


def test_a_refusal_leaves_nothing(tmp_path: Path, source: Path, jpegs: Path) -> None:
    with pytest.raises(MixlabError, match="expected 9 x 9, square"):
        prepare(jpegs, tmp_path / "out")
    for path in source.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(MixlabError, match="cannot be read"):
        prepare(source, tmp_path / "out", image_size=SIDE, image_channels=3)
    assert not list(tmp_path.glob(".*"))


def test_a_set_that_is_there_stays_and_another_is_refused(tmp_path: Path, source: Path) -> None:
    first = prepare(source, tmp_path / "out")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert prepare(source, tmp_path / "out").description == first.description
    with pytest.raises(MixlabError, match="out is there and is prepared data of another source, or with other options"):
        prepare(source, tmp_path / "out", "png")
    with pytest.raises(MixlabError, match="set is there and is something else; name another folder"):
        prepare(source, source)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    assert not list(tmp_path.glob(".*"))


def test_a_folder_in_the_source_is_refused_and_a_link_is_followed(
    run: Callable[..., Ended], tmp_path: Path, source: Path
) -> None:
    """In the source it would be a folder of images there; over a link no folder can be renamed."""
    with pytest.raises(MixlabError, match=r"out lies in .*set, and would become a part of it"):
        prepare(source, source / "out")
    (tmp_path / "link").symlink_to("elsewhere")
    assert run("data", "prepare", str(source), str(tmp_path / "link"), "--jobs", "1").code == 0
    assert (tmp_path / "elsewhere" / "about.json").exists() and (tmp_path / "link").is_symlink()


def test_names_of_files_may_be_any_bytes(tmp_path: Path, source: Path) -> None:
    (source / "a" / "000.png").rename(source / "a" / os.fsdecode(b"\xff\r.png"))
    held = prepare(source, tmp_path / "out", "keep")
    assert held.names is not None and os.fsdecode(b"a/\xff\r.png") in held.names and len(held.names) == NUM


def test_a_second_process_is_refused_while_the_first_writes(tmp_path: Path, source: Path) -> None:
    with (
        staging.Staging(tmp_path / "out", "a", "b", WHERE),
        pytest.raises(MixlabError, match="out is being prepared by another process; wait for it"),
    ):
        prepare(source, tmp_path / "out")
    prepare(source, tmp_path / "out")


@pytest.mark.parametrize("form", ["array", "keep", "png"])
def test_a_disk_without_room_is_refused_before_anything_is_written(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10_000))
    monkeypatch.setattr(room, "GIB", 1)
    with pytest.raises(
        MixlabError, match=r"out: 101 images take ([\d,.]+) GiB(.*), and 10,000.00 GiB are free"
    ) as told:
        prepare(source, tmp_path / "out", form)
    assert ("by the mean" in str(told.value)) == (form != "array")
    assert str(told.value).endswith("give --resize in place of --keep") == (form == "keep")
    assert not list(tmp_path.rglob("images.*"))


@pytest.mark.parametrize("when", ["images", "small files"])
def test_a_disk_that_fills_up_is_a_sentence_and_it_goes_on(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*_: Any, **__: Any) -> Any:
        raise full

    with monkeypatch.context() as patch:
        if when == "images":
            sync, calls = staging.Staging.sync, []
            patch.setattr(staging, "SYNC_S", -1.0)
            patch.setattr(
                staging.Staging, "sync", lambda self: fail() if calls.append(1) or len(calls) == 2 else sync(self)
            )
        else:
            patch.setattr(np, "save", fail)
        with pytest.raises(MixlabError, match=r"no space is left; .* images are done; free space there, .* goes on"):
            prepare(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    held = prepare(source, tmp_path / "out")
    assert held.description.num == NUM and np.array_equal(np.load(tmp_path / "out" / "images.npy"), IMAGES)


def test_a_full_disk_is_a_sentence_whatever_files_still_hold_back(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written and is not safe is not told of as done; its room is free for the next, after a kill too."""

    class Full:
        def write(self, *_: Any) -> Any:
            raise OSError(errno.ENOSPC, "No space left on device")

        flush = close = fileno = write

    write = staging.Staging.write

    def write_full(self: staging.Staging, made: Any) -> None:
        self.files = [self.images, self.rows] = Full(), Full()
        write(self, made)

    with monkeypatch.context() as patch:
        patch.setattr(staging.Staging, "write", write_full)
        with pytest.raises(MixlabError, match=r"no space is left; free space there, and give the same command again$"):
            prepare(source, tmp_path / "out")
    folder = tmp_path / ".out.preparing"
    assert not folder.exists()
    folder.mkdir()
    (folder / "images.npy").write_bytes(bytes(10**6))
    seen: list[int] = []
    usage = lambda folder: seen.append(sum(p.stat().st_size for p in folder.iterdir())) or SimpleNamespace(free=10**9)  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert prepare(source, tmp_path / "out").description.num == NUM and seen == [128]  # the head of the array


def test_a_decoder_that_is_killed_is_a_sentence_and_it_goes_on(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(treating.Workers, "made", ending(treating.Workers.made))
        with pytest.raises(MixlabError, match=r"a process that decodes images was killed.* fewer --jobs"):
            prepare(source, tmp_path / "out", jobs=2)
    assert prepare(source, tmp_path / "out", jobs=2).description.num == NUM


def dies_half_way() -> None:
    """Have this process be killed in the middle of what it sends."""
    from multiprocessing.connection import Connection

    send = Connection._send  # type: ignore[attr-defined]

    def half(self: Connection, content: bytes) -> None:
        send(self, content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    Connection._send = half  # type: ignore[attr-defined]


def test_a_process_that_is_killed_in_the_middle_of_an_answer_is_not_waited_for() -> None:
    pool = beside.Pool(1, dies_half_way)
    try:
        with pytest.raises(beside.Killed):
            pool.submit(abs, -3).result(60)
    finally:
        pool.end()


def ending(made: Any) -> Any:
    """As Workers.made; when some images are on their way all processes are killed."""

    def and_kill(self: treating.Workers, items: Any) -> Any:
        def killing() -> Any:
            for number, item in enumerate(items):
                if number == 2 * treating.CHUNK and self.pool:
                    for one in self.pool.processes:
                        one.process.kill()
                        one.process.join()
                yield item

        return made(self, killing())

    return and_kill


def test_the_test_split_of_a_table_is_prepared_with_it(tmp_path: Path, cache: Path) -> None:
    folder = parquet_folder(tmp_path / "set", num_train=40, num_test=9)
    first, right = describe_and_load(config(folder), cache)
    for form in ("array", "keep"):
        assert stopped(treating.CHUNK, form, folder, tmp_path / form) == -signal.SIGKILL
        prepare(folder, tmp_path / form, form)
        info, splits = describe_and_load(config(tmp_path / form), cache)
        assert info == first and np.array_equal(splits.test, right.test) and len(splits.test) == 9
        assert np.array_equal(np.asarray(splits.images), right.images)


@pytest.mark.parametrize("form", ["array", "keep"])
@pytest.mark.parametrize("kind", ["parquet", "tar", "gztar", "zip", "samples"])
def test_names_of_images_in_tables_and_archives_are_kept_so_that_their_right_classes_are_found(
    tmp_path: Path, cache: Path, kind: str, form: str
) -> None:
    """As the hub's ImageNet and the tar of its validation images name them."""
    files = [f"ILSVRC2012_val_{row + 1:08}{'_n01440764' * (kind == 'parquet')}.JPEG" for row in range(20)]
    images, labels = [as_png(image) for image in IMAGES[:20]], [row % 2 for row in range(20)]
    if kind == "parquet":
        rows = [{"bytes": image, "path": name} for image, name in zip(images, files, strict=True)]
        (tmp_path / "set").mkdir()
        pq.write_table(pa.table({"image": rows, "label": labels}), tmp_path / "set" / "train.parquet")
        expected = files
    elif kind == "samples":
        pairs = zip(files, images, labels, strict=True)
        members = [
            member for name, image, label in pairs for member in ((name, image), (f"{name[:-5]}.cls", b"%d" % label))
        ]
        expected = files
        (tmp_path / "set").mkdir()
        write_tar(tmp_path / "set" / "train-0.tar", members)
    else:
        expected = [f"{'ab'[label]}/{name}" for name, label in zip(files, labels, strict=True)]
        unpacked(tmp_path / "folder", list(zip(expected, images, strict=True)))
        (tmp_path / "set").mkdir()
        shutil.make_archive(str(tmp_path / "set" / "images"), kind, tmp_path / "folder")
    held = prepare(tmp_path / "set", tmp_path / "out", form, jobs=2)
    assert held.names is not None and sorted(held.names) == sorted(expected)
    whole = describe_and_load(config(tmp_path / "set"), cache)[1]
    rows = [IMAGES[int(name[-30:].split("_val_")[1][:8]) - 1] for name in held.names]
    assert np.array_equal(np.asarray(whole.images), rows)  # each name is that of its image
    told = [[row % 2] for row in range(20)]
    (tmp_path / "real.json").write_text(json.dumps(told))
    _, splits = describe_and_load(config(tmp_path / "out", labels_real=str(tmp_path / "real.json")), cache)
    assert splits.right is not None and np.array_equal(splits.right.argmax(1), splits.labels[splits.test])


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, source: Path) -> None:
    (source / "b" / "070.png").write_bytes(b"none")
    with pytest.raises(MixlabError, match=r"image 70 of split 'train', .*b/070.png, cannot be read \(cannot identify"):
        prepare(source, tmp_path / "out", "keep", jobs=2)
    assert not (tmp_path / "out").exists()


def test_arrays_and_built_in_sources_are_prepared_too(tmp_path: Path, cache: Path) -> None:
    for form in ("array", "keep"):
        prepare("digits", tmp_path / form, form)
        first, _ = describe_and_load(config("digits"), cache)
        assert data.describe(config(tmp_path / form), cache, WHERE).content == first.content
    assert "names.txt" not in names(tmp_path / "array")


@pytest.mark.parametrize("same", [True, False])
def test_a_decoder_that_gives_other_pixels_is_refused(
    tmp_path: Path, cache: Path, jpegs: Path, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    prepare(jpegs, tmp_path / "out", "keep")
    monkeypatch.setattr(prepared, "decoders", lambda: {"pillow": "1.2", "libjpeg": "6b"})
    if same:
        describe_and_load(config(tmp_path / "out", image_size=8), cache)
        return
    decode = pixels.decode
    monkeypatch.setattr(pixels, "decode", lambda content, channels: decode(content, channels) ^ 1)
    with pytest.raises(MixlabError, match=r"Pillow 1.2 with libjpeg 6b decodes image 0 to other pixels than Pillow \d"):
        describe_and_load(config(tmp_path / "out", image_size=8), cache)


def test_a_listing_asks_what_it_asked_before_it_was_hashed_part_by_part(tmp_path: Path, source: Path) -> None:
    """Notes of before stay in use."""
    (source / "b" / 'a "b".txt').touch()
    tree = source_tree(str(source), WHERE)
    assert tree is not None
    question = ["folder", str(source.resolve()), [[name, *told] for name, told in tree.all_files()]]
    assert fingerprints._files_question(tree).digest == memo.hashed(question)
    assert memo.hashed(question)[:24] in str(memo._path(tmp_path, fingerprints._files_question(tree)))


def test_what_is_prepared_is_neither_prepared_anew_nor_copied(
    run: Callable[..., Ended], tmp_path: Path, source: Path
) -> None:
    prepare(source, tmp_path / "out")
    assert "out: 101 images of 6 x 6 x 3 in 2 classes" in run("data", "prepare", "out").out
    assert not list(tmp_path.glob("runs/data/*/images.npy"))
    with pytest.raises(MixlabError, match="out' is prepared already, and read as it is"):
        prepare(tmp_path / "out", tmp_path / "other")


@pytest.mark.parametrize("form", ["array", "png"])
def test_a_trial_of_a_source_and_of_its_prepared_data_is_one(
    run: Callable[..., Ended], tmp_path: Path, quick: Path, source: Path, form: str
) -> None:
    tree = {**base(backend="quick"), "data": {"source": str(source)}}
    tree["model"] = {"hidden_dim": 8, "num_blocks": 1, "patch_size": 2}
    write_yaml(tmp_path / "a.yaml", base=tree)
    prepare(source, tmp_path / "out", form)
    assert run("run", "a.yaml", f"data.source={tmp_path / 'out'}").code == 0
    trained = records(tmp_path / "runs")
    shutil.rmtree(tmp_path / "out")
    planned = run("plan", "a.yaml").out
    assert planned.startswith(f"a: {len(trained)} trials: {len(trained)} done"), planned
    assert [one["data"]["classes"] for one in trained.values()] == [["a", "b"]] * len(trained)
    assert all(one["data"]["repeats"] for one in trained.values())


# The command


def test_prepared_data_is_shown_without_its_images(
    run: Callable[..., Ended], tmp_path: Path, jpegs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(jpegs, tmp_path / "out", "keep")
    monkeypatch.setattr(pixels, "decode", None)
    words = ("data", "show", "out")
    ended = run(*words)
    assert ended.code == 0, ended.err
    assert "prepared    as files of images, 0.0" in ended.out and f"made with   source {jpegs}, form keep" in ended.out
    assert "splits      train 101; trained on train, test examples are cut from it" in ended.out
    assert "images      9 of 9 x 8 RGB" in ended.out and "0       a      60" in ended.out
    assert "a trial cannot use it yet: command line: data.image_size" in ended.out
    assert "8 of 8 validation examples (100.0%) equal a training example" in run(*words, "data.image_size=8").out


def test_a_sheet_of_prepared_data_decodes_what_it_shows(
    run: Callable[..., Ended], tmp_path: Path, jpegs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(jpegs, tmp_path / "out", "keep")
    read: list[int] = []
    monkeypatch.setattr(pixels.Framed, "read", lambda self, number: (read.append(number), noise(1, 8, 8, 3)[0])[1])
    assert run("data", "show", "out", "data.image_size=8", "--sheet", "s.png").code == 0
    assert sorted(set(read)) == [*range(8), *range(60, 68)]


def test_the_command_says_what_it_wrote(run: Callable[..., Ended], tmp_path: Path, source: Path, jpegs: Path) -> None:
    ended = run("data", "prepare", str(source), "out", "--jobs", "1", "data.validation_fraction=0.2")
    assert ended.code == 0, ended.err
    assert ended.out.startswith(f"{source}: 101 images of 6 x 6 x 3 in 2 classes, as pixels, 0.0")
    ended = run("data", "prepare", str(jpegs), "kept", "--keep", "--jobs", "1")
    assert ended.code == 0 and "101 images of several sizes, in colour, in 2 classes, as files of images" in ended.out
    ended = run("data", "prepare", str(jpegs), "small", "--resize", "7", "--encode", "png", "--jobs", "1")
    assert ended.code == 0 and "of 7 x 7 x 3 in 2 classes, as files" in ended.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("out", "--keep", "--resize", "8"), "--keep keeps the files as they are, so a size (8) cannot be"),
        (("out", "--keep", "--encode", "png"), "so --encode png cannot be"),
        (("out", "--resize", "8", "data.image_size=9"), "--resize 8 and data.image_size=9: leave one out"),
        (("out", "--resize", "0"), "--resize: expected 1 or more pixels, got 0"),
        (("out", "--jobs", "-1"), "--jobs: expected 1 or more, got -1"),
        (("out", "--jobs", "0"), "--jobs: expected 1 or more, got 0"),
        (("out", "--jobs", "100000"), ", 4 a core, got 100000"),
        (
            ("out", "--resize", "8", "data.image_channels=2"),
            "data.image_channels: expected 1 (grey) or 3",
        ),
        (("digits",), "OUT: digits is the name of data that is built in"),
        (("out", "--resize", "8", "data.shorter_side=7"), "data.shorter_side: 7 needs a data.image_size"),
        (("out", "other"), "expected one folder to prepare data in, got out and other"),
        (("--keep",), "--keep needs a folder"),
        (("--encode", "png"), "--encode needs a folder"),
    ],
)
def test_options_that_contradict_are_refused(
    run: Callable[..., Ended], source: Path, words: tuple[str, ...], said: str
) -> None:
    ended = run("data", "prepare", str(source), *words)
    assert ended.code == 2 and said in ended.err and ended.err.count("\n") == 1


def begun(folder: Path, source: Path) -> "subprocess.Popen[str]":
    """A process that prepares with two others, and has noted some of its work; it is slow."""
    words = ["data", "prepare", str(source), "out", "--keep", "--jobs", "2"]
    script = folder / "slow.py"
    script.write_text(
        "import signal, sys, time\n"
        "import mixlab\n"
        "from experiments.data import preparing, staging\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in the background
        "    staging.SYNC_S = -1.0\n"
        "    preparing.Bar.advance = lambda self, number: time.sleep(0.5)\n"
        f"    sys.exit(mixlab.main({words!r}))\n"
    )
    started = subprocess.Popen(
        [sys.executable, str(script)], cwd=folder, env={**environment(), "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (folder / ".out.preparing" / "progress.json").exists() and started.poll() is None:
        time.sleep(0.01)
    return started


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_it_with_its_decoders_and_it_goes_on(tmp_path: Path, jpegs: Path, number: signal.Signals) -> None:
    started = begun(tmp_path, jpegs)
    others = psutil.Process(started.pid).children(recursive=True)
    started.send_signal(number)
    _, err = started.communicate(timeout=60)
    assert "Traceback" not in err
    assert (started.returncode, err) == (-number if number == signal.SIGKILL else 128 + number, err)
    assert len(others) >= 2 and not psutil.wait_procs(others, timeout=30)[1]
    done = json.loads((tmp_path / ".out.preparing" / "progress.json").read_text())["done"]
    assert treating.CHUNK <= done < NUM and not (tmp_path / "out").exists()
    assert prepare(jpegs, tmp_path / "out", "keep").description.num == NUM
